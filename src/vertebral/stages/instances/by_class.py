"""One instance per vertebra from class evidence alone, for networks without offsets: components and size rules.

Rules, in order (thresholds: `InstanceRules`):
1. Bone far from the spine is dropped: groups (bone less than `bridge_mm` apart is one group) of less than
   `min_group_ml`, or less than `min_group_share` of the largest group's volume.
2. Connected voxels of one class form a component. Components of at least `min_seed_ml` are seeds. Two seeds of one
   class that are further apart horizontally than vertically are one: a body and its posterior elements, not two
   neighbours under one name.
3. Two seeds whose centroids are closer in z than `min_seed_step_share` of the usual step, or than `min_seed_step_mm`,
   are one vertebra; the closest are merged first.
4. Smaller components within `fragment_reach_mm` of a seed join it; each voxel goes to its nearest seed. Others are
   dropped.
"""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.stages.instances.bone import Ids, SpineBone
from vertebral.stages.instances.rules import InstanceRules


@dataclass(frozen=True, eq=False)
class _Seed:
    """One or more components that are one vertebra: their numbers, the class of the largest, size and centroid."""

    components: tuple[int, ...]
    best: int
    voxels: int
    centre_mm: NDArray[np.float64]

    def merged(self, other: "_Seed") -> "_Seed":
        first, second = (self, other) if self.voxels >= other.voxels else (other, self)
        centre_mm = np.average([first.centre_mm, second.centre_mm], axis=0, weights=[first.voxels, second.voxels])
        return _Seed(first.components + second.components, first.best, first.voxels + second.voxels, centre_mm)


def owners_by_class(bone: SpineBone, spacing_mm: float, rules: InstanceRules) -> Ids:
    """Rules 1 to 4. Returns the vertebra number (from 1) of each voxel, 0 for none."""
    owner = np.zeros(bone.mask.shape, np.int32)
    if bone.mask.any():
        # Distances are not needed outside the box around all bone.
        box = ndimage.find_objects(bone.mask.view(np.uint8))[0]
        mask = _without_far_groups(bone.mask[box], spacing_mm, rules)
        components, seeds = _seeds(np.where(mask, bone.best[box], 0).astype(np.uint8), spacing_mm, rules)
        if seeds:
            owner[box] = _assign(components, _merge_close(_merge_side_by_side(seeds), rules), spacing_mm, rules)
    return owner


def whole_spine(bone: SpineBone, spacing_mm: float, rules: InstanceRules) -> Ids:
    """Rule 1 alone: return 1 for the spine, whatever the vertebra, and 0 elsewhere."""
    if not bone.mask.any():
        return np.zeros(bone.mask.shape, np.int32)
    return _without_far_groups(bone.mask, spacing_mm, rules).astype(np.int32)


def _without_far_groups(mask: NDArray[np.bool_], spacing_mm: float, rules: InstanceRules) -> NDArray[np.bool_]:
    """Rule 1."""
    near = ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= rules.bridge_mm / 2
    groups = cc3d.connected_components(near, connectivity=26)
    ml = np.bincount(groups[mask], minlength=int(groups.max()) + 1) * spacing_mm**3 / 1000
    keep = (ml >= rules.min_group_share * ml.max()) & (ml >= rules.min_group_ml)
    return np.asarray(mask & keep[groups])


def _seeds(best: NDArray[np.uint8], spacing_mm: float, rules: InstanceRules) -> tuple[Ids, list[_Seed]]:
    """Rule 2. Returns the components (I, J, K), numbered from 1, and those large enough, the largest first."""
    components = cc3d.connected_components(best, connectivity=6).astype(np.int32)
    voxels = np.bincount(components.ravel())
    voxels[0] = 0
    large = [int(n) for n in np.argsort(-voxels) if voxels[n] * spacing_mm**3 / 1000 >= rules.min_seed_ml]
    centres_mm = np.array(ndimage.center_of_mass(components, components, large)) * spacing_mm
    classes = ndimage.maximum(best, components, large)
    return components, [
        _Seed((n,), int(c), int(voxels[n]), x) for n, c, x in zip(large, classes, centres_mm, strict=True)
    ]


def _merge_side_by_side(seeds: list[_Seed]) -> list[_Seed]:
    """Rule 2, last sentence. Takes and returns the largest first."""
    merged: list[_Seed] = []
    for seed in seeds:
        for index, larger in enumerate(merged):
            right, forward, up = np.abs(larger.centre_mm - seed.centre_mm)
            if larger.best == seed.best and np.hypot(right, forward) > up:
                merged[index] = larger.merged(seed)
                break
        else:
            merged.append(seed)
    return merged


def _merge_close(seeds: list[_Seed], rules: InstanceRules) -> list[_Seed]:
    """Rule 3. Returns one seed per vertebra, from head to tail."""
    reach = rules.steps_each_side
    merged = sorted(seeds, key=lambda seed: -seed.centre_mm[2])
    while len(merged) > 1:
        steps = -np.diff([seed.centre_mm[2] for seed in merged])
        # The usual step changes slowly along the spine: compare with the median of a few neighbours.
        usual = np.array([np.median(steps[max(0, n - reach) : n + reach + 1]) for n in range(len(steps))])
        lack = np.maximum(rules.min_seed_step_share * usual, rules.min_seed_step_mm) - steps
        worst = int(np.argmax(lack))
        if lack[worst] <= 0:
            break
        merged[worst : worst + 2] = [merged[worst].merged(merged[worst + 1])]
    return merged


def _assign(components: Ids, seeds: list[_Seed], spacing_mm: float, rules: InstanceRules) -> Ids:
    """Rule 4. Returns the vertebra number of each voxel of bone, 0 if it was dropped."""
    lut = np.zeros(int(components.max()) + 1, np.int32)
    for number, seed in enumerate(seeds, start=1):
        lut[list(seed.components)] = number
    owner = lut[components]
    fragments = (components > 0) & (owner == 0)
    if fragments.any():
        distance, nearest = ndimage.distance_transform_edt(owner == 0, sampling=spacing_mm, return_indices=True)
        closest = np.full(len(lut), np.inf)
        np.minimum.at(closest, components[fragments], distance[fragments])
        joins = fragments & (closest[components] <= rules.fragment_reach_mm)
        owner[joins] = owner[tuple(index[joins] for index in nearest)]
    return owner
