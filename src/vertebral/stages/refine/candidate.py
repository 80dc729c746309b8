"""Candidates: the probability of one vertebra on a crop of the fine grid, and how candidates share voxels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cc3d
import numpy as np
from numpy.typing import NDArray

from vertebral.core.records import Box

# As in `instances`: the lowest value of an own voxel and the highest of any other, which differ in 8 bits.
OWN, _NOT_OWN = np.float32(128 / 255), np.float32(127 / 255)

Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Candidate:
    """Probability of one vertebra on `box` of the fine grid, zero outside the box."""

    values: Values
    box: Box

    @property
    def own(self) -> NDArray[np.bool_]:
        """(I, J, K) of the box: the voxels of the vertebra."""
        own: NDArray[np.bool_] = self.values >= OWN
        return own

    def centroid(self) -> NDArray[np.float64]:
        """Return the centroid (3,) of the vertebra's voxels, in voxels of the fine grid."""
        centre: NDArray[np.float64] = np.argwhere(self.own).mean(0) + [s.start for s in self.box]
        return centre


def without_islands(values: Values, min_share: float) -> Values:
    """Rule 5: set components of own voxels to zero that have less than `min_share` of the largest one."""
    components = cc3d.connected_components(values >= OWN, connectivity=6)
    voxels = np.bincount(components.ravel())
    voxels[0] = 0
    if len(voxels) <= 2:
        return values
    island = voxels < max(1, min_share * voxels.max())
    island[0] = False
    return np.where(island[components], np.float32(0), values)


def resolve_overlaps(candidates: list[Candidate], min_share: float) -> list[Candidate]:
    """Rule 6: where a neighbour's probability is higher, lower this one, so that at most one is at or above 0.5."""
    once = [_yielding(one, candidates[:n], candidates[n + 1 :]) for n, one in enumerate(candidates)]
    left = []
    for one, own in zip(candidates, once, strict=True):
        # What neighbours cut off from a vertebra becomes theirs.
        lost = (own.values >= OWN) & (without_islands(own.values, min_share) < OWN)
        left.append(replace(one, values=np.where(lost, np.float32(0), one.values)))
    final = [_yielding(one, left[:n], left[n + 1 :]) for n, one in enumerate(left)]
    return [replace(one, values=without_islands(one.values, min_share)) for one in final]


def _yielding(one: Candidate, before: list[Candidate], after: list[Candidate]) -> Candidate:
    """Lower the values of a candidate where others have a higher one; of equal values the first wins."""
    first, second = _highest(before, one.box), _highest(after, one.box)
    values = one.values
    own = (values >= OWN) & (values > first) & (values >= second)
    lead = np.minimum(values, np.float32(0.5) + (values - np.maximum(first, second)) / 2)
    return replace(one, values=np.where(own, np.maximum(lead, OWN), np.clip(lead, 0, _NOT_OWN)).astype(np.float32))


def _highest(candidates: list[Candidate], box: Box) -> Values:
    """Return the highest value of `candidates` at each voxel of `box`."""
    found = np.zeros([s.stop - s.start for s in box], np.float32)
    for one in candidates:
        shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one.box, box, strict=True)]
        if all(s.start < s.stop for s in shared):
            here = found[relative_box(shared, box)]
            np.maximum(here, one.values[relative_box(shared, one.box)], out=here)
    return found


def overlap_dice(one: Candidate, other: Candidate) -> float:
    """Return the Dice of the own voxels of two candidates; 1 if both have none."""
    first, second = one.own, other.own
    total = np.count_nonzero(first) + np.count_nonzero(second)
    shared = np.count_nonzero(first & (_highest([other], one.box) >= OWN))
    return 2 * shared / total if total else 1.0


def relative_box(inner: Sequence[slice], outer: Sequence[slice]) -> Box:
    """Return `inner` relative to the start of `outer`."""
    i, j, k = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    return i, j, k
