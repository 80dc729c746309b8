"""One instance per vertebra from class evidence alone, for networks without offsets: connected parts and size rules.

Rules, in order:
1. Parts far from the spine go: groups of bone (parts less than `BRIDGE_MM` apart form one group) that hold less than
   `MIN_GROUP_SHARE` of the largest group's volume.
2. Connected voxels of one class form a part. Parts of at least `MIN_SEED_ML` are seeds. Seeds of one class that lie
   more beside than above each other are one: a body and its arch, not two neighbours under one name.
3. Two seeds whose centroids are closer along the body axis than `MERGE_SHARE` of the usual distance, or than
   `MIN_STEP_MM`, are one vertebra; the clearest case is joined first.
4. Smaller parts within `REACH_MM` of a seed join it; each voxel goes to the seed nearest to it. Others are dropped.
"""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.stages.instances.bone import Bone, Ids

BRIDGE_MM = 15.0
MIN_GROUP_SHARE = 0.15
MIN_SEED_ML = 2.0
MIN_SPINE_ML = 4.0
MERGE_SHARE = 0.45
MIN_STEP_MM = 7.0
REACH_MM = 10.0


@dataclass(frozen=True)
class _Seed:
    """One or more parts that are one vertebra: their numbers, the class of the largest, size and centroid."""

    parts: tuple[int, ...]
    best: int
    voxels: int
    centre_mm: NDArray[np.float64]

    def joined(self, other: "_Seed") -> "_Seed":
        first, second = (self, other) if self.voxels >= other.voxels else (other, self)
        centre_mm = np.average([first.centre_mm, second.centre_mm], axis=0, weights=[first.voxels, second.voxels])
        return _Seed(first.parts + second.parts, first.best, first.voxels + second.voxels, centre_mm)


def owners_by_class(bone: Bone, spacing_mm: float) -> Ids:
    """Rules 1 to 4. Returns the vertebra number (from 1) of each voxel, 0 where there is none."""
    owner = np.zeros(bone.mask.shape, np.int32)
    if bone.mask.any():
        # Distances need not be known outside the box that holds all bone.
        box = ndimage.find_objects(bone.mask.view(np.uint8))[0]
        mask = _without_far_groups(bone.mask[box], spacing_mm)
        parts, seeds = _seeds(np.where(mask, bone.best[box], 0).astype(np.uint8), spacing_mm)
        if seeds:
            owner[box] = _assign(parts, _merge_close(_merge_beside(seeds)), spacing_mm)
    return owner


def whole_spine(bone: Bone, spacing_mm: float) -> Ids:
    """Rule 1 alone: 1 where there is spine, whatever the vertebra, and 0 elsewhere."""
    if not bone.mask.any():
        return np.zeros(bone.mask.shape, np.int32)
    return _without_far_groups(bone.mask, spacing_mm).astype(np.int32)


def _without_far_groups(mask: NDArray[np.bool_], spacing_mm: float) -> NDArray[np.bool_]:
    """Rule 1."""
    near = ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= BRIDGE_MM / 2
    groups = cc3d.connected_components(near, connectivity=26)
    ml = np.bincount(groups[mask], minlength=int(groups.max()) + 1) * spacing_mm**3 / 1000
    keep = (ml >= MIN_GROUP_SHARE * ml.max()) & (ml >= MIN_SPINE_ML)
    return np.asarray(mask & keep[groups])


def _seeds(best: NDArray[np.uint8], spacing_mm: float) -> tuple[Ids, list[_Seed]]:
    """Rule 2. Returns the parts (I, J, K), numbered from 1, and those large enough, the largest first."""
    parts = cc3d.connected_components(best, connectivity=6).astype(np.int32)
    voxels = np.bincount(parts.ravel())
    voxels[0] = 0
    large = [int(n) for n in np.argsort(-voxels) if voxels[n] * spacing_mm**3 / 1000 >= MIN_SEED_ML]
    centres_mm = np.array(ndimage.center_of_mass(parts, parts, large)) * spacing_mm
    classes = ndimage.maximum(best, parts, large)
    return parts, [_Seed((n,), int(c), int(voxels[n]), x) for n, c, x in zip(large, classes, centres_mm, strict=True)]


def _merge_beside(seeds: list[_Seed]) -> list[_Seed]:
    """Rule 3, its end. Takes and returns the largest first."""
    merged: list[_Seed] = []
    for seed in seeds:
        for index, larger in enumerate(merged):
            right, forward, up = np.abs(larger.centre_mm - seed.centre_mm)
            if larger.best == seed.best and np.hypot(right, forward) > up:
                merged[index] = larger.joined(seed)
                break
        else:
            merged.append(seed)
    return merged


def _merge_close(seeds: list[_Seed]) -> list[_Seed]:
    """Rule 4. Returns one seed per vertebra, from head to tail."""
    merged = sorted(seeds, key=lambda seed: -seed.centre_mm[2])
    while len(merged) > 1:
        steps = -np.diff([seed.centre_mm[2] for seed in merged])
        # The usual distance changes slowly along the spine: compare with the median of a few neighbours.
        usual = np.array([np.median(steps[max(0, n - 3) : n + 4]) for n in range(len(steps))])
        lack = np.maximum(MERGE_SHARE * usual, MIN_STEP_MM) - steps
        worst = int(np.argmax(lack))
        if lack[worst] <= 0:
            break
        merged[worst : worst + 2] = [merged[worst].joined(merged[worst + 1])]
    return merged


def _assign(parts: Ids, seeds: list[_Seed], spacing_mm: float) -> Ids:
    """Rule 5. Returns the vertebra number of each voxel of bone, 0 where it was dropped."""
    lut = np.zeros(int(parts.max()) + 1, np.int32)
    for number, seed in enumerate(seeds, start=1):
        lut[list(seed.parts)] = number
    owner = lut[parts]
    loose = (parts > 0) & (owner == 0)
    if loose.any():
        distance, nearest = ndimage.distance_transform_edt(owner == 0, sampling=spacing_mm, return_indices=True)
        closest = np.full(len(lut), np.inf)
        np.minimum.at(closest, parts[loose], distance[loose])
        joins = loose & (closest[parts] <= REACH_MM)
        owner[joins] = owner[tuple(index[joins] for index in nearest)]
    return owner
