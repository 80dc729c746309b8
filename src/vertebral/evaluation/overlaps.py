"""Overlaps, volumes, centroids and surface distances of all labels of two maps, in one pass."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vertebral.evaluation.metrics import SurfaceDistances, distances
from vertebral.evaluation.pair import LabelMapPair, Labels
from vertebral.evaluation.surfaces import SurfaceVoxels

_ALL = 256


@dataclass(frozen=True)
class OverlapCounts:
    """`voxels` (256, 256): the number of voxels by predicted id (row) and reference id (column); [0, 0] is 0.

    `ours_mm` and `theirs_mm` (256, 3) are the centroids of each id in RAS+ mm, NaN where it is absent.
    """

    voxels: NDArray[np.int64]
    ours_mm: NDArray[np.float64]
    theirs_mm: NDArray[np.float64]

    @cached_property
    def ours(self) -> NDArray[np.int64]:
        """Predicted voxels of each id (256,); for id 0, those that are labelled in the reference."""
        return np.asarray(self.voxels.sum(1))

    @cached_property
    def theirs(self) -> NDArray[np.int64]:
        """Reference voxels of each id (256,); for id 0, those that are labelled in the prediction."""
        return np.asarray(self.voxels.sum(0))


def count_overlaps(pair: LabelMapPair) -> OverlapCounts:
    """Count overlaps and sum positions plane by plane, so that memory does not grow with the volume."""
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
    return OverlapCounts(table, *centres)


def surface_distances(
    ours: SurfaceVoxels,
    theirs: SurfaceVoxels,
    codes: Labels,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, float, float],
) -> dict[int, SurfaceDistances]:
    """Measure each code above 0 that is in both maps; `codes` (256,) maps labels to codes."""
    found, truth = ours.surfaces(codes), theirs.surfaces(codes)
    return {code: distances(found[code], truth[code], shape, spacing_mm) for code in truth if code in found}
