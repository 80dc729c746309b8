"""Overlap, volumes, centroids and surface distances of all labels of two maps, each counted once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vertebral.evaluation.metrics import SurfaceDistances, distances
from vertebral.evaluation.pair import Labels, Pair
from vertebral.evaluation.surfaces import Edges

_ALL = 256


@dataclass(frozen=True)
class Counts:
    """`voxels` (256, 256): how many voxels have which predicted (row) and which true id (column); [0, 0] is 0.

    `ours_mm` and `theirs_mm` (256, 3) are the centroids of each id in RAS+ mm, NaN where it is absent.
    """

    voxels: NDArray[np.int64]
    ours_mm: NDArray[np.float64]
    theirs_mm: NDArray[np.float64]

    @cached_property
    def ours(self) -> NDArray[np.int64]:
        """(256,): predicted voxels of each id; of 0 those that the reference labels."""
        return np.asarray(self.voxels.sum(1))

    @cached_property
    def theirs(self) -> NDArray[np.int64]:
        """(256,): voxels of each id of the reference; of 0 those that the prediction labels."""
        return np.asarray(self.voxels.sum(0))


def count(pair: Pair) -> Counts:
    """Count plane by plane, so that nothing grows with the volume."""
    voxels = np.zeros(_ALL * _ALL, np.int64)
    sums = np.zeros((2, 3, _ALL))
    for i, (ours, theirs) in enumerate(zip(pair.predicted, pair.reference, strict=True)):
        j, k = np.nonzero((ours > 0) | (theirs > 0))
        if not len(j):
            continue
        values = ours[j, k], theirs[j, k]
        voxels += np.bincount(values[0].astype(np.int64) * _ALL + values[1], minlength=_ALL * _ALL)
        for n, of in enumerate(values):
            for axis, place in enumerate((np.full(len(j), i), j, k)):
                sums[n, axis] += np.bincount(of, weights=place, minlength=_ALL)
    table = voxels.reshape(_ALL, _ALL)
    centres = []
    for n, sizes in enumerate((table.sum(1), table.sum(0))):
        middle = np.divide(sums[n].T, sizes[:, None], out=np.full((_ALL, 3), np.nan), where=sizes[:, None] > 0)
        centres.append(pair.grid.to_world(middle))
    return Counts(table, *centres)


def surface_distances(
    ours: Edges, theirs: Edges, codes: Labels, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> dict[int, SurfaceDistances]:
    """Distances of each code above 0 that is in both maps; `codes` (256,) says what each label counts as."""
    found, truth = ours.surfaces(codes), theirs.surfaces(codes)
    return {code: distances(found[code], truth[code], shape, spacing_mm) for code in truth if code in found}
