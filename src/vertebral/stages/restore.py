"""Named vertebrae back onto the input's own grid: the inverse of `preprocess.prepare`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vertebral.core.errors import GeometryError
from vertebral.core.records import Box, Instance, Segmentation, Spine
from vertebral.core.volume import Array, Grid, Volume


def restore(spine: Spine, source: Grid) -> Segmentation:
    """Put named vertebrae back onto the input's own grid (any orientation, also oblique): the inverse of `prepare`.

    Each soft occupancy is interpolated (trilinear, zero outside its box) inside the part of `source` that its box
    covers. A voxel belongs to the vertebra of highest occupancy, if that is 0.5 or more. Only such parts are held in
    memory, besides the uint8 label map. Volumes count the voxels of that map.

    Raises GeometryError where the axes of `source` are not those of `spine.grid`.
    """
    labels = np.zeros(source.shape, np.uint8)
    axes, scales, offsets = _axis_mapping(spine.grid, source)
    boxes = [_source_box(vertebra.instance.box, source, axes, scales, offsets) for vertebra in spine.vertebrae]
    hull = _hull(boxes)
    best = np.zeros([part.stop - part.start for part in hull], np.uint8)
    for vertebra, box in zip(spine.vertebrae, boxes, strict=True):
        values = occupancy_on(vertebra.instance, spine.grid, source, box)
        # 0.5 becomes 127.5, which rounds (half to even) to 128.
        level = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        rival = best[tuple(slice(b.start - h.start, b.stop - h.start) for b, h in zip(box, hull, strict=True))]
        wins = (level >= 128) & (level > rival)
        rival[wins] = level[wins]
        labels[box][wins] = vertebra.level.verse_id
    voxel_ml = float(np.prod(source.spacing_mm)) / 1000
    volume_ml = {
        vertebra.level.name: float(np.count_nonzero(labels[box] == vertebra.level.verse_id)) * voxel_ml
        for vertebra, box in zip(spine.vertebrae, boxes, strict=True)
    }
    return Segmentation(Volume(labels, source.affine), volume_ml)


def occupancy_on(instance: Instance, grid: Grid, target: Grid, box: Box) -> NDArray[np.float32]:
    """The occupancy of `instance` of `grid`, interpolated (trilinear, zero outside its box) on `box` of `target`.

    `box` may reach beyond `target`. Raises GeometryError where the axes of the two grids are not parallel.
    """
    axes, scales, offsets = _axis_mapping(grid, target)
    values: Array = instance.occupancy.transpose(axes)
    for s in range(3):
        weights = _linear_matrix(box[s], scales[s], offsets[s], instance.box[axes[s]])
        values = np.moveaxis(np.tensordot(weights, values, axes=(1, s)), 0, s)
    return np.ascontiguousarray(values, np.float32)


def box_on(instance: Instance, grid: Grid, target: Grid) -> Box:
    """The voxels of `target` at which `occupancy_on` may be above zero; empty where there are none."""
    return _source_box(instance.box, target, *_axis_mapping(grid, target))


def _axis_mapping(prepared: Grid, source: Grid) -> tuple[list[int], list[float], list[float]]:
    """For each axis of `source`: the axis of `prepared` along it, and scale and offset from its index to that one's.

    Raises GeometryError where the axes of the two grids are not parallel.
    """
    matrix = np.linalg.inv(prepared.affine) @ source.affine
    axes = [int(np.argmax(np.abs(matrix[:3, s]))) for s in range(3)]
    stray = matrix[:3, :3].copy()
    stray[axes, range(3)] = 0
    drift_voxels = float((np.abs(stray) * np.asarray(source.shape)).max())
    if sorted(axes) != [0, 1, 2] or drift_voxels > 0.05:
        raise GeometryError(
            f"the prepared grid ({prepared.axcodes}) and the target grid ({source.axcodes}) drift {drift_voxels:.2g} "
            "voxels apart: restore onto the grid of the scan that was prepared"
        )
    return axes, [float(matrix[axes[s], s]) for s in range(3)], [float(matrix[axes[s], 3]) for s in range(3)]


def _source_box(box: Box, source: Grid, axes: list[int], scales: list[float], offsets: list[float]) -> Box:
    """The voxels of `source` that lie less than one prepared voxel outside `box`; empty where there are none."""
    parts = []
    for s in range(3):
        inner = box[axes[s]]
        ends = sorted(((inner.start - 1 - offsets[s]) / scales[s], (inner.stop - offsets[s]) / scales[s]))
        start = int(np.clip(np.ceil(ends[0]), 0, source.shape[s]))
        parts.append(slice(start, int(np.clip(np.floor(ends[1]) + 1, start, source.shape[s]))))
    return parts[0], parts[1], parts[2]


def _hull(boxes: Sequence[Box]) -> Box:
    """The smallest box around all; empty where there are none."""
    parts = [
        slice(min((box[s].start for box in boxes), default=0), max((box[s].stop for box in boxes), default=0))
        for s in range(3)
    ]
    return parts[0], parts[1], parts[2]


def _linear_matrix(part: slice, scale: float, offset: float, inner: slice) -> NDArray[np.float32]:
    """Linear weights (source voxels of `part`, prepared voxels of `inner`), zero one voxel and more outside `inner`."""
    positions = np.arange(part.start, part.stop) * scale + offset
    distance = np.abs(positions[:, None] - np.arange(inner.start, inner.stop))
    return np.asarray(np.maximum(0, 1 - distance), np.float32)
