"""Overlap and surface distance of two masks on one grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vertebral.evaluation.surfaces import surface_of

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class SurfaceDistances:
    """mm from each surface voxel of the prediction to the reference's surface (`there_mm`), and the other way round.

    A surface voxel is a voxel of the mask with a face neighbour outside it; the border of the array counts as outside.
    Distances run between voxel centres.
    """

    there_mm: NDArray[np.float64]
    back_mm: NDArray[np.float64]

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles (linear interpolation)."""
        return float(max(np.percentile(self.there_mm, 95), np.percentile(self.back_mm, 95)))

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over the surface voxels of both (Heimann et al. 2009)."""
        return float((self.there_mm.sum() + self.back_mm.sum()) / (len(self.there_mm) + len(self.back_mm)))

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: the share of both surfaces within `tolerance_mm` of the other (Nikolov et al. 2018).

        Surface voxels are counted; the original weighs surface elements by their area.
        """
        near = np.count_nonzero(self.there_mm <= tolerance_mm) + np.count_nonzero(self.back_mm <= tolerance_mm)
        return float(near / (len(self.there_mm) + len(self.back_mm)))


def dice(prediction: Mask, reference: Mask) -> float:
    """2 |A and B| / (|A| + |B|); NaN where both are empty (Dice 1945)."""
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else float("nan")


def hd95_mm(prediction: Mask, reference: Mask, spacing_mm: Spacing) -> float:
    """As `SurfaceDistances.hd95_mm`; infinite where one mask is empty, NaN where both are."""
    if not prediction.any() or not reference.any():
        return float("nan") if not prediction.any() and not reference.any() else float("inf")
    ours, theirs = (surface_of(np.ascontiguousarray(mask)) for mask in (prediction, reference))
    return distances(ours, theirs, prediction.shape, spacing_mm).hd95_mm


def distances(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], shape: tuple[int, ...], spacing_mm: Spacing
) -> SurfaceDistances:
    """Distances of two surfaces given as ascending flat indices (C order) into a grid of `shape`; neither is empty.

    What both share is at distance 0 and is not looked up; the rest goes through k-d trees of surface voxels.
    """
    points = [_points_mm(flat, shape, spacing_mm) for flat in (ours, theirs)]
    trees = [cKDTree(of, balanced_tree=False, compact_nodes=False) for of in points]
    result = []
    for n, (own, other) in enumerate(((ours, theirs), (theirs, ours))):
        place = np.minimum(np.searchsorted(other, own), len(other) - 1)
        apart = other[place] != own
        found = np.zeros(len(own))
        if apart.any():
            found[apart] = trees[1 - n].query(points[n][apart])[0]
        result.append(found)
    return SurfaceDistances(*result)


def _points_mm(flat: NDArray[np.int64], shape: tuple[int, ...], spacing_mm: Spacing) -> NDArray[np.float64]:
    points = np.stack(np.unravel_index(flat, shape), axis=1).astype(np.float64)
    points *= spacing_mm
    return points
