"""One instance per vertebra from a label map of any tool: what is right stays as it is, voxel by voxel.

Rules, in order:
1. Connected voxels of one label form a part. The column of vertebral bodies is found without a look at labels
   (`column`), then cut into bodies where discs, usual heights and changes of label say so (`bodies`).
2. A part belongs whole to the body of which it holds most, if more than `LEAST_SHARE`; several parts that meet in one
   body are one vertebra, whatever their labels. A part that holds more than `CUT_FROM_SHARE` of a second body too is
   two vertebrae under one label, and is cut where the ways from the two bodies meet (fast through thick bone, slow
   through thin).
3. A part beside the column (an arch, a crumb) that touches another vertebra than that of its label on more than
   `WIDE_MM2`, and more widely than its own, belongs to that one if that one lacks, against the middle one of its
   neighbours, half or more of what the part holds: an arch under a neighbour's label. Crumbs, below `CRUMB_ML`, are
   left to their label.
4. Else it joins the nearest vertebra that mostly carries its label, or that holds `HOLDS_ML` of it. Without one it is
   a vertebra of its own (C1 has no body; the scan may cut a body away) if it holds `OWN_VERTEBRA_ML` and touches no
   other as widely as a piece that is broken off it would. Else it joins what it touches most, or what is within
   `REACH_MM`. What is left is dropped, with a warning.
5. Sacrum and coccyx have no discs: all parts of their label are one instance each.
6. A vertebra of more than `SWOLLEN` the middle volume around it, beside one of less than `SHRUNK`, is cut as in rule 2,
   and the neighbour gets its share back if that makes both more like the others.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import Level
from vertebral.core.errors import InputError
from vertebral.core.records import Box, Instance, Instances
from vertebral.core.volume import Grid, Volume
from vertebral.stages.instances.bodies import Body, find_bodies, profile_of
from vertebral.stages.instances.bone import Ids
from vertebral.stages.instances.column import find_column
from vertebral.stages.instances.fragments import give_loose_parts
from vertebral.stages.instances.oversized import relieve_swollen
from vertebral.stages.instances.parts import (
    CUT_FROM_SHARE,
    LEAST_SHARE,
    cut_parts,
    find_parts,
    markers_of,
    shares_of_bodies,
)


def instances_from_labels(labels: Volume, levels: tuple[Level, ...]) -> Instances:
    """Return the vertebrae (and sacrum) of a label map with VerSe ids, from head to tail; none is a valid answer.

    `labels` (I, J, K) whole numbers in any orientation and spacing; ids that are none of `levels` count as background.
    The instances lie on its grid in RAS order (`labels.to_ras()`), with an occupancy of 1 in their voxels and 0
    elsewhere; `class_mass` is in mm3 by claimed level, background (0 mm3) first.
    """
    if not levels:
        raise InputError("no levels were given: a label map needs at least one to tell bone from background")
    ras = labels.to_ras()
    classes = _classes(ras, levels)
    box = _box(classes)
    if box is None:
        return Instances((), levels, ras.grid)
    owner, dropped_ml = _owners(classes[box], ras.spacing_mm, levels)
    warnings = (f"{dropped_ml:.2f} ml of loose fragments far from any vertebra were dropped",) if dropped_ml else ()
    items = _instances(classes[box], owner, box, ras.grid, len(levels))
    return Instances(tuple(sorted(items, key=lambda item: -item.centroid_mm[2])), levels, ras.grid, warnings)


def _classes(ras: Volume, levels: tuple[Level, ...]) -> NDArray[np.uint8]:
    ids = [level.verse_id for level in levels]
    table = np.zeros(max(256, int(ras.array.max()) + 1), np.uint8)
    table[ids] = np.arange(1, len(ids) + 1)
    found: NDArray[np.uint8] = table[ras.array]
    return found


def _box(classes: NDArray[np.uint8]) -> Box | None:
    sides = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(classes.any(others))
        if len(filled) == 0:
            return None
        sides.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return sides[0], sides[1], sides[2]


def _owners(
    classes: NDArray[np.uint8], spacing_mm: tuple[float, float, float], levels: tuple[Level, ...]
) -> tuple[Ids, float]:
    """Rules 1 to 5. Returns the number (from 1) of each voxel of bone, 0 elsewhere, and the ml that were dropped."""
    parts = find_parts(classes, spacing_mm)
    has_body = np.array([False, *(level.is_vertebra and level.name != "C1" for level in levels)])
    has_body |= np.array([False, *(not (level.is_vertebra or level.region == "sacral") for level in levels)])
    column_classes = np.where(has_body[classes], classes, 0).astype(np.uint8)
    whose = np.zeros(len(parts.ml), np.int32)
    torn = np.zeros(len(parts.ml), bool)
    bodies: list[Body] = []
    if column_classes.any():
        column = find_column(column_classes > 0, spacing_mm)
        met = np.where(column.inside, column_classes[tuple(np.moveaxis(column.index, -1, 0))], 0)
        bodies = find_bodies(profile_of(met, column.inside, column.radius_mm, levels))
    if bodies:
        shares = shares_of_bodies(parts, column, bodies) * has_body[parts.best][:, None]
        whose = np.where(shares.max(1) > LEAST_SHARE, shares.argmax(1) + 1, 0).astype(np.int32)
        torn = (shares > CUT_FROM_SHARE).sum(1) > 1
    owner = whose[parts.ids]
    markers = markers_of(column, bodies, classes.shape) if bodies else np.zeros_like(owner)
    if torn.any():
        owner = np.where(torn[parts.ids], cut_parts(parts, torn, markers), owner)
    owner, dropped_ml = give_loose_parts(parts, owner, np.array([0, *(body.best for body in bodies)]), levels)
    return relieve_swollen(parts, owner, markers, len(bodies)), dropped_ml


def _instances(classes: NDArray[np.uint8], owner: Ids, box: Box, grid: Grid, count: int) -> list[Instance]:
    voxel_mm3 = float(np.prod(grid.spacing_mm))
    items = []
    for value, inner in enumerate(ndimage.find_objects(owner), start=1):
        if inner is None:
            continue
        own = owner[inner] == value
        outer = tuple(slice(b.start + s.start, b.start + s.stop) for b, s in zip(box, inner, strict=True))
        mass = np.bincount(classes[inner][own], minlength=count + 1).astype(np.float64) * voxel_mm3
        centre = np.array(ndimage.center_of_mass(own)) + [s.start for s in outer]
        x, y, z = grid.to_world(centre)
        touches = any(s.start == 0 or s.stop == n for s, n in zip(outer, grid.shape, strict=True))
        place = (float(x), float(y), float(z))
        items.append(Instance(own.astype(np.float32), (outer[0], outer[1], outer[2]), mass, place, touches))
    return items
