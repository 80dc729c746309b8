"""The disc space between two neighbours: its heights and angles, and the slip of one body against the other."""

from dataclasses import dataclass

import numpy as np

from vertebral.stages.measure.body import BodyGeometry
from vertebral.stages.measure.endplates import Endplate
from vertebral.stages.measure.frames import Frame, frame_from
from vertebral.stages.measure.heights import Heights, heights_between
from vertebral.stages.measure.rules import MeasureRules


@dataclass(frozen=True, eq=False)
class DiscSpace:
    """One disc space. Angles are those between the two endplates that face each other.

    `sagittal_deg` is positive if they open to the front, `coronal_deg` if they open to the right. `slip_mm` and
    `slip_right_mm` are how far the upper vertebra is in front of, and to the right of, the lower one; None above the
    sacrum, whose posterior wall is not measured.
    """

    frame: Frame
    heights: Heights
    sagittal_deg: float
    coronal_deg: float
    slip_mm: float | None
    slip_right_mm: float | None


def measure_disc_space(
    upper: BodyGeometry, lower_top: Endplate, lower: BodyGeometry | None, rules: MeasureRules
) -> DiscSpace | None:
    """Measure between `upper` and the endplate below it, which is that of the body `lower` or of the sacrum (None).

    The frame is halfway between the two endplates; up is the mean of their normals. None if `upper` has no inferior
    endplate.
    """
    roof = upper.inferior
    if roof is None:
        return None
    forward = upper.frame.axes[1] if lower is None else upper.frame.axes[1] + lower.frame.axes[1]
    frame = frame_from((roof.centre_mm + lower_top.centre_mm) / 2, roof.normal + lower_top.normal, forward)
    half = (
        upper.half_mm if lower is None else tuple(min(a, b) for a, b in zip(upper.half_mm, lower.half_mm, strict=True))
    )
    above, below = frame.axes @ roof.normal, frame.axes @ lower_top.normal
    slip, slip_right = (None, None) if lower is None else _slips(upper, lower, frame)
    return DiscSpace(
        frame,
        heights_between(lower_top.cloud, roof.cloud, frame, half[0], half[1], rules),
        float(np.degrees(np.arctan2(below[1], below[2]) - np.arctan2(above[1], above[2]))),
        float(np.degrees(np.arctan2(below[0], below[2]) - np.arctan2(above[0], above[2]))),
        slip,
        slip_right,
    )


def _slips(upper: BodyGeometry, lower: BodyGeometry, frame: Frame) -> tuple[float, float]:
    """Compare the upper body's lower posterior corner with the lower body's upper one, along the disc space's axes."""
    corners = []
    for body, plate, sign in ((upper, upper.inferior, -1.0), (lower, lower.superior, 1.0)):
        height = sign * body.half_mm[2]
        if plate is not None:
            normal = body.frame.axes @ plate.normal
            centre = body.frame.to_own(plate.centre_mm)
            # Where the posterior wall's line meets the endplate's plane in the midline.
            offset, slope = body.back_wall
            rise = -normal[1] / normal[2]
            height = (centre[2] + rise * (offset - centre[1])) / (1 - rise * slope)
        back = body.back_wall[0] + body.back_wall[1] * height
        corners.append(frame.to_own(body.frame.to_world(np.array([0.0, back, height]))))
    return float(corners[0][1] - corners[1][1]), float(corners[0][0] - corners[1][0])
