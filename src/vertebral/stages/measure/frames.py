"""Frames of vertebrae: an origin and three axes (right, anterior, up) in the patient's RAS+ mm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.volume import Grid
from vertebral.stages.measure.crops import Crop, Occupancy, Vector
from vertebral.stages.measure.rules import MeasureRules

Points = NDArray[np.float64]

# Share of a vector below which its component across another is too short to give a direction.
_MIN_ACROSS = 0.2


@dataclass(frozen=True, eq=False)
class Frame:
    """`origin_mm` (3,) RAS+ mm and `axes` (3, 3), whose rows are the unit vectors to the right, forwards and up."""

    origin_mm: Vector
    axes: NDArray[np.float64]

    def to_own(self, points_mm: Points) -> Points:
        """Map (..., 3) RAS+ mm points to this frame's right, anterior, up (mm)."""
        return np.asarray((points_mm - self.origin_mm) @ self.axes.T)

    def to_world(self, points: Points) -> Points:
        """Map (..., 3) points of this frame to RAS+ mm."""
        return np.asarray(points @ self.axes + self.origin_mm)

    def moved(self, by: Points) -> "Frame":
        """Return the frame with its origin at `by` (3,), given in this frame."""
        return Frame(self.to_world(by), self.axes)


@dataclass(frozen=True, eq=False)
class CoarsePoints:
    """A vertebra as voxel centres of about 1.5 mm: `points_mm` (N, 3) RAS+ and `depth_mm` (N,) below its surface.

    `core_mm` (3,) is the mean of the points weighted by depth: it is in or near the body, where bone is thickest.
    """

    points_mm: Points
    depth_mm: NDArray[np.float64]
    core_mm: Vector


def frame_from(origin_mm: Vector, up: Vector, anterior: Vector) -> Frame:
    """Make a frame whose up axis is `up` and whose anterior axis is `anterior` less its component along `up`."""
    up = up / np.linalg.norm(up)
    anterior = anterior - up * (anterior @ up)
    anterior = anterior / np.linalg.norm(anterior)
    return Frame(origin_mm, np.stack([np.cross(anterior, up), anterior, up]))


def coarse_points(crop: Crop, rules: MeasureRules) -> CoarsePoints:
    """Sample a crop coarsely along its own axes and find how deep each inner point is below the surface."""
    step_mm = rules.coarse_spacing_mm
    spacing = np.asarray(crop.grid.spacing_mm)
    shape = [int(n) for n in np.ceil(np.array(crop.occupancy.shape) * spacing / step_mm)]
    values = ndimage.affine_transform(crop.occupancy, step_mm / spacing, output_shape=tuple(shape), order=1)
    inside = np.pad(values >= min(0.5, rules.faint_mask_share * float(values.max())), 1)
    depth = ndimage.distance_transform_edt(inside, sampling=step_mm)
    chosen = np.argwhere(inside)
    points = crop.grid.to_world((chosen - 1) * step_mm / spacing)
    depth = depth[inside]
    weight = np.maximum(depth - rules.core_min_depth_share * depth.max(), 0) ** 2
    return CoarsePoints(points, depth, weight @ points / weight.sum())


def rough_frames(vertebrae: Sequence[CoarsePoints], rules: MeasureRules) -> tuple[Frame, ...]:
    """Return a first frame at each vertebra's core: up along the row of cores, anterior from centroids to cores.

    `vertebrae` run from head to tail. All share one anterior direction (cores are anterior to the centroids of whole
    vertebrae); where there are too few of them, the patient's own anterior axis takes its place.
    """
    cores = np.array([v.core_mm for v in vertebrae])
    ups = _ups(cores)
    forward = np.array([0.0, 1.0, 0.0])
    if len(vertebrae) >= rules.min_vertebrae_for_direction:
        ahead = cores - np.array([v.points_mm.mean(axis=0) for v in vertebrae])
        ahead -= ups * (ahead * ups).sum(axis=1, keepdims=True)
        forward = np.median(ahead, axis=0)
    return tuple(frame_from(core, up, _clear_of(up, forward)) for core, up in zip(cores, ups, strict=True))


def _ups(cores: Points) -> Points:
    """Return unit tangents (N, 3) towards the head along the row of cores."""
    if len(cores) == 1:
        return np.array([[0.0, 0.0, 1.0]])
    steps = cores[:-1] - cores[1:]
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    ups = np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]])
    lengths = np.linalg.norm(ups, axis=1, keepdims=True)
    return np.where(lengths > 1e-6, ups / np.maximum(lengths, 1e-6), steps[:1])


def _clear_of(up: Vector, forward: Vector) -> Vector:
    """Return `forward`, or the patient's axis that is farthest from `up` if both are nearly parallel."""
    across = np.linalg.norm(forward - up * (forward @ up))
    if across > _MIN_ACROSS * np.linalg.norm(forward) and across > 0:
        return forward
    return np.asarray(np.eye(3)[int(np.argmin(np.abs(up)))], np.float64)


def local_values(occupancy: Occupancy, grid: Grid, frame: Frame, axes_mm: Sequence[NDArray[np.float64]]) -> Occupancy:
    """Interpolate linearly on the evenly spaced positions `axes_mm` (right, anterior, up) of `frame`; zero outside."""
    inverse = np.linalg.inv(grid.affine[:3, :3])
    steps = np.array([axis[1] - axis[0] for axis in axes_mm])
    matrix = inverse @ (frame.axes * steps[:, None]).T
    first = grid.to_voxel(frame.to_world(np.array([axis[0] for axis in axes_mm])))
    shape = tuple(len(axis) for axis in axes_mm)
    values = ndimage.affine_transform(
        occupancy, matrix, offset=first, output_shape=shape, order=1, mode="constant", prefilter=False
    )
    return np.asarray(values, np.float32)
