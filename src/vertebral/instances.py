"""From class evidence to one instance per vertebra (first version: connected parts and size rules).

Rules, in order:
1. A voxel is bone of the spine where the background's probability is below one half; its class is its best level.
2. Parts far from the spine go: groups of bone (parts less than `BRIDGE_MM` apart form one group) that hold less than
   `MIN_GROUP_SHARE` of the largest group's volume.
3. Connected voxels of one class form a part. Parts of at least `MIN_SEED_ML` are seeds.
4. Two seeds whose centroids are closer along the body axis than `MERGE_SHARE` of the usual distance, or than
   `MIN_STEP_MM`, are one vertebra; the clearest case is joined first.
5. Smaller parts within `REACH_MM` of a seed join it; each voxel goes to the seed nearest to it. Others are dropped.
"""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.records import Box, Evidence, Instance, Instances

BRIDGE_MM = 15.0
MIN_GROUP_SHARE = 0.15
MIN_SEED_ML = 2.0
MIN_SPINE_ML = 4.0
MERGE_SHARE = 0.45
MIN_STEP_MM = 7.0
REACH_MM = 10.0
_MARGIN_VOXELS = 2

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class _Bone:
    """Rule 1: `mask` bool, `best` uint8 class (0 outside the mask), `spine_probability` uint8; all (I, J, K)."""

    mask: NDArray[np.bool_]
    best: NDArray[np.uint8]
    spine_probability: NDArray[np.uint8]


def find_instances(evidence: Evidence) -> Instances:
    """Return the vertebrae (and sacrum) that the evidence shows, from head to tail; none is a valid answer."""
    bone = _bone(evidence)
    spacing_mm = evidence.grid.spacing_mm[0]
    owner = _owners(bone, spacing_mm)
    dropped_ml = np.count_nonzero(bone.mask & (owner == 0)) * spacing_mm**3 / 1000
    warnings = (f"{dropped_ml:.1f} ml of evidence far from the spine was dropped",) if dropped_ml >= 1 else ()
    boxes = ndimage.find_objects(owner)
    masses = _class_masses(evidence, owner, len(boxes))
    items = [
        _instance(evidence, bone, owner, value, box, masses[value])
        for value, box in enumerate(boxes, start=1)
        if box is not None
    ]
    items.sort(key=lambda item: -item.centroid_mm[2])
    return Instances(tuple(items), evidence.levels, evidence.grid, warnings)


def _bone(evidence: Evidence) -> _Bone:
    background = np.where(
        evidence.first == 0,
        evidence.first_probability,
        np.where(evidence.second == 0, evidence.second_probability, 0),
    )
    spine = (255 - background).astype(np.uint8)
    mask = spine > 127
    best = np.where(evidence.first > 0, evidence.first, evidence.second)
    return _Bone(mask, np.where(mask, best, 0).astype(np.uint8), spine)


def _owners(bone: _Bone, spacing_mm: float) -> Ids:
    """Rules 2 to 5. Returns the vertebra number (from 1) of each voxel, 0 where there is none."""
    owner = np.zeros(bone.mask.shape, np.int32)
    if bone.mask.any():
        # Distances need not be known outside the box that holds all bone.
        box = ndimage.find_objects(bone.mask.view(np.uint8))[0]
        mask = _without_far_groups(bone.mask[box], spacing_mm)
        parts, seeds = _seeds(np.where(mask, bone.best[box], 0).astype(np.uint8), spacing_mm)
        if seeds:
            owner[box] = _assign(parts, _merge_close(parts, seeds, spacing_mm), spacing_mm)
    return owner


def _without_far_groups(mask: NDArray[np.bool_], spacing_mm: float) -> NDArray[np.bool_]:
    """Rule 2."""
    near = ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= BRIDGE_MM / 2
    groups = cc3d.connected_components(near, connectivity=26)
    ml = np.bincount(groups[mask], minlength=int(groups.max()) + 1) * spacing_mm**3 / 1000
    keep = (ml >= MIN_GROUP_SHARE * ml.max()) & (ml >= MIN_SPINE_ML)
    return np.asarray(mask & keep[groups])


