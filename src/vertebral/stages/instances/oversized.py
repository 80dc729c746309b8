"""Vertebrae that hold their neighbour's posterior elements: one is oversized and the other undersized."""

import numpy as np
from numpy.typing import NDArray

from vertebral.stages.instances.bone import Ids
from vertebral.stages.instances.components import Components, split_components
from vertebral.stages.instances.rules import LabelMapRules


def usual_volumes_ml(ml: NDArray[np.float64], rules: LabelMapRules) -> NDArray[np.float64]:
    """Return for each vertebra, from head to tail, the median volume of those around it, itself included."""
    reach = rules.neighbours_each_side
    return np.array([np.median(ml[max(0, n - reach) : n + reach + 1]) for n in range(len(ml))])


def relieve_oversized(components: Components, owner: Ids, markers: Ids, count: int, rules: LabelMapRules) -> Ids:
    """Rule 6 of `by_labels`. `owner` and `markers` (I, J, K) number the vertebrae and their bodies, 1 to `count`."""
    voxel_ml = float(np.prod(components.spacing_mm)) / 1000
    ml = np.bincount(owner.ravel(), minlength=count + 1)[1 : count + 1].astype(np.float64) * voxel_ml
    usual = usual_volumes_ml(ml, rules)
    for n in range(count):
        for m in (n - 1, n + 1):
            if (
                not 0 <= m < count
                or ml[n] <= rules.oversized_ratio * usual[n]
                or ml[m] >= rules.undersized_ratio * usual[m]
            ):
                continue
            moved = _voxels_of_neighbour(components, owner, markers, n + 1, m + 1, rules)
            moved_ml = np.count_nonzero(moved) * voxel_ml
            before = _deviation(ml[n], usual[n]) + _deviation(ml[m], usual[m])
            after = _deviation(ml[n] - moved_ml, usual[n]) + _deviation(ml[m] + moved_ml, usual[m])
            if moved_ml > rules.min_moved_share * usual[m] and after < before - rules.min_gain:
                owner = np.where(moved, m + 1, owner).astype(np.int32)
                ml[n] -= moved_ml
                ml[m] += moved_ml
    return owner


def _deviation(ml: float, usual: float) -> float:
    return float(abs(np.log(max(ml, 1e-3) / usual)))


def _voxels_of_neighbour(
    components: Components, owner: Ids, markers: Ids, holder: int, neighbour: int, rules: LabelMapRules
) -> NDArray[np.bool_]:
    """Return where the largest component of `holder` is reached from the body of `neighbour` before its own."""
    inside = np.bincount(components.ids[owner == holder], minlength=len(components.ml))
    largest = np.zeros(len(components.ml), bool)
    largest[int(inside.argmax())] = True
    two = np.where((markers == holder) | (markers == neighbour), markers, 0)
    return np.asarray((owner == holder) & (split_components(components, largest, two, rules) == neighbour))
