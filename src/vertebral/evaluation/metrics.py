"""Overlap and surface distance of two masks on one grid."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]


def dice(prediction: Mask, reference: Mask) -> float:
    """2 |A and B| / (|A| + |B|); NaN where both are empty (Dice 1945)."""
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else float("nan")


def hd95_mm(prediction: Mask, reference: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """95th percentile of the symmetric surface distance, mm: the larger of the two directed 95th percentiles.

    A surface voxel is a voxel of the mask with a face neighbour outside it; the border of the array counts as outside.
    Infinite where one mask is empty, NaN where both are.
    """
    if not prediction.any() or not reference.any():
        return float("nan") if not prediction.any() and not reference.any() else float("inf")
    ours, theirs = _surface_mm(prediction, spacing_mm), _surface_mm(reference, spacing_mm)
    there = cKDTree(theirs).query(ours)[0]
    back = cKDTree(ours).query(theirs)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _surface_mm(mask: Mask, spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    extents = [np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    box = tuple(slice(int(e[0]), int(e[-1]) + 1) for e in extents)
    crop = np.pad(mask[box], 1)
    corner = np.array([s.start - 1 for s in box])
    surface = np.argwhere(crop & ~binary_erosion(crop)) + corner
    return np.asarray(surface * np.asarray(spacing_mm), np.float64)
