"""The walls of a vertebral body: where rays in its middle plane leave it at the sides, the front and the back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebral.stages.measure.boundary_voxels import boundary_cloud
from vertebral.stages.measure.crops import Crop, Occupancy, Vector
from vertebral.stages.measure.endplates import cloud_along_rays, first_exits, fitted_plane, profile_heights
from vertebral.stages.measure.frames import Frame, local_values
from vertebral.stages.measure.rules import MeasureRules


@dataclass(frozen=True, eq=False)
class SampledCrop:
    """Occupancy around a frame's origin; `axes_mm` are the sample positions, `zero` the index of the origin."""

    values: Occupancy
    frame: Frame
    axes_mm: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    zero: tuple[int, int, int]
    step_mm: float


def sampled_around(crop: Crop, frame: Frame, reach_mm: tuple[float, float, float], step_mm: float) -> SampledCrop:
    """Sample a crop around a frame's origin, up to `reach_mm` along each axis both ways, every `step_mm`."""
    counts = [int(np.ceil(reach / step_mm)) for reach in reach_mm]
    right, ahead, up = (np.arange(-n, n + 1, dtype=np.float64) * step_mm for n in counts)
    axes = (right, ahead, up)
    values = local_values(crop.occupancy, crop.grid, frame, axes)
    return SampledCrop(values, frame, axes, (counts[0], counts[1], counts[2]), step_mm)


def find_walls(
    crop: Crop, sampled: SampledCrop, half: tuple[float, float, float], processes_aside: bool, rules: MeasureRules
) -> tuple[Vector, tuple[float, float, float], bool] | None:
    """Return the middle between opposite walls (right, ahead, 0), the half sizes, and whether side walls were found.

    A body with processes at its sides (`processes_aside`) stays in its midline; its width is that of its waist, in the
    front half. None if the front or back wall is missing, or a side wall of another body, or if opposite walls touch.
    """
    back, front = (_wall(crop, sampled, half, 1, towards, rules) for towards in (-1, 1))
    if back is None or front is None or back + front < sampled.step_mm:
        return None
    shift, depth = np.array([0.0, (front - back) / 2, 0.0]), (front + back) / 2
    if processes_aside:
        width = _waist_half_width(sampled, shift[1], depth, half[2], rules)
        return shift, (width or half[0], depth, half[2]), width is not None
    left, right_side = (_wall(crop, sampled, half, 0, towards, rules) for towards in (-1, 1))
    if left is None or right_side is None or left + right_side < sampled.step_mm:
        return None
    shift[0] = (right_side - left) / 2
    return shift, ((right_side + left) / 2, depth, half[2]), True


def _waist_half_width(
    sampled: SampledCrop, middle_mm: float, half_depth_mm: float, half_height_mm: float, rules: MeasureRules
) -> float | None:
    """Return a low quantile of the half widths in the body's front half; None if too few rays meet a wall."""
    _, ahead, up = sampled.axes_mm
    band = (ahead >= middle_mm) & (ahead <= middle_mm + rules.front_band_share * half_depth_mm)
    slab = np.abs(up) <= max(rules.waist_height_share * half_height_mm, sampled.step_mm)
    exits = [first_exits(sampled.values, 0, sampled.zero[0], towards)[np.ix_(band, slab)] for towards in (-1, 1)]
    known = np.sort(np.where(np.isfinite(exits), exits, np.inf).ravel())
    if len(known) == 0:
        return None
    found = float(known[int(rules.waist_quantile * len(known))]) * sampled.step_mm
    return found if np.isfinite(found) else None


def _wall(
    crop: Crop, sampled: SampledCrop, half: tuple[float, float, float], axis: int, towards: int, rules: MeasureRules
) -> float | None:
    """Return the distance from the origin to the wall along `axis` (0 sideways, 1 ahead); None if most rays miss it.

    A quadratic surface is fitted to the boundary voxels near the middle of the wall and read in its middle, because
    walls are curved. If there are too few boundary voxels, it is the median of the rays.
    """
    others = [n for n in range(3) if n != axis]
    across, up = (sampled.axes_mm[n] for n in others)
    inside = np.outer(*(np.abs(sampled.axes_mm[n]) <= rules.wall_share * half[n] for n in others))
    exits = first_exits(sampled.values, axis, sampled.zero[axis], towards) * sampled.step_mm * towards
    met = inside & np.isfinite(exits)
    if np.count_nonzero(met) < rules.min_wall_hits * np.count_nonzero(inside):
        return None
    frame = Frame(sampled.frame.origin_mm, sampled.frame.axes[[*others, axis]])
    cloud = boundary_cloud(crop, frame, towards, exits, (across, up), inside, rules)
    middle = profile_heights(cloud, (0.0,), rules)
    if middle is None:
        return float(np.median(np.abs(exits[met])))
    return float(middle[0]) * towards


def back_wall(sampled: SampledCrop, half: tuple[float, float, float], rules: MeasureRules) -> tuple[float, float]:
    """Fit a line to the posterior wall in the midline; return its offset and slope, as in `BodyGeometry.back_wall`."""
    right, _, up = sampled.axes_mm
    exits = -first_exits(sampled.values, 1, sampled.zero[1], -1) * sampled.step_mm
    band = np.abs(right) <= rules.back_wall_width_share * half[0]
    slab = np.abs(up) <= rules.back_wall_height_share * half[2]
    wall = exits[np.ix_(band, slab)]
    i, k = np.nonzero(np.isfinite(wall))
    points = np.column_stack([right[band][i], up[slab][k], wall[i, k]])
    plane = fitted_plane(cloud_along_rays(points, np.full((len(points), 2), sampled.step_mm / 2)), rules)
    return (-half[1], 0.0) if plane is None else (plane.offset, plane.slope[1])
