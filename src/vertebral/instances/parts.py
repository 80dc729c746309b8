"""From parts of one label each, and the bodies that the column crosses, to one number per vertebra."""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.instances.bodies import Body
from vertebral.instances.bone import Ids
from vertebral.instances.column import STEP_MM, Column

# A part that holds more of a second body's bone than this is cut; less is the column's tilt against the disc.
CUT_FROM_SHARE = 0.25
WIDE_MM2 = 120.0
OWN_VERTEBRA_ML = 0.3
CRUMB_ML = 1.0
REACH_MM = 15.0
_FINE_VOXELS = 1_500_000


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


def cut_parts(
    parts: Parts, whose: NDArray[np.int_], torn: NDArray[np.bool_], column: Column, bodies: list[Body]
) -> Ids:
    """Number the voxels of the `torn` parts by the body that water from it reaches first; 0 elsewhere.

    Water rises from all bodies at once, through bone from thick to thin places: an arch is reached through its own
    pedicles before a neighbour's facets. Parts in `whose` (their body, from 1; 0 for none yet) are water already.
    """
    cut = np.zeros(parts.ids.shape, np.int32)
    box = ndimage.find_objects(torn[parts.ids].view(np.uint8))[0]
    margin = [int(np.ceil(20 / mm)) for mm in parts.spacing_mm]
    box = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margin, strict=True))
    ids = parts.ids[box]
    coarse = max(1, int(np.ceil((ids.size / _FINE_VOXELS) ** (1 / 3))))
    step = (
        tuple(max(1, round(coarse * min(parts.spacing_mm) / mm)) for mm in parts.spacing_mm) if coarse > 1 else (1,) * 3
    )
    few = ids[:: step[0], :: step[1], :: step[2]]
    depth_mm = ndimage.distance_transform_edt(few > 0, sampling=np.array(step) * parts.spacing_mm)
    markers = np.where(torn[few], 0, whose[few])
    for n, body in enumerate(bodies, start=1):
        middle = slice(body.start + (body.stop - body.start) // 5, body.stop - (body.stop - body.start) // 5)
        at = (column.index[middle][column.inside[middle]] - [s.start for s in box]) // step
        at = at[((at >= 0) & (at < few.shape)).all(1)]
        at = at[torn[few[tuple(at.T)]]]
        markers[tuple(at.T)] = n
    shallow = np.clip(250 - 20 * depth_mm, 0, 250).astype(np.uint8)
    shallow[few == 0] = 255
    markers[few == 0] = len(bodies) + 1
    flooded = ndimage.watershed_ift(shallow, markers.astype(np.int16), np.ones((3, 3, 3), int))
    flooded[few == 0] = 0
    flooded[flooded > len(bodies)] = 0
    nearest = ndimage.distance_transform_edt(
        flooded == 0, sampling=np.array(step) * parts.spacing_mm, return_distances=False, return_indices=True
    )
    flooded = flooded[tuple(nearest)]
    inside = torn[ids]
    at = np.argwhere(inside) // step
    cut[box][inside] = flooded[tuple(at.T)]
    return cut
