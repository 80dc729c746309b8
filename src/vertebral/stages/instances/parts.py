"""From parts of one label each, and the bodies that the column crosses, to one number per vertebra."""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from vertebral.stages.instances.bodies import Body
from vertebral.stages.instances.bone import Ids
from vertebral.stages.instances.column import Column

# A part that holds more of a second body's bone than this is cut; less is the column's tilt against the disc.
CUT_FROM_SHARE = 0.25
# One that holds less of every body lies beside the column.
LEAST_SHARE = 0.03
WIDE_MM2 = 60.0
OWN_VERTEBRA_ML = 0.3
CRUMB_ML = 1.0
HOLDS_ML = 1.0
REACH_MM = 15.0
_MARGIN_MM = 20.0
_MOST_VOXELS = 120_000
_RIM_PLACES = 3


@dataclass(frozen=True)
class Parts:
    """Connected voxels of one class: `ids` (I, J, K) from 1; per id (0 is no part) its class, size and centroid."""

    ids: Ids
    best: NDArray[np.int_]
    ml: NDArray[np.float64]
    centre_mm: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]


def find_parts(classes: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> Parts:
    """Number the connected voxels of each class of `classes` (I, J, K), 0 being none."""
    ids = cc3d.connected_components(classes, connectivity=26).astype(np.int32)
    stats = cc3d.statistics(ids, no_slice_conversion=True)
    best = np.zeros(len(stats["voxel_counts"]), int)
    inside = np.flatnonzero(ids)
    best[ids.ravel()[inside]] = classes.ravel()[inside]
    ml = stats["voxel_counts"] * float(np.prod(spacing_mm)) / 1000
    ml[0] = 0
    centre_mm = np.nan_to_num(stats["centroids"]) * spacing_mm
    return Parts(ids, best, ml.astype(np.float64), centre_mm.astype(np.float64), spacing_mm)


def shares_of_bodies(parts: Parts, column: Column, bodies: list[Body]) -> NDArray[np.float64]:
    """(parts, bodies): of the bone of each body that the column crosses, the share that each part holds."""
    met = np.where(column.inside, parts.ids[tuple(np.moveaxis(column.index, -1, 0))], 0)
    counts = np.zeros((len(parts.ml), len(bodies)))
    for n, body in enumerate(bodies):
        counts[:, n] = np.bincount(met[body.start : body.stop].ravel(), minlength=len(parts.ml))
    counts[0] = 0
    share: NDArray[np.float64] = counts / np.maximum(1, counts.sum(0))
    return share


def cut_parts(parts: Parts, torn: NDArray[np.bool_], markers: Ids) -> Ids:
    """Number the voxels of the `torn` parts by the body from which they are reached first; 0 elsewhere.

    One walks through bone, fast where it is thick and slowly where it is thin (by the square of the depth below the
    surface): an arch is reached through its own pedicles before a neighbour's facets. `markers` (I, J, K) are the
    bodies, from 1, where all start at once.
    """
    cut = np.zeros(parts.ids.shape, np.int32)
    margin = [int(np.ceil(_MARGIN_MM / mm)) for mm in parts.spacing_mm]
    inner = ndimage.find_objects(torn[parts.ids].view(np.uint8))[0]
    box = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(inner, margin, strict=True))
    ids = parts.ids[box]
    step = _step(int(np.count_nonzero(ids)), parts.spacing_mm)
    few = tuple(slice(None, None, n) for n in step)
    # Marks are few: of those that a wider step leaves out, each moves to the nearest place that it keeps.
    start = np.zeros(ids[few].shape, np.int32)
    marks = np.argwhere(markers[box])
    start[tuple((marks // step).T)] = markers[box][tuple(marks.T)]
    reached = _reached_first(ids[few] > 0, start, np.array(step * parts.spacing_mm))
    inside = torn[ids]
    at = np.argwhere(inside) // step
    cut[box][inside] = reached[tuple(at.T)]
    return cut


def _step(voxels: int, spacing_mm: tuple[float, float, float]) -> NDArray[np.int_]:
    """Every how many voxels to look along each axis, so that few are left and they are as even as can be."""
    coarse_mm = 0.0
    step = np.ones(3, int)
    while voxels / step.prod() > _MOST_VOXELS:
        coarse_mm += min(spacing_mm) / 2
        step = np.maximum(1, np.rint(coarse_mm / np.array(spacing_mm)).astype(int))
    return step


def _reached_first(bone: NDArray[np.bool_], start: Ids, spacing_mm: NDArray[np.float64]) -> Ids:
    """The number in `start` (0 for none) from which each voxel is reached first; the nearest where there is no way."""
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


def markers_of(column: Column, bodies: list[Body], shape: tuple[int, ...]) -> Ids:
    """(I, J, K): the number, from 1, of the body that the column crosses there, its rims left out; 0 elsewhere."""
    markers = np.zeros(shape, np.int32)
    for n, body in enumerate(bodies, start=1):
        rim = min(_RIM_PLACES, (body.stop - body.start) // 4)
        middle = slice(body.start + rim, body.stop - rim)
        markers[tuple(column.index[middle][column.inside[middle]].T)] = n
    return markers
