"""The boundary voxels of a label: what they say about a surface, without resampling."""

import numpy as np
from numpy.typing import NDArray

from vertebral.stages.measure.crops import Crop
from vertebral.stages.measure.endplates import Cloud
from vertebral.stages.measure.frames import Frame
from vertebral.stages.measure.rules import MeasureRules


def boundary_cloud(
    crop: Crop,
    frame: Frame,
    towards: int,
    exits_mm: NDArray[np.float64],
    axes_mm: tuple[NDArray[np.float64], ...],
    inside: NDArray[np.bool_],
    rules: MeasureRules,
) -> Cloud:
    """Return, in `frame`, the last voxel centres inside and the first outside along the grid axis nearest to up.

    `towards` is 1 for a surface above the bone, -1 for one below. `exits_mm` (R, A) are the heights at which rays left
    the bone at `axes_mm[0]` (R,) and `axes_mm[1]` (A,); only boundary voxels near these count, where `inside` (R, A) is
    True. Where a block holds several voxels of the map, its mean tells where within the block the boundary is.
    """
    rise = crop.grid.affine[:3, :3].T @ frame.axes[2]
    axis = int(np.argmax(np.abs(rise) / np.asarray(crop.grid.spacing_mm)))
    ahead = towards if rise[axis] > 0 else -towards
    values = crop.occupancy if ahead > 0 else np.flip(crop.occupancy, axis)
    own, beyond = (np.moveaxis(values, axis, 0)[layers] for layers in (slice(None, -1), slice(1, None)))
    index = np.argwhere((own >= 0.5) & (beyond < 0.5))
    filled = own[tuple(index.T)] + beyond[tuple(index.T)] - 0.5
    along = index[:, 0].astype(np.float64)
    half = 0.5 / crop.factors[axis]
    ends = []
    for place in (along + filled - half, along + filled + half):
        voxel = np.insert(index[:, 1:].astype(np.float64), axis, place, axis=1)
        if ahead < 0:
            voxel[:, axis] = values.shape[axis] - 1 - voxel[:, axis]
        ends.append(frame.to_own(crop.grid.to_world(voxel)))
    cloud = Cloud(*ends[::towards])
    near_mm = rules.boundary_within_voxels * crop.grid.spacing_mm[axis] + rules.boundary_within_mm
    return cloud.chosen(_near(cloud.points, exits_mm, axes_mm, inside, near_mm))


def _near(
    points: NDArray[np.float64],
    exits_mm: NDArray[np.float64],
    axes_mm: tuple[NDArray[np.float64], ...],
    inside: NDArray[np.bool_],
    near_mm: float,
) -> NDArray[np.bool_]:
    cell = [np.rint((points[:, n] - axes_mm[n][0]) / (axes_mm[n][1] - axes_mm[n][0])).astype(int) for n in range(2)]
    within = np.ones(len(points), bool)
    for n in range(2):
        within &= (cell[n] >= 0) & (cell[n] < len(axes_mm[n]))
    i, j = (np.where(within, c, 0) for c in cell)
    off = np.abs(points[:, 2] - np.nan_to_num(exits_mm[i, j], nan=np.inf))
    return within & inside[i, j] & (off <= near_mm)
