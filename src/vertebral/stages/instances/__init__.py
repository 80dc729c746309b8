"""From the network's evidence to one instance per vertebra, without a name yet.

A voxel is bone of the spine if its background probability is below 0.5. Its vertebra follows from the offsets if the
network has them (`by_votes`), otherwise from the classes (`by_class`). Instances whose evidence is mostly for the
sacrum are merged: it is long, and its voxels vote for more than one centre. A network with the single class "spine"
gives one instance.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import SPINE
from vertebral.core.records import Box, Evidence, Instance, Instances
from vertebral.stages.instances.bone import Ids, SpineBone, find_bone
from vertebral.stages.instances.by_class import owners_by_class, whole_spine
from vertebral.stages.instances.by_votes import owners_by_votes
from vertebral.stages.instances.rules import InstanceRules, LabelMapRules

__all__ = ["InstanceRules", "LabelMapRules", "class_masses", "find_instances"]

_MARGIN_VOXELS = 2


def find_instances(evidence: Evidence, rules: InstanceRules = InstanceRules()) -> Instances:
    """Return the vertebrae (and sacrum) in the evidence, from head to tail; none is a valid answer."""
    bone = find_bone(evidence)
    spacing_mm = evidence.grid.spacing_mm[0]
    if evidence.levels == (SPINE,):
        owner = whole_spine(bone, spacing_mm, rules)
    elif evidence.offset_mm is None:
        owner = owners_by_class(bone, spacing_mm, rules)
    else:
        owner = _with_one_sacrum(evidence, owners_by_votes(bone, evidence.offset_mm, spacing_mm, rules), rules)
    dropped_ml = np.count_nonzero(bone.mask & (owner == 0)) * spacing_mm**3 / 1000
    warnings = (f"{dropped_ml:.1f} ml of predicted bone far from the spine was left out",) if dropped_ml >= 1 else ()
    boxes = ndimage.find_objects(owner)
    masses = class_masses(evidence, owner, len(boxes))
    items = [
        _instance(evidence, bone, owner, value, box, masses[value])
        for value, box in enumerate(boxes, start=1)
        if box is not None
    ]
    items.sort(key=lambda item: -item.centroid_mm[2])
    return Instances(tuple(items), evidence.levels, evidence.grid, warnings)


def _with_one_sacrum(evidence: Evidence, owner: Ids, rules: InstanceRules) -> Ids:
    """Give all instances of one sacrum (or coccyx) the number of the first."""
    masses = class_masses(evidence, owner, int(owner.max()))[:, 1:]
    numbers = np.arange(len(masses))
    for column, level in enumerate(evidence.levels):
        if not level.is_vertebra:
            same = np.flatnonzero(masses[:, column] > rules.sacrum_evidence_share * masses.sum(1))
            numbers[same] = same[:1]
    return numbers[owner].astype(np.int32)


def class_masses(evidence: Evidence, owner: Ids, count: int) -> NDArray[np.float64]:
    """Return (count + 1, classes): the summed probability of each class over each number in `owner` (I, J, K)."""
    classes = len(evidence.levels) + 1
    inside = owner > 0
    row = owner[inside] * classes
    masses = np.zeros((count + 1) * classes)
    for best, probability in (
        (evidence.first, evidence.first_probability),
        (evidence.second, evidence.second_probability),
    ):
        masses += np.bincount(row + best[inside], probability[inside] / 255.0, minlength=len(masses))
    return masses.reshape(count + 1, classes)


def _instance(
    evidence: Evidence, bone: SpineBone, owner: Ids, value: int, box: Box, class_mass: NDArray[np.float64]
) -> Instance:
    """Crop one vertebra with a margin, and give it a soft occupancy.

    In its own voxels the occupancy is the spine's probability minus that of a neighbour's class; in a margin of
    `_MARGIN_VOXELS` around them it is the probability of its own class, or of the spine where there is no neighbour. It
    is 0.5 or more in its own voxels and nowhere else.
    """
    shape = owner.shape
    box = tuple(  # type: ignore[assignment]  # three slices in, three out
        slice(max(0, s.start - _MARGIN_VOXELS), min(n, s.stop + _MARGIN_VOXELS))
        for s, n in zip(box, shape, strict=True)
    )
    own = owner[box] == value
    other = (owner[box] > 0) & ~own
    first, second = evidence.first[box], evidence.second[box]
    main = int(np.argmax(class_mass[1:])) + 1
    claim = np.where(first == main, evidence.first_probability[box], 0)
    claim = np.where(second == main, evidence.second_probability[box], claim)
    contested = own & (first > 0) & (second > 0) & (first == main)
    spine = bone.spine_probability[box].astype(np.float32)
    occupancy = np.where(contested, spine - evidence.second_probability[box], spine)
    margin = ndimage.binary_dilation(own, ndimage.generate_binary_structure(3, 3), iterations=_MARGIN_VOXELS)
    occupancy = np.where(own, np.maximum(occupancy, 128), np.minimum(np.where(other, claim, occupancy), 127))
    occupancy = np.where(margin, occupancy, 0).astype(np.float32) / np.float32(255)
    touches = any(
        own.take(edge, axis).any()
        for axis, (s, n) in enumerate(zip(box, shape, strict=True))
        for edge, at_border in ((0, s.start == 0), (-1, s.stop == n))
        if at_border
    )
    centre = np.array(ndimage.center_of_mass(own)) + [s.start for s in box]
    x, y, z = evidence.grid.to_world(centre)
    return Instance(occupancy, box, class_mass, (float(x), float(y), float(z)), touches)
