"""The column of vertebral bodies in a label map: a curve from head to tail, with a disc across it at each position.

The curve runs through the thickest bone, because vertebral bodies are thicker than posterior elements. It is the path
of greatest reward from the top plane of the bone to the bottom one, one point per plane. The reward is the squared
depth below the surface beyond `thin_bone_mm`, so that posterior elements earn nothing, and sideways steps cost
`sideways_cost_mm2`.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.stages.instances.rules import LabelMapRules

COARSE_MM = 2.5
STEP_MM = 1.0
_MAX_SIDEWAYS_VOXELS = 3
_DISC_POINTS = 7

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Column:
    """S positions along the curve, `STEP_MM` apart, from head to tail; at each a disc of P points across it.

    `index` (S, P, 3) are the voxel indices of the points, clipped to the grid; `inside` (S, P) is False for clipped
    ones. `middle_mm` (S, 3) is in mm along the grid's axes, `radius_mm` (S,) is the disc's radius.
    """

    index: NDArray[np.intp]
    inside: NDArray[np.bool_]
    middle_mm: Points
    radius_mm: NDArray[np.float64]


def find_column(bone: NDArray[np.bool_], spacing_mm: tuple[float, float, float], rules: LabelMapRules) -> Column:
    """Return the column through the thickest bone of `bone` (I, J, K), axes R, A, S."""
    stride = tuple(max(1, round(COARSE_MM / mm)) for mm in spacing_mm)
    coarse = bone[:: stride[0], :: stride[1], :: stride[2]]
    coarse_mm = np.array(stride) * spacing_mm
    depth_mm = ndimage.distance_transform_edt(np.pad(coarse, ((1, 1), (1, 1), (0, 0))), sampling=coarse_mm)
    depth_mm = depth_mm[1:-1, 1:-1].astype(np.float32)
    sideways = round(coarse_mm[2] / min(coarse_mm[:2]))  # up to 45 degrees
    reward = np.maximum(depth_mm - rules.thin_bone_mm, 0) ** 2
    path = _best_path(reward, min(max(1, sideways), _MAX_SIDEWAYS_VOXELS), rules)
    deep_mm = depth_mm[tuple(path.T)]
    return _discs(path * coarse_mm, deep_mm, bone.shape, np.array(spacing_mm), rules)


def _best_path(reward: NDArray[np.float32], wide: int, rules: LabelMapRules) -> NDArray[np.intp]:
    """Return (K, 3) indices from the top plane of `reward` (I, J, K) to the bottom one, by dynamic programming."""
    planes = reward.shape[2]
    steps = list(product(range(-wide, wide + 1), repeat=2))
    steps.sort(key=lambda step: step[0] ** 2 + step[1] ** 2)
    best = reward[:, :, -1].copy()
    came = np.zeros(reward.shape, np.uint8)
    for k in range(planes - 2, -1, -1):
        padded = np.pad(best, wide, constant_values=-np.inf)
        choices = np.stack(
            [
                padded[wide + i : wide + i + best.shape[0], wide + j : wide + j + best.shape[1]]
                - rules.sideways_cost_mm2 * (i * i + j * j)
                for i, j in steps
            ]
        )
        came[:, :, k] = choices.argmax(0)
        best = choices.max(0) + reward[:, :, k]
    i, j = (int(n) for n in np.unravel_index(best.argmax(), best.shape))
    path = []
    for k in range(planes):
        path.append((i, j, k))
        di, dj = steps[came[i, j, k]]
        i, j = i + di, j + dj
    return np.array(path[::-1], np.intp)


def _discs(
    path_mm: Points, deep_mm: NDArray[np.float32], shape: tuple[int, ...], spacing_mm: Points, rules: LabelMapRules
) -> Column:
    """Smooth the path, resample it in equal steps and place a disc across it at each."""
    plane_mm = abs(float(path_mm[0, 2] - path_mm[-1, 2])) / max(1, len(path_mm) - 1) or 1.0
    smooth = path_mm.copy()
    smooth[:, :2] = ndimage.gaussian_filter1d(path_mm[:, :2], rules.tangent_mm / 2 / plane_mm, axis=0, mode="nearest")
    reach = 2 * round(rules.radius_reach_mm / plane_mm) + 1
    thick_mm = ndimage.gaussian_filter1d(ndimage.maximum_filter1d(deep_mm.astype(np.float64), reach), reach / 4)
    lengths = np.linalg.norm(np.diff(smooth, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    at = np.arange(0.0, along[-1] + 1e-6, STEP_MM)
    middle_mm = np.stack([np.interp(at, along, smooth[:, axis]) for axis in range(3)], axis=1)
    radius_mm = np.clip(rules.radius_share * np.interp(at, along, thick_mm), rules.min_radius_mm, rules.max_radius_mm)
    tangent = np.gradient(middle_mm, axis=0) if len(at) > 1 else np.array([[0.0, 0.0, -1.0]])
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    right = np.cross(np.array([0.0, 1.0, 0.0]), tangent)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    forward = np.cross(tangent, right)
    ticks = np.linspace(-1, 1, _DISC_POINTS)
    unit = np.array([(u, v) for u, v in product(ticks, ticks) if u * u + v * v <= 1.01])
    across = unit[:, 0, None] * right[:, None] + unit[:, 1, None] * forward[:, None]
    index = np.rint((middle_mm[:, None] + radius_mm[:, None, None] * across) / spacing_mm).astype(np.intp)
    inside = ((index >= 0) & (index < shape)).all(-1)
    return Column(np.clip(index, 0, np.array(shape) - 1), inside, middle_mm, radius_mm)
