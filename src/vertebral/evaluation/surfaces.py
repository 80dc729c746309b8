"""The surface voxels of all labels of a map in one pass, however scattered a label is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
_SLAB_VOXELS = 4_000_000


@dataclass(frozen=True)
class SurfaceVoxels:
    """The labelled voxels with a face neighbour of another value; outside the array the value is 0.

    `flat` (N,) are ascending flat indices (C order), `own` (N,) their values and `neighbours` (6, N) the values of
    their face neighbours.
    """

    flat: NDArray[np.int64]
    own: Labels
    neighbours: Labels

    def surfaces(self, codes: Labels) -> dict[int, NDArray[np.int64]]:
        """Return the flat indices of the surface of each code above 0; `codes` (256,) maps labels to codes.

        Joining labels never creates a new surface voxel, so the map itself is not needed again.
        """
        own = codes[self.own]
        on = (own > 0) & (codes[self.neighbours] != own).any(axis=0)
        flat, values = self.flat[on], own[on]
        order = np.argsort(values, kind="stable")
        counts = np.bincount(values, minlength=1)
        split = np.split(flat[order], np.cumsum(counts)[:-1])
        return {int(value): split[value] for value in np.flatnonzero(counts)}


def find_surface_voxels(labels: Labels) -> SurfaceVoxels:
    """Find the surface voxels of a map (I, J, K) slab by slab, to limit memory."""
    plane = labels[0].size
    step = max(1, _SLAB_VOXELS // plane)
    found = [
        np.flatnonzero(_differing(labels, start, min(start + step, len(labels)))) + start * plane
        for start in range(0, len(labels), step)
    ]
    flat = np.concatenate(found)
    values = labels.ravel()
    neighbours = np.zeros((6, len(flat)), np.uint8)
    places = np.unravel_index(flat, labels.shape)
    strides = (plane, labels.shape[2], 1)
    for axis, (place, stride, length) in enumerate(zip(places, strides, labels.shape, strict=True)):
        for n, (step, inside) in enumerate(((-stride, place > 0), (stride, place < length - 1))):
            neighbours[2 * axis + n, inside] = values[flat[inside] + step]
    return SurfaceVoxels(flat, values[flat], neighbours)


def _differing(labels: Labels, start: int, stop: int) -> NDArray[np.bool_]:
    """Mark the labelled voxels of planes `start` to `stop` with a face neighbour of another value."""
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
    box = [slice(None)] * 3
    box[axis] = cut
    return box[0], box[1], box[2]
