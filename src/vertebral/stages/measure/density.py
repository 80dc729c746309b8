"""HU of the trabecular core of a vertebral body, with caveats: metal, cement, contrast medium."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.volume import Volume
from vertebral.stages.measure.body import BodyGeometry
from vertebral.stages.measure.crops import Crop
from vertebral.stages.measure.frames import Frame
from vertebral.stages.measure.rules import MeasureRules


@dataclass(frozen=True)
class Density:
    """Mean and standard deviation (HU) of a core of `core_ml`, with `caveats` that speak against them."""

    mean_hu: float
    sd_hu: float
    core_ml: float
    caveats: tuple[str, ...]


def trabecular_density(ct: Volume, crop: Crop, body: BodyGeometry, rules: MeasureRules) -> Density | str:
    """Return the density of the core, or the reason why there is none.

    The core is an elliptic box in the anterior two thirds of the body at mid-height, well below the label's surface, so
    that neither the cortical shell nor the basivertebral veins count. `ct` may be on a grid of its own.
    """
    half = body.half_mm
    front, back = rules.core_front_share * half[1], rules.core_back_share * half[1]
    reach = (rules.core_width_share * half[0], max(back, front), rules.core_height_share * half[2])
    own = _box([(-r, r) for r in reach], rules.core_sampling_mm)
    forward = np.where(own[:, 1] > 0, front, back)
    in_core = (own[:, 0] / reach[0]) ** 2 + (own[:, 1] / forward) ** 2 <= 1
    points = body.frame.to_world(own[in_core])
    depth_mm = ndimage.distance_transform_edt(crop.occupancy >= 0.5, sampling=crop.grid.spacing_mm)
    deep = ndimage.map_coordinates(depth_mm, crop.grid.to_voxel(points).T, order=1) >= rules.core_shell_mm
    core_ml = float(np.count_nonzero(deep)) * rules.core_sampling_mm**3 / 1000
    if core_ml < rules.min_core_ml:
        return f"no core remains {rules.core_shell_mm:g} mm below the surface"
    hu = _sampled(ct, points[deep])
    if not np.isfinite(hu).all():
        return "the core extends beyond the CT"
    return Density(float(hu.mean()), float(hu.std()), core_ml, _caveats(ct, crop, body, hu, rules))


def _caveats(
    ct: Volume, crop: Crop, body: BodyGeometry, core_hu: NDArray[np.float64], rules: MeasureRules
) -> tuple[str, ...]:
    caveats = []
    inside = crop.grid.to_world(np.argwhere(crop.occupancy >= 0.5)[::2])
    if np.nanmax(_sampled(ct, inside)) >= rules.metal_hu:
        caveats.append(f"metal: {rules.metal_hu:g} HU or more within the vertebra")
    if core_hu.mean() >= rules.dense_hu:
        caveats.append(f"a mean of {rules.dense_hu:g} HU or more: cement, sclerosis, or values that are not HU")
    if contrast_ml(ct, body.frame, body.half_mm[1], rules) >= rules.min_contrast_ml:
        caveats.append("contrast medium in the vessels in front of the vertebra raises HU")
    return tuple(caveats)


def contrast_ml(ct: Volume, frame: Frame, half_depth_mm: float, rules: MeasureRules) -> float:
    """Return the volume in front of the body, in ml, that looks like enhanced vessels: evenly within `contrast_hu`.

    It is read from a slab in front of the anterior wall, averaged over neighbouring samples. Blood without contrast
    medium has 30-60 HU; bone and metal are denser, and soft tissue is not.
    """
    window = rules.vessel_window
    start, stop = (half_depth_mm + mm for mm in rules.vessel_ahead_mm)
    step, aside, half_height = rules.vessel_sampling_mm, rules.vessel_aside_mm, rules.vessel_half_height_mm
    axes = [
        np.arange(-aside, aside, step),
        np.arange(start, stop, step),
        np.arange(-half_height, half_height + 0.1, step),
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    hu = _sampled(ct, frame.to_world(grid.reshape(-1, 3))).reshape(grid.shape[:3])
    smooth = ndimage.uniform_filter(np.nan_to_num(hu, nan=-1000.0), window)
    highest, lowest = ndimage.maximum_filter(smooth, window), ndimage.minimum_filter(smooth, window)
    low, high = rules.contrast_hu
    even = (smooth >= low) & (smooth <= high) & (highest - lowest <= rules.max_vessel_spread_hu)
    return float(np.count_nonzero(even)) * step**3 / 1000


def _box(spans: list[tuple[float, float]], step_mm: float) -> NDArray[np.float64]:
    axes = [np.arange(low, high + 1e-6, step_mm) for low, high in spans]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def _sampled(ct: Volume, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate HU linearly at (N, 3) RAS+ mm points; NaN outside."""
    voxels = ct.grid.to_voxel(points_mm)
    low = np.maximum(np.floor(voxels.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(voxels.max(axis=0)).astype(int) + 2, ct.grid.shape)
    if (low >= high).any():
        return np.full(len(points_mm), np.nan)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    near = np.asarray(ct.array[i, j, k], np.float64)
    hu = ndimage.map_coordinates(near, (voxels - low).T, order=1, mode="constant", cval=np.nan, prefilter=False)
    return np.asarray(hu, np.float64)
