"""Surfaces of single masks, through the code that finds those of all labels at once."""

import numpy as np
from numpy.typing import NDArray

from vertebral.evaluation.metrics import distances
from vertebral.evaluation.surfaces import find_surface_voxels


def surface_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flat indices of the surface of one mask (I, J, K)."""
    found = find_surface_voxels(mask.view(np.uint8)).surfaces(np.arange(256, dtype=np.uint8))
    return found.get(1, np.zeros(0, np.int64))


def hd95_mm(one: NDArray[np.bool_], other: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    """HD95 of two masks; infinite if one is empty, NaN if both are."""
    if not one.any() or not other.any():
        return float("nan") if not one.any() and not other.any() else float("inf")
    surfaces = [surface_of(np.ascontiguousarray(mask)) for mask in (one, other)]
    return distances(surfaces[0], surfaces[1], one.shape, spacing_mm).hd95_mm
