"""A vertebra that holds its neighbour's arch: known by one being too large and the other too small."""

import numpy as np
from numpy.typing import NDArray

from vertebral.stages.instances.bone import Ids
from vertebral.stages.instances.parts import Parts, cut_parts

SWOLLEN, SHRUNK = 1.2, 0.8
LEAST_SHARE = 0.15
LEAST_GAIN = 0.2
_NEIGHBOURS = 3


def usual_ml(ml: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each vertebra, from head to tail, the middle volume of those around it, itself included."""
    return np.array([np.median(ml[max(0, n - _NEIGHBOURS) : n + _NEIGHBOURS + 1]) for n in range(len(ml))])


def relieve_swollen(parts: Parts, owner: Ids, markers: Ids, count: int) -> Ids:
    """Rule 6 of `by_labels`. `owner` and `markers` (I, J, K) number the vertebrae and their bodies, 1 to `count`."""
    voxel_ml = float(np.prod(parts.spacing_mm)) / 1000
    ml = np.bincount(owner.ravel(), minlength=count + 1)[1 : count + 1].astype(np.float64) * voxel_ml
    usual = usual_ml(ml)
    for n in range(count):
        for m in (n - 1, n + 1):
            if 0 <= m < count and ml[n] > SWOLLEN * usual[n] and ml[m] < SHRUNK * usual[m]:
                moved = _held_for(parts, owner, markers, n + 1, m + 1)
                moved_ml = np.count_nonzero(moved) * voxel_ml
                before = _unlike(ml[n], usual[n]) + _unlike(ml[m], usual[m])
                after = _unlike(ml[n] - moved_ml, usual[n]) + _unlike(ml[m] + moved_ml, usual[m])
                if moved_ml > LEAST_SHARE * usual[m] and after < before - LEAST_GAIN:
                    owner = np.where(moved, m + 1, owner).astype(np.int32)
                    ml[n] -= moved_ml
                    ml[m] += moved_ml
    return owner


def _unlike(ml: float, usual: float) -> float:
    return float(abs(np.log(max(ml, 1e-3) / usual)))


def _held_for(parts: Parts, owner: Ids, markers: Ids, holder: int, other: int) -> NDArray[np.bool_]:
    """Where the largest part of `holder` is reached from the body of `other` before its own."""
    inside = np.bincount(parts.ids[owner == holder], minlength=len(parts.ml))
    torn = np.zeros(len(parts.ml), bool)
    torn[int(inside.argmax())] = True
    two = np.where((markers == holder) | (markers == other), markers, 0)
    return np.asarray((owner == holder) & (cut_parts(parts, torn, two) == other))