def _seeds(best: NDArray[np.uint8], spacing_mm: float) -> tuple[Ids, list[int]]:
    """Rule 3. Returns the parts (I, J, K), numbered from 1, and the numbers of those large enough."""
    parts = cc3d.connected_components(best, connectivity=6).astype(np.int32)
    ml = np.bincount(parts.ravel()) * spacing_mm**3 / 1000
    return parts, [int(n) for n in np.flatnonzero(ml >= MIN_SEED_ML) if n > 0]


def _merge_close(parts: Ids, seeds: list[int], spacing_mm: float) -> dict[int, int]:
    """Rule 4. Returns the vertebra number (from 1) of each seed."""
    voxels = np.bincount(parts.ravel())
    heights = {n: c[2] * spacing_mm for n, c in zip(seeds, ndimage.center_of_mass(parts, parts, seeds), strict=True)}
    groups = [[n] for n in sorted(seeds, key=lambda n: -heights[n])]
    while len(groups) > 1:
        centres = [np.average([heights[n] for n in group], weights=voxels[group]) for group in groups]
        steps = -np.diff(centres)
        # The usual distance changes slowly along the spine: compare with the median of a few neighbours.
        usual = np.array([np.median(steps[max(0, n - 3) : n + 4]) for n in range(len(steps))])
        lack = np.maximum(MERGE_SHARE * usual, MIN_STEP_MM) - steps
        worst = int(np.argmax(lack))
        if lack[worst] <= 0:
            break
        groups[worst : worst + 2] = [groups[worst] + groups[worst + 1]]
    return {seed: number for number, group in enumerate(groups, start=1) for seed in group}


def _assign(parts: Ids, vertebra: dict[int, int], spacing_mm: float) -> Ids:
    """Rule 5. Returns the vertebra number of each voxel of bone, 0 where it was dropped."""
    lut = np.zeros(int(parts.max()) + 1, np.int32)
    lut[list(vertebra)] = list(vertebra.values())
    owner = lut[parts]
    loose = (parts > 0) & (owner == 0)
    if loose.any():
        distance, nearest = ndimage.distance_transform_edt(owner == 0, sampling=spacing_mm, return_indices=True)
        closest = np.full(len(lut), np.inf)
        np.minimum.at(closest, parts[loose], distance[loose])
        joins = loose & (closest[parts] <= REACH_MM)
        owner[joins] = owner[tuple(index[joins] for index in nearest)]
    return owner


def _class_masses(evidence: Evidence, owner: Ids, count: int) -> NDArray[np.float64]:
    """(count + 1, classes): summed probability of each class over each vertebra's voxels."""
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
    evidence: Evidence, bone: _Bone, owner: Ids, value: int, box: Box, class_mass: NDArray[np.float64]
) -> Instance:
    """Cut one vertebra out, with a margin, and give it a soft occupancy.

    Inside its own voxels the occupancy is the spine's probability less what a neighbour's class claims; in a margin
    of `_MARGIN_VOXELS` outside it is the probability of its own class, or of the spine where no neighbour is. It is
    0.5 or more in its own voxels and nowhere else.
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
    occupancy = np.where(margin, occupancy, 0).astype(np.float32) / 255
    touches = any(
        own.take(edge, axis).any()
        for axis, (s, n) in enumerate(zip(box, shape, strict=True))
        for edge, at_border in ((0, s.start == 0), (-1, s.stop == n))
        if at_border
    )
    centre = np.array(ndimage.center_of_mass(own)) + [s.start for s in box]
    x, y, z = evidence.grid.to_world(centre)
    return Instance(occupancy, box, class_mass, (float(x), float(y), float(z)), touches)
