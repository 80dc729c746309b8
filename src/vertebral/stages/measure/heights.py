"""Distances between two endplates at their front, middle and back: heights of bodies and of discs."""

from dataclasses import dataclass

import numpy as np

from vertebral.stages.measure.endplates import Cloud, profile_heights
from vertebral.stages.measure.frames import Frame
from vertebral.stages.measure.rules import MeasureRules

GENANT_LEVELS = ("T4", "L4")


@dataclass(frozen=True)
class Heights:
    """Heights in mm along the frame's up axis in the midline; None for too few points.

    `anterior_mm` and `posterior_mm` are measured at the front and back walls, `middle_mm` halfway.
    """

    anterior_mm: float | None
    middle_mm: float | None
    posterior_mm: float | None


def heights_between(
    lower: Cloud, upper: Cloud, frame: Frame, half_width_mm: float, half_depth_mm: float, rules: MeasureRules
) -> Heights:
    """Measure from `lower` to `upper`, both clouds in RAS+ mm, in `frame`.

    All three heights come from quadratic surfaces fitted to the middle of the width: in the midline, at the front and
    back walls, where rims are rounded, and halfway.
    """
    heights = []
    for cloud in (lower.seen_from(frame), upper.seen_from(frame)):
        middle = cloud.chosen(np.abs(cloud.points[:, 0]) <= rules.height_width_share * half_width_mm)
        profile = profile_heights(middle, (half_depth_mm, 0.0, -half_depth_mm), rules)
        if profile is None:
            return Heights(None, None, None)
        heights.append(profile)
    anterior, middle_mm, posterior = (heights[1] - heights[0]).tolist()
    return Heights(anterior, middle_mm, posterior)


def height_loss_percent(heights: Heights, expected_mm: float | None, rules: MeasureRules) -> float | None:
    """Return by how much the lowest of the three heights falls short of the expected one, in per cent, at least 0.

    Expected is the posterior height (wedge and biconcave deformity) or, if the vertebra is crushed as a whole,
    `expected_mm`, the mean of both neighbours' posterior heights. None if a height is missing.
    """
    anterior, middle, posterior = heights.anterior_mm, heights.middle_mm, heights.posterior_mm
    if anterior is None or middle is None or posterior is None:
        return None
    crushed = expected_mm is not None and posterior < rules.crushed_share * expected_mm
    reference = expected_mm if crushed and expected_mm is not None else posterior
    return max(0.0, 100 * (1 - min(anterior, middle, posterior) / reference))


def genant_grade(loss_percent: float, rules: MeasureRules) -> int:
    """Return 0 below 20 per cent, 1 from 20, 2 from 25, 3 from 40 per cent (Genant et al., J Bone Miner Res 1993)."""
    return sum(loss_percent >= limit for limit in rules.genant_percent)
