"""The walls of a vertebral body: where rays from its middle plane meet its sides, its front and its back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebral.stages.measure.boundary_voxels import stepped_cloud
from vertebral.stages.measure.crops import Crop, Occupancy, Vector
from vertebral.stages.measure.endplates import cloud_along_rays, first_exits, fitted_plane, profile_heights
from vertebral.stages.measure.frames import Frame, local_values

# Share of the half lengths beside which walls are not looked at: pedicles, rims, ribs.
_WALL_SHARE = 0.4


@dataclass(frozen=True)
class Sampled:
    """Occupancy around a frame's origin; `axes_mm` are the sample positions, `zero` the index of the origin."""

    values: Occupancy
    frame: Frame
    axes_mm: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    zero: tuple[int, int, int]
    step_mm: float


def sampled_around(crop: Crop, frame: Frame, reach_mm: tuple[float, float, float], step_mm: float) -> Sampled:
    """Sample a crop around a frame's origin, `reach_mm` to all sides, every `step_mm`."""
    counts = [int(np.ceil(reach / step_mm)) for reach in reach_mm]
    right, ahead, up = (np.arange(-n, n + 1, dtype=np.float64) * step_mm for n in counts)
    axes = (right, ahead, up)
    values = local_values(crop.occupancy, crop.grid, frame, axes)
    return Sampled(values, frame, axes, (counts[0], counts[1], counts[2]), step_mm)


def find_walls(
    crop: Crop, sampled: Sampled, half: tuple[float, float, float], winged: bool
) -> tuple[Vector, tuple[float, float, float], bool] | None:
    """Return the middle between opposite walls (right, ahead, 0), the half lengths, and whether side walls were met.

    A winged body stays in its midline, and its width is the narrow one among rays through its front half. None where
    the front or back wall is missing, or a side of a body without wings, or where opposite walls are one.
    """
    back, front = (_wall(crop, sampled, half, 1, towards) for towards in (-1, 1))
    if back is None or front is None or back + front < sampled.step_mm:
        return None
    shift, depth = np.array([0.0, (front - back) / 2, 0.0]), (front + back) / 2
    if winged:
        width = _narrow_width(sampled, shift[1], depth, half[2])
        return shift, (width or half[0], depth, half[2]), width is not None
    left, right_side = (_wall(crop, sampled, half, 0, towards) for towards in (-1, 1))
    if left is None or right_side is None or left + right_side < sampled.step_mm:
        return None
    shift[0] = (right_side - left) / 2
    return shift, ((right_side + left) / 2, depth, half[2]), True


def _narrow_width(sampled: Sampled, middle_mm: float, depth_mm: float, height_mm: float) -> float | None:
    """Return the lowest quarter of the half widths in the body's front half; None where most rays meet no wall."""
    _, ahead, up = sampled.axes_mm
    band = (ahead >= middle_mm) & (ahead <= middle_mm + 0.45 * depth_mm)
    level = np.abs(up) <= max(0.5 * height_mm, sampled.step_mm)
    exits = [first_exits(sampled.values, 0, sampled.zero[0], towards)[np.ix_(band, level)] for towards in (-1, 1)]
    known = np.sort(np.where(np.isfinite(exits), exits, np.inf).ravel())
    if len(known) == 0:
        return None
    found = float(known[len(known) // 4]) * sampled.step_mm
    return found if np.isfinite(found) else None


def _wall(crop: Crop, sampled: Sampled, half: tuple[float, float, float], axis: int, towards: int) -> float | None:
    """Return how far the wall before or beside (`axis` 1, 0) the origin is; None where over half of the rays miss it.

    A quadratic surface through the label's steps near the middle of the wall: walls are curved, and their middle is
    meant. Rays take the place of steps where there are few.
    """
    others = [n for n in range(3) if n != axis]
    across, up = (sampled.axes_mm[n] for n in others)
    inside = np.outer(*(np.abs(sampled.axes_mm[n]) <= _WALL_SHARE * half[n] for n in others))
    exits = first_exits(sampled.values, axis, sampled.zero[axis], towards) * sampled.step_mm * towards
    met = inside & np.isfinite(exits)
    if 2 * np.count_nonzero(met) < np.count_nonzero(inside):
        return None
    frame = Frame(sampled.frame.origin_mm, sampled.frame.axes[[*others, axis]])
    cloud = stepped_cloud(crop, frame, towards, exits, (across, up), inside)
    middle = profile_heights(cloud, (0.0,))
    if middle is None:
        return float(np.median(np.abs(exits[met])))
    return float(middle[0]) * towards


def back_wall(sampled: Sampled, half: tuple[float, float, float]) -> tuple[float, float]:
    """Fit a line to the posterior wall in the midline, over the middle four fifths of the height."""
    right, _, up = sampled.axes_mm
    exits = -first_exits(sampled.values, 1, sampled.zero[1], -1) * sampled.step_mm
    band, level = np.abs(right) <= 0.15 * half[0], np.abs(up) <= 0.8 * half[2]
    wall = exits[np.ix_(band, level)]
    i, k = np.nonzero(np.isfinite(wall))
    points = np.column_stack([right[band][i], up[level][k], wall[i, k]])
    plane = fitted_plane(cloud_along_rays(points, np.full((len(points), 2), sampled.step_mm / 2)))
    return (-half[1], 0.0) if plane is None else (plane.offset, plane.slope[1])
