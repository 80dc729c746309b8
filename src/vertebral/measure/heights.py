"""Distances between two endplates at their front, middle and back: body heights and disc heights alike."""

from dataclasses import dataclass

import numpy as np

from vertebral.measure.endplates import robust_plane
from vertebral.measure.frames import Frame, Points

# Zones in shares of the depth, from the front (0) to the back (1), and half widths in shares of the half width.
_FRONT_ZONE, _MIDDLE_ZONE, _BACK_ZONE = (0.08, 0.35), (0.38, 0.62), (0.65, 0.92)
_EDGE_HALF_WIDTH, _MIDDLE_HALF_WIDTH = 0.5, 0.3

_CRUSHED = 0.85

GENANT_PERCENT = (20.0, 25.0, 40.0)
GENANT_LEVELS = ("T4", "L4")


@dataclass(frozen=True)
class Heights:
    """Heights in mm along the frame's up axis in the midline; None where the zone holds too few points.

    `anterior_mm` and `posterior_mm` stand at the front and back walls, `middle_mm` halfway.
    """

    anterior_mm: float | None
    middle_mm: float | None
    posterior_mm: float | None


def heights_between(lower: Points, upper: Points, frame: Frame, half_width_mm: float, half_depth_mm: float) -> Heights:
    """Measure from `lower` (N, 3) to `upper` (M, 3), both RAS+ mm, in `frame`.

    Rims are rounded, so each height comes from planes fitted to both surfaces in a zone behind (before) the wall, which
    are followed to the wall.
    """
    low, high = frame.to_own(lower), frame.to_own(upper)

    def at(zone: tuple[float, float], half_width: float, place: float) -> float | None:
        heights = []
        for points in (low, high):
            share = 0.5 - points[:, 1] / (2 * half_depth_mm)
            chosen = (share >= zone[0]) & (share <= zone[1]) & (np.abs(points[:, 0]) <= half_width * half_width_mm)
            plane = robust_plane(points[chosen])
            if plane is None:
                return None
            heights.append(plane.at(0.0, half_depth_mm * (1 - 2 * place)))
        return heights[1] - heights[0]

    return Heights(
        at(_FRONT_ZONE, _EDGE_HALF_WIDTH, 0.0),
        at(_MIDDLE_ZONE, _MIDDLE_HALF_WIDTH, 0.5),
        at(_BACK_ZONE, _EDGE_HALF_WIDTH, 1.0),
    )


def height_loss_percent(heights: Heights, expected_mm: float | None) -> float | None:
    """Return by how much the lowest of the three heights falls short of what is expected there, in per cent, or 0.

    Expected is the posterior height (wedge and biconcave deformity), or `expected_mm`, the mean of both neighbours'
    posterior heights, where the posterior height is below 85 per cent of that (crush). None where a height is missing.
    """
    anterior, middle, posterior = heights.anterior_mm, heights.middle_mm, heights.posterior_mm
    if anterior is None or middle is None or posterior is None:
        return None
    crushed = expected_mm is not None and posterior < _CRUSHED * expected_mm
    reference = expected_mm if crushed and expected_mm is not None else posterior
    return max(0.0, 100 * (1 - min(anterior, middle, posterior) / reference))


def genant_grade(loss_percent: float) -> int:
    """Return 0 below 20 per cent, 1 from 20, 2 from 25, 3 from 40 per cent (Genant et al., J Bone Miner Res 1993)."""
    return sum(loss_percent >= limit for limit in GENANT_PERCENT)
