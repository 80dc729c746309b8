"""From named vertebrae back to the input's own grid: the inverse of `preprocess.prepare`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vertebral.core.errors import GeometryError
from vertebral.core.records import Box, Instance, Segmentation, Spine
from vertebral.core.volume import Array, Grid, Volume


def restore(spine: Spine, source: Grid) -> Segmentation:
    """Return the label map of `spine` on the input's own grid `source` (any orientation, also oblique).

    Each soft occupancy is interpolated (trilinear, zero outside its box) in the box of `source` that it covers. A voxel
    belongs to the vertebra with the highest occupancy, if that is 0.5 or more. Memory holds one such box at a time, the
    highest occupancy around all of them (uint8) and the label map. Volumes count the voxels of that map.

    Raises GeometryError if the axes of `source` are not parallel to those of `spine.grid`.
    """
    labels = np.zeros(source.shape, np.uint8)
    axes, scales, offsets = _axis_mapping(spine.grid, source)
    boxes = [_source_box(vertebra.instance.box, source, axes, scales, offsets) for vertebra in spine.vertebrae]
    hull = _hull(boxes)
    best = np.zeros([side.stop - side.start for side in hull], np.uint8)
    for vertebra, box in zip(spine.vertebrae, boxes, strict=True):
        values = occupancy_on(vertebra.instance, spine.grid, source, box)
        # 0.5 becomes 127.5, which rounds (half to even) to 128.
        occupancy = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        highest = best[tuple(slice(b.start - h.start, b.stop - h.start) for b, h in zip(box, hull, strict=True))]
        wins = (occupancy >= 128) & (occupancy > highest)
        highest[wins] = occupancy[wins]
        labels[box][wins] = vertebra.level.verse_id
    voxel_ml = float(np.prod(source.spacing_mm)) / 1000
    volume_ml = {
        vertebra.level.name: float(np.count_nonzero(labels[box] == vertebra.level.verse_id)) * voxel_ml
        for vertebra, box in zip(spine.vertebrae, boxes, strict=True)
    }
    return Segmentation(Volume(labels, source.affine), volume_ml)


def occupancy_on(instance: Instance, grid: Grid, target: Grid, box: Box) -> NDArray[np.float32]:
    """Return the occupancy of `instance` on `box` of `target`: trilinear interpolation, zero outside its own box.

    `grid` is the instance's own; `box` may extend beyond `target`. Raises GeometryError if the axes of the two grids
    are not parallel.
    """
    axes, scales, offsets = _axis_mapping(grid, target)
    values: Array = instance.occupancy.transpose(axes)
    for s in range(3):
        weights = _linear_matrix(box[s], scales[s], offsets[s], instance.box[axes[s]])
        values = np.moveaxis(np.tensordot(weights, values, axes=(1, s)), 0, s)
    return np.ascontiguousarray(values, np.float32)


def box_on(instance: Instance, grid: Grid, target: Grid) -> Box:
    """Return the box of voxels of `target` at which `occupancy_on` may be above zero; empty if there are none."""
    return _source_box(instance.box, target, *_axis_mapping(grid, target))


def _axis_mapping(prepared: Grid, source: Grid) -> tuple[list[int], list[float], list[float]]:
    """Return for each axis of `source` the parallel axis of `prepared`, and scale and offset from its index to that.

    Raises GeometryError if the axes of the two grids are not parallel.
    """
    matrix = np.linalg.inv(prepared.affine) @ source.affine
    axes = [int(np.argmax(np.abs(matrix[:3, s]))) for s in range(3)]
    stray = matrix[:3, :3].copy()
    stray[axes, range(3)] = 0
    drift_voxels = float((np.abs(stray) * np.asarray(source.shape)).max())
    if sorted(axes) != [0, 1, 2] or drift_voxels > 0.05:
        raise GeometryError(
            f"the axes of the prepared grid ({prepared.axcodes}) and of the target grid ({source.axcodes}) are not "
            f"parallel ({drift_voxels:.2g} voxels apart); restore to the grid of the scan that was prepared"
        )
    return axes, [float(matrix[axes[s], s]) for s in range(3)], [float(matrix[axes[s], 3]) for s in range(3)]


def _source_box(box: Box, source: Grid, axes: list[int], scales: list[float], offsets: list[float]) -> Box:
    """Return the voxels of `source` less than one prepared voxel outside `box`; empty if there are none."""
    sides = []
    for s in range(3):
        inner = box[axes[s]]
        ends = sorted(((inner.start - 1 - offsets[s]) / scales[s], (inner.stop - offsets[s]) / scales[s]))
        start = int(np.clip(np.ceil(ends[0]), 0, source.shape[s]))
        sides.append(slice(start, int(np.clip(np.floor(ends[1]) + 1, start, source.shape[s]))))
    return sides[0], sides[1], sides[2]


def _hull(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around all boxes; empty if there are none."""
    sides = [
        slice(min((box[s].start for box in boxes), default=0), max((box[s].stop for box in boxes), default=0))
        for s in range(3)
    ]
    return sides[0], sides[1], sides[2]


def _linear_matrix(outer: slice, scale: float, offset: float, inner: slice) -> NDArray[np.float32]:
    """Return linear weights (source voxels `outer`, prepared voxels `inner`), zero a voxel or more outside `inner`."""
    positions = np.arange(outer.start, outer.stop) * scale + offset
    distance = np.abs(positions[:, None] - np.arange(inner.start, inner.stop))
    return np.asarray(np.maximum(0, 1 - distance), np.float32)
