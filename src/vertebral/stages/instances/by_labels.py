"""One instance per vertebra from a label map of any tool: a correct map stays as it is, voxel by voxel.

Rules, in order (thresholds: `LabelMapRules`):
1. Connected voxels of one label form a component. The column of vertebral bodies is found without the labels
   (`column`), then divided into bodies by discs, usual heights and changes of label (`bodies`).
2. A component belongs as a whole to the body of which it holds most, if more than `min_body_share`; several components
   in one body are one vertebra, whatever their labels. A component that also holds more than `split_share` of a second
   body is two vertebrae under one label. It is split where fronts from the two bodies meet (fast through thick bone,
   slow through thin).
3. A fragment is a component off the column: posterior elements, an island. If its largest contact area is with a
   vertebra of another label, more than `wide_contact_mm2` and more than with its own, it belongs to that vertebra if
   that one is smaller than its neighbours by at least `min_lack_share` of the fragment: these are posterior elements
   under a neighbour's label. Islands, below `max_island_ml`, keep their label.
4. Otherwise it joins the nearest vertebra that mostly has its label, or that has `min_carried_ml` of it. Without one,
   it is a vertebra of its own (C1 has no body; the field of view may cut a body away) if it has `min_vertebra_ml` and
   no contact as wide as that of a broken-off piece. Otherwise it joins the vertebra with the largest contact area, or
   one within `fragment_reach_mm`. The rest is dropped with a warning.
5. Sacrum and coccyx have no discs: all components of their label are one instance each.
6. If a vertebra has more than `oversized_ratio` of the median volume around it and its neighbour less than
   `undersized_ratio`, it is split as in rule 2, and the neighbour gets its share if that makes both more usual.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import Level
from vertebral.core.errors import InputError
from vertebral.core.records import Box, Instance, Instances
from vertebral.core.volume import Grid, Volume
from vertebral.stages.instances.bodies import BodySegment, column_profile, find_bodies
from vertebral.stages.instances.bone import Ids
from vertebral.stages.instances.column import find_column
from vertebral.stages.instances.components import body_markers, body_shares, find_components, split_components
from vertebral.stages.instances.fragments import assign_fragments
from vertebral.stages.instances.oversized import relieve_oversized
from vertebral.stages.instances.rules import LabelMapRules


def instances_from_labels(
    labels: Volume, levels: tuple[Level, ...], rules: LabelMapRules = LabelMapRules()
) -> Instances:
    """Return the vertebrae (and sacrum) of a label map with VerSe ids, from head to tail; none is a valid answer.

    `labels` (I, J, K) are whole numbers in any orientation and spacing; ids that are not among `levels` are background.
    The instances are on its grid in RAS order (`labels.to_ras()`), with an occupancy of 1 in their voxels and 0
    elsewhere; `class_mass` is in mm3 by labelled level, background (0 mm3) first. Raises InputError without `levels`.
    """
    if not levels:
        raise InputError("no levels were given; a label map needs at least one to distinguish bone from background")
    ras = labels.to_ras()
    classes = _classes(ras, levels)
    box = _box(classes)
    if box is None:
        return Instances((), levels, ras.grid)
    owner, dropped_ml = _owners(classes[box], ras.spacing_mm, levels, rules)
    warnings = (f"{dropped_ml:.2f} ml in fragments far from any vertebra were left out",) if dropped_ml else ()
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
    classes: NDArray[np.uint8], spacing_mm: tuple[float, float, float], levels: tuple[Level, ...], rules: LabelMapRules
) -> tuple[Ids, float]:
    """Rules 1 to 6. Returns the number (from 1) of each voxel of bone, 0 elsewhere, and the ml that were dropped."""
    components = find_components(classes, spacing_mm)
    has_body = np.array([False, *(level.is_vertebra and level.name != "C1" for level in levels)])
    has_body |= np.array([False, *(not (level.is_vertebra or level.region == "sacral") for level in levels)])
    column_classes = np.where(has_body[classes], classes, 0).astype(np.uint8)
    body_of = np.zeros(len(components.ml), np.int32)
    split = np.zeros(len(components.ml), bool)
    bodies: list[BodySegment] = []
    if column_classes.any():
        column = find_column(column_classes > 0, spacing_mm, rules)
        met = np.where(column.inside, column_classes[tuple(np.moveaxis(column.index, -1, 0))], 0)
        bodies = find_bodies(column_profile(met, column.inside, column.radius_mm, levels, rules), rules)
    if bodies:
        shares = body_shares(components, column, bodies) * has_body[components.best][:, None]
        body_of = np.where(shares.max(1) > rules.min_body_share, shares.argmax(1) + 1, 0).astype(np.int32)
        split = (shares > rules.split_share).sum(1) > 1
    owner = body_of[components.ids]
    markers = body_markers(column, bodies, classes.shape, rules) if bodies else np.zeros_like(owner)
    if split.any():
        owner = np.where(split[components.ids], split_components(components, split, markers, rules), owner)
    best = np.array([0, *(body.best for body in bodies)])
    owner, dropped_ml = assign_fragments(components, owner, best, levels, rules)
    return relieve_oversized(components, owner, markers, len(bodies), rules), dropped_ml


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
        centroid_mm = (float(x), float(y), float(z))
        items.append(Instance(own.astype(np.float32), (outer[0], outer[1], outer[2]), mass, centroid_mm, touches))
    return items
