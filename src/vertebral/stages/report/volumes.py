"""The volumes of a page: CT and labels cropped to the spine, in blocks of whole voxels, within a size limit."""

from math import prod

import numpy as np
from numpy.typing import NDArray

from vertebral.core.records import Box
from vertebral.core.volume import Grid, Volume
from vertebral.io.embedded import nifti_bytes

CT, LABELS = "ct.nii.gz", "labels.nii.gz"

MARGIN_MM = 35.0
# With the noise of a CT, so many voxels take 5 to 8 MB.
MAX_VOXELS = 11_000_000
_HU_PER_STEP, _LOWEST_HU = 7.0, -400.0


def page_volumes(ct: Volume | None, labels: Volume) -> dict[str, bytes]:
    """Return CT (in steps of 7 HU) and `labels` (VerSe ids) around the spine, on one grid small enough for a page.

    `ct` (HU) and `labels` are on one grid. The keys are CT and LABELS, the values gzipped NIfTI; empty without a CT.
    """
    if ct is None:
        return {}
    ct, labels = ct.to_ras(), labels.to_ras()
    box = around_spine(labels)
    factors = factors_for(labels.grid.cropped(box))
    scan, slope, intercept = as_bytes(averaged(ct.cropped(box), factors))
    painted = nifti_bytes(picked(labels.cropped(box), factors), are_labels=True)
    return {CT: nifti_bytes(scan, slope, intercept), LABELS: painted}


def around_spine(labels: Volume, margin_mm: float = MARGIN_MM) -> Box:
    """Return the box (slices along I, J, K) of all labels with a margin; the whole grid without labels."""
    box = []
    for axis in range(3):
        inside = np.flatnonzero(labels.array.any(axis=tuple(other for other in range(3) if other != axis)))
        size, margin = labels.array.shape[axis], int(np.ceil(margin_mm / labels.spacing_mm[axis]))
        first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (0, size - 1)
        box.append(slice(max(0, first - margin), min(size, last + margin + 1)))
    return box[0], box[1], box[2]


def factors_for(grid: Grid, max_voxels: int = MAX_VOXELS) -> tuple[int, int, int]:
    """Return how many voxels along I, J, K to join so that at most `max_voxels` remain: the finest axis first."""
    factors = [1, 1, 1]
    while prod(_blocks(grid.shape, factors)) > max_voxels:
        steps = [mm * factor for mm, factor in zip(grid.spacing_mm, factors, strict=True)]
        axis = min((n for n in range(3) if grid.shape[n] > factors[n]), key=lambda n: steps[n])
        factors[axis] += 1
    return factors[0], factors[1], factors[2]


def averaged(volume: Volume, factors: tuple[int, int, int]) -> Volume:
    """Join blocks of `factors` voxels to their mean (float32); incomplete blocks at the far ends are dropped."""
    if factors == (1, 1, 1):
        return Volume(volume.array.astype(np.float32), volume.affine)
    a, b, c = _blocks(volume.array.shape, factors)
    i, j, k = factors
    joined = np.empty((a, b, c), np.float32)
    for n in range(c):  # slab by slab: a long CT must not be in memory twice
        slab = volume.array[: a * i, : b * j, k * n : k * (n + 1)].reshape(a, i, b, j, k)
        joined[:, :, n] = slab.mean(axis=(1, 3, 4), dtype=np.float32)
    return Volume(joined, _coarse_affine(volume.grid, factors))


def picked(labels: Volume, factors: tuple[int, int, int]) -> Volume:
    """As `averaged`, for labels: each block becomes its middle voxel (the second of two)."""
    a, b, c = _blocks(labels.array.shape, factors)
    i, j, k = factors
    middles = labels.array[i // 2 : a * i : i, j // 2 : b * j : j, k // 2 : c * k : k]
    return Volume(np.ascontiguousarray(middles), _coarse_affine(labels.grid, factors))


def as_bytes(ct: Volume) -> tuple[Volume, float, float]:
    """Return HU as uint8 in steps of 7 HU, clipped to -400 ... 1385, with slope and intercept."""
    steps = np.rint((ct.array - np.float32(_LOWEST_HU)) / np.float32(_HU_PER_STEP))
    return Volume(np.clip(steps, 0, 255).astype(np.uint8), ct.affine), _HU_PER_STEP, _LOWEST_HU


def _blocks(shape: tuple[int, ...], factors: list[int] | tuple[int, int, int]) -> list[int]:
    return [size // factor for size, factor in zip(shape, factors, strict=True)]


def _coarse_affine(grid: Grid, factors: tuple[int, int, int]) -> NDArray[np.float64]:
    affine = grid.affine.copy()
    affine[:3, :3] *= np.array(factors)
    affine[:3, 3] = grid.to_world((np.array(factors) - 1) / 2)
    return affine
