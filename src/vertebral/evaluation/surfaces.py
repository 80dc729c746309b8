"""The surface voxels of all labels of a map at once, however far apart the parts of a label lie."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
_SLAB_VOXELS = 4_000_000


@dataclass(frozen=True)
class Edges:
    """The labelled voxels with a face neighbour of another value, where beyond the border of the array there is 0.

    `flat` (N,) are ascending flat indices (C order), `own` (N,) their values and `beside` (6, N) those of their
    neighbours.
    """

    flat: NDArray[np.int64]
    own: Labels
    beside: Labels

    def surfaces(self, codes: Labels) -> dict[int, NDArray[np.int64]]:
        """Flat indices of the surface of each code above 0, where `codes` (256,) says what each label counts as.

        Joining labels never makes a surface where there was no edge, so the map itself need not be looked at again.
        """
        own = codes[self.own]
        on = (own > 0) & (codes[self.beside] != own).any(axis=0)
        flat, values = self.flat[on], own[on]
        order = np.argsort(values, kind="stable")
        counts = np.bincount(values, minlength=1)
        parts = np.split(flat[order], np.cumsum(counts)[:-1])
        return {int(value): parts[value] for value in np.flatnonzero(counts)}


def find_edges(labels: Labels) -> Edges:
    """Find the edges of a map (I, J, K) slab by slab, so that memory stays small."""
    plane = labels[0].size
    step = max(1, _SLAB_VOXELS // plane)
    found = [
        np.flatnonzero(_differing(labels, start, min(start + step, len(labels)))) + start * plane
        for start in range(0, len(labels), step)
    ]
    flat = np.concatenate(found)
    values = labels.ravel()
    beside = np.zeros((6, len(flat)), np.uint8)
    places = np.unravel_index(flat, labels.shape)
    strides = (plane, labels.shape[2], 1)
    for axis, (place, stride, length) in enumerate(zip(places, strides, labels.shape, strict=True)):
        for n, (step, inside) in enumerate(((-stride, place > 0), (stride, place < length - 1))):
            beside[2 * axis + n, inside] = values[flat[inside] + step]
    return Edges(flat, values[flat], beside)


def surface_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flat indices of the surface of one mask (I, J, K); empty where it is."""
    return find_edges(mask.view(np.uint8)).surfaces(np.arange(256, dtype=np.uint8)).get(1, np.zeros(0, np.int64))


def _differing(labels: Labels, start: int, stop: int) -> NDArray[np.bool_]:
    """True for labelled voxels of planes `start` to `stop` that have a neighbour of another value."""
    inner = labels[start:stop]
    edge = np.zeros(inner.shape, bool)
    for side, neighbour in ((0, start - 1), (-1, stop)):
        edge[side] |= inner[side] != labels[neighbour] if 0 <= neighbour < len(labels) else inner[side] > 0
    for axis in range(3):
        low, high = (_along(axis, cut) for cut in (slice(None, -1), slice(1, None)))
        differs = inner[low] != inner[high]
        edge[low] |= differs
        edge[high] |= differs
    for axis in (1, 2):
        for end in (slice(0, 1), slice(-1, None)):
            edge[_along(axis, end)] = True
    edge &= inner > 0
    return edge


def _along(axis: int, cut: slice) -> tuple[slice, slice, slice]:
    parts = [slice(None)] * 3
    parts[axis] = cut
    return parts[0], parts[1], parts[2]
