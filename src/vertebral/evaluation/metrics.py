"""Overlap and surface distance of two masks on one grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm from each surface voxel to the other surface.

    `there_mm`: from the prediction to the reference; `back_mm`: from the reference to the prediction. A surface voxel
    is a voxel of the mask with a face neighbour outside the mask; outside the array counts as outside the mask.
    Distances are between voxel centres.
    """

    there_mm: NDArray[np.float64]
    back_mm: NDArray[np.float64]

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles (linear interpolation)."""
        return float(max(np.percentile(self.there_mm, 95), np.percentile(self.back_mm, 95)))

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over all surface voxels of both (Heimann et al. 2009)."""
        return float((self.there_mm.sum() + self.back_mm.sum()) / (len(self.there_mm) + len(self.back_mm)))

    def share_within(self, tolerance_mm: float) -> float:
        """Return the share of the surface voxels of both masks within `tolerance_mm` of the other surface.

        It is not the normalised surface Dice of Nikolov et al. (2018), which weights surface elements by their area.
        """
        near = np.count_nonzero(self.there_mm <= tolerance_mm) + np.count_nonzero(self.back_mm <= tolerance_mm)
        return float(near / (len(self.there_mm) + len(self.back_mm)))


def dice(prediction: Mask, reference: Mask) -> float:
    """Return 2 |A and B| / (|A| + |B|) (Dice 1945); NaN if both masks are empty."""
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else float("nan")


def distances(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> SurfaceDistances:
    """Measure two non-empty surfaces, given as ascending flat indices (C order) into an array of `shape`.

    Voxels on both surfaces are at distance 0 and need no search; k-d trees of the surface voxels find the others.
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


def _points_mm(
    flat: NDArray[np.int64], shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    points = np.stack(np.unravel_index(flat, shape), axis=1).astype(np.float64)
    points *= spacing_mm
    return points
