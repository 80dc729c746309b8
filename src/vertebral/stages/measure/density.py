"""HU of the trabecular core of a vertebral body, and what makes them doubtful: metal, cement, contrast medium."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.volume import Volume
from vertebral.stages.measure.body import Body
from vertebral.stages.measure.crops import Crop
from vertebral.stages.measure.frames import Frame

# The core, in shares of half width, half depth (backwards, forwards) and half height of the body, and how deep (mm).
_CORE_WIDTH, _CORE_BACK, _CORE_FRONT, _CORE_HEIGHT = 0.6, 0.3, 0.75, 0.55
SHELL_MM = 3.0
_STEP_MM = 0.75
_LEAST_CORE_ML = 0.15
METAL_HU = 2000.0
DENSE_HU = 500.0
CONTRAST_HU = (130.0, 450.0)
CONTRAST_ML = 2.0
_BEFORE_MM = (4.0, 40.0)
_BESIDE_MM = 30.0


@dataclass(frozen=True)
class Density:
    """Mean and standard deviation (HU) of a core of `core_ml`; `doubts` says what speaks against them."""

    mean_hu: float
    sd_hu: float
    core_ml: float
    doubts: tuple[str, ...]


def trabecular_density(ct: Volume, crop: Crop, body: Body) -> Density | str:
    """Return the density of the core, or the reason why there is none.

    The core is an elliptic box in the anterior two thirds of the body at mid-height, 3 mm and more below the label's
    surface, so that neither the cortical shell nor the basivertebral veins count. `ct` may lie on a grid of its own.
    """
    half = body.half_mm
    reach = (_CORE_WIDTH * half[0], max(_CORE_BACK, _CORE_FRONT) * half[1], _CORE_HEIGHT * half[2])
    own = _box([(-r, r) for r in reach])
    forward = np.where(own[:, 1] > 0, _CORE_FRONT * half[1], _CORE_BACK * half[1])
    in_core = (own[:, 0] / reach[0]) ** 2 + (own[:, 1] / forward) ** 2 <= 1
    points = body.frame.to_world(own[in_core])
    depth_mm = ndimage.distance_transform_edt(crop.occupancy >= 0.5, sampling=crop.grid.spacing_mm)
    deep = ndimage.map_coordinates(depth_mm, crop.grid.to_voxel(points).T, order=1) >= SHELL_MM
    core_ml = float(np.count_nonzero(deep)) * _STEP_MM**3 / 1000
    if core_ml < _LEAST_CORE_ML:
        return f"no core is left {SHELL_MM:g} mm below the surface"
    hu = _sampled(ct, points[deep])
    if not np.isfinite(hu).all():
        return "the core reaches beyond the CT"
    return Density(float(hu.mean()), float(hu.std()), core_ml, tuple(_doubts(ct, crop, body, hu)))


def _doubts(ct: Volume, crop: Crop, body: Body, core_hu: NDArray[np.float64]) -> list[str]:
    doubts = []
    inside = crop.grid.to_world(np.argwhere(crop.occupancy >= 0.5)[::2])
    if np.nanmax(_sampled(ct, inside)) >= METAL_HU:
        doubts.append(f"metal: {METAL_HU:g} HU and more within the vertebra")
    if core_hu.mean() >= DENSE_HU:
        doubts.append(f"over {DENSE_HU:g} HU: cement, sclerosis or not in HU")
    if contrast_ml(ct, body.frame, body.half_mm[1]) >= CONTRAST_ML:
        doubts.append("contrast medium in vessels before the vertebra raises HU")
    return doubts


def contrast_ml(ct: Volume, frame: Frame, half_depth_mm: float) -> float:
    """Return how many ml before the body lie, averaged over 4 mm, between 130 and 450 HU: enhanced vessels.

    Looked at is a slab 4 to 40 mm before the anterior wall and 30 mm to each side. Blood without contrast medium has
    30-60 HU; bone and metal are denser, and soft tissue is not.
    """
    start, stop = (half_depth_mm + mm for mm in _BEFORE_MM)
    step = 2.0
    axes = [np.arange(-_BESIDE_MM, _BESIDE_MM, step), np.arange(start, stop, step), np.arange(-4, 4.1, step)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    hu = _sampled(ct, frame.to_world(grid.reshape(-1, 3))).reshape(grid.shape[:3])
    smooth = ndimage.uniform_filter(np.nan_to_num(hu, nan=-1000.0), 3)
    spread = ndimage.maximum_filter(smooth, 3) - ndimage.minimum_filter(smooth, 3)
    even = (smooth >= CONTRAST_HU[0]) & (smooth <= CONTRAST_HU[1]) & (spread <= 150)
    return float(np.count_nonzero(even)) * step**3 / 1000


def _box(spans: list[tuple[float, float]]) -> NDArray[np.float64]:
    axes = [np.arange(low, high + 1e-6, _STEP_MM) for low, high in spans]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def _sampled(ct: Volume, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate HU linearly at (N, 3) RAS+ mm points; NaN outside."""
    voxels = ct.grid.to_voxel(points_mm)
    low = np.maximum(np.floor(voxels.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(voxels.max(axis=0)).astype(int) + 2, ct.grid.shape)
    if (low >= high).any():
        return np.full(len(points_mm), np.nan)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    part = np.asarray(ct.array[i, j, k], np.float64)
    hu = ndimage.map_coordinates(part, (voxels - low).T, order=1, mode="constant", cval=np.nan, prefilter=False)
    return np.asarray(hu, np.float64)
