"""Connected components of one label each, the bodies on the column that they cover, and how to split them."""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from vertebral.stages.instances.bodies import BodySegment
from vertebral.stages.instances.bone import Ids
from vertebral.stages.instances.column import STEP_MM, Column
from vertebral.stages.instances.rules import LabelMapRules

# Components are split on a grid of at most so many voxels of bone.
_MAX_VOXELS = 120_000


@dataclass(frozen=True, eq=False)
class Components:
    """Connected voxels of one class: `ids` (I, J, K) from 1; for each id (0: none) its class, size and centroid."""

    ids: Ids
    best: NDArray[np.int_]
    ml: NDArray[np.float64]
    centre_mm: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]


def find_components(classes: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> Components:
    """Number the connected voxels of each class of `classes` (I, J, K), 0 being background."""
    ids = cc3d.connected_components(classes, connectivity=26).astype(np.int32)
    stats = cc3d.statistics(ids, no_slice_conversion=True)
    best = np.zeros(len(stats["voxel_counts"]), int)
    inside = np.flatnonzero(ids)
    best[ids.ravel()[inside]] = classes.ravel()[inside]
    ml = stats["voxel_counts"] * float(np.prod(spacing_mm)) / 1000
    ml[0] = 0
    centre_mm = np.nan_to_num(stats["centroids"]) * spacing_mm
    return Components(ids, best, ml.astype(np.float64), centre_mm.astype(np.float64), spacing_mm)


def body_shares(components: Components, column: Column, bodies: list[BodySegment]) -> NDArray[np.float64]:
    """Return (components, bodies): the share of each body's bone on the column that belongs to each component."""
    met = np.where(column.inside, components.ids[tuple(np.moveaxis(column.index, -1, 0))], 0)
    counts = np.zeros((len(components.ml), len(bodies)))
    for n, body in enumerate(bodies):
        counts[:, n] = np.bincount(met[body.start : body.stop].ravel(), minlength=len(components.ml))
    counts[0] = 0
    share: NDArray[np.float64] = counts / np.maximum(1, counts.sum(0))
    return share


def split_components(components: Components, split: NDArray[np.bool_], markers: Ids, rules: LabelMapRules) -> Ids:
    """Number the voxels of the components to `split` by the body from which they are reached first; 0 elsewhere.

    A front moves through bone from all bodies at once, faster where bone is thick (by the square of the depth below the
    surface), so it reaches posterior elements through their own pedicles before a neighbour's facets. `markers`
    (I, J, K) are the bodies, numbered from 1.
    """
    result = np.zeros(components.ids.shape, np.int32)
    margin = [int(np.ceil(rules.split_margin_mm / mm)) for mm in components.spacing_mm]
    inner = ndimage.find_objects(split[components.ids].view(np.uint8))[0]
    box = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(inner, margin, strict=True))
    ids = components.ids[box]
    step = _step(int(np.count_nonzero(ids)), components.spacing_mm)
    few = tuple(slice(None, None, n) for n in step)
    # Markers are few: those that a wider step leaves out move to the nearest voxel that it keeps.
    start = np.zeros(ids[few].shape, np.int32)
    marks = np.argwhere(markers[box])
    start[tuple((marks // step).T)] = markers[box][tuple(marks.T)]
    reached = _reached_first(ids[few] > 0, start, np.array(step * components.spacing_mm))
    inside = split[ids]
    at = np.argwhere(inside) // step
    result[box][inside] = reached[tuple(at.T)]
    return result


def _step(voxels: int, spacing_mm: tuple[float, float, float]) -> NDArray[np.int_]:
    """Return the stride along each axis that leaves few voxels, with spacings as equal as possible."""
    coarse_mm = 0.0
    step = np.ones(3, int)
    while voxels / step.prod() > _MAX_VOXELS:
        coarse_mm += min(spacing_mm) / 2
        step = np.maximum(1, np.rint(coarse_mm / np.array(spacing_mm)).astype(int))
    return step


def _reached_first(bone: NDArray[np.bool_], start: Ids, spacing_mm: NDArray[np.float64]) -> Ids:
    """Return the number in `start` (0: none) that reaches each voxel first; the nearest one if none reaches it."""
    depth_mm = ndimage.distance_transform_edt(bone, sampling=spacing_mm)
    node = np.full(bone.shape, -1, np.int64)
    node[bone] = np.arange(np.count_nonzero(bone))
    slowness = 1 / np.maximum(depth_mm[bone], spacing_mm.min() / 2) ** 2
    rows, columns, times = [], [], []
    for axis in range(3):
        ahead = tuple(slice(1, None) if n == axis else slice(None) for n in range(3))
        behind = tuple(slice(None, -1) if n == axis else slice(None) for n in range(3))
        pair = bone[ahead] & bone[behind]
        one, other = node[behind][pair], node[ahead][pair]
        rows.append(one)
        columns.append(other)
        times.append(spacing_mm[axis] * (slowness[one] + slowness[other]) / 2)
    count = len(slowness)
    ways = coo_array((np.concatenate(times), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count))
    known = start[bone]
    if not known.any():
        return np.zeros(bone.shape, np.int32)
    _, _, sources = dijkstra(
        ways.tocsr(), directed=False, indices=np.flatnonzero(known), min_only=True, return_predecessors=True
    )
    reached = np.zeros(bone.shape, np.int32)
    reached[bone] = np.where(sources >= 0, known[np.maximum(sources, 0)], 0)
    nearest = ndimage.distance_transform_edt(
        reached == 0, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    result: Ids = reached[tuple(nearest)]
    return result


def body_markers(column: Column, bodies: list[BodySegment], shape: tuple[int, ...], rules: LabelMapRules) -> Ids:
    """Return (I, J, K): the number, from 1, of the body that the column crosses, without its rims; 0 elsewhere."""
    markers = np.zeros(shape, np.int32)
    for n, body in enumerate(bodies, start=1):
        rim = min(round(rules.rim_mm / STEP_MM), (body.stop - body.start) // 4)
        middle = slice(body.start + rim, body.stop - rim)
        markers[tuple(column.index[middle][column.inside[middle]].T)] = n
    return markers
