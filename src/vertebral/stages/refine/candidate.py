"""One vertebra's probability on a piece of the fine grid, and how such pieces share voxels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cc3d
import numpy as np
from numpy.typing import NDArray

from vertebral.core.records import Box

MIN_PART_SHARE = 0.05
# Answers that share this Dice or more are one vertebra.
SAME_DICE = 0.5
# As in `instances`: the lowest value of an own voxel and the highest of another's, which stay apart in 8 bits.
OWN, _NOT_OWN = np.float32(128 / 255), np.float32(127 / 255)

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """Probability of one vertebra on `box` of the fine grid, zero elsewhere."""

    values: Values
    box: Box

    @property
    def own(self) -> NDArray[np.bool_]:
        """(I, J, K) of the box: where the vertebra is."""
        own: NDArray[np.bool_] = self.values >= OWN
        return own

    def centroid(self) -> NDArray[np.float64]:
        """(3,): of the part's own voxels, in voxels of the fine grid."""
        centre: NDArray[np.float64] = np.argwhere(self.own).mean(0) + [s.start for s in self.box]
        return centre


def without_crumbs(values: Values) -> Values:
    """Rule 5: set to zero what is one half or more apart from the largest part."""
    pieces = cc3d.connected_components(values >= OWN, connectivity=6)
    voxels = np.bincount(pieces.ravel())
    voxels[0] = 0
    if len(voxels) <= 2:
        return values
    crumb = voxels < max(1, MIN_PART_SHARE * voxels.max())
    crumb[0] = False
    return np.where(crumb[pieces], np.float32(0), values)


def kept_apart(parts: list[Part]) -> list[Part]:
    """Rule 6. A voxel's value falls by half of what the rival's exceeds the rest, and never crosses one half twice."""
    once = [_contested(part, parts[:n], parts[n + 1 :]) for n, part in enumerate(parts)]
    left = []
    for part, own in zip(parts, once, strict=True):
        # What is cut off from a vertebra by its neighbours becomes theirs.
        lost = (own.values >= OWN) & (without_crumbs(own.values) < OWN)
        left.append(replace(part, values=np.where(lost, np.float32(0), part.values)))
    final = [_contested(part, left[:n], left[n + 1 :]) for n, part in enumerate(left)]
    return [replace(part, values=without_crumbs(part.values)) for part in final]


def _contested(part: Part, before: list[Part], after: list[Part]) -> Part:
    """Lower the values of `part` where rivals have a higher one; of equals the one before wins."""
    first, second = highest(before, part.box), highest(after, part.box)
    values = part.values
    own = (values >= OWN) & (values > first) & (values >= second)
    lead = np.minimum(values, np.float32(0.5) + (values - np.maximum(first, second)) / 2)
    return replace(part, values=np.where(own, np.maximum(lead, OWN), np.clip(lead, 0, _NOT_OWN)).astype(np.float32))


def highest(parts: list[Part], box: Box) -> Values:
    """The highest value of `parts` at each voxel of `box`."""
    found = np.zeros([s.stop - s.start for s in box], np.float32)
    for part in parts:
        shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(part.box, box, strict=True)]
        if all(s.start < s.stop for s in shared):
            here = found[within(shared, box)]
            np.maximum(here, part.values[within(shared, part.box)], out=here)
    return found


def dice(one: Part, other: Part) -> float:
    """Dice of what two parts own; 1 where both own nothing."""
    first, second = one.own, other.own
    total = np.count_nonzero(first) + np.count_nonzero(second)
    shared = np.count_nonzero(first & (highest([other], one.box) >= OWN))
    return 2 * shared / total if total else 1.0


def within(inner: Sequence[slice], outer: Sequence[slice]) -> Box:
    """`inner`, counted from the start of `outer`."""
    i, j, k = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    return i, j, k
