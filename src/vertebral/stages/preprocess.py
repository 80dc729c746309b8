"""From a CT to the network's input: axes R, A, S, isotropic, windowed and scaled. `restore` is the inverse.

The prepared grid has the input's own axes, permuted, flipped and rescaled, so resampling is separable: one matrix per
axis. For the image this matrix combines smoothing, cubic B-spline prefilter and sampling. It is banded, so only its
bands are multiplied, block by block, and the int16 input is never held as float32.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import InputError
from vertebral.core.records import Prepared
from vertebral.core.rules import rule
from vertebral.core.volume import Array, Grid, Volume

Matrix = NDArray[np.float64]
Band = tuple[slice, slice, NDArray[np.float32]]

# Full width at half maximum of a Gaussian over its standard deviation.
_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
# Two grids closer than this are one grid, and a sample this close to a voxel centre takes the voxel's value.
_SAME_POSITION_VOXELS = 1e-3
_NEGLIGIBLE_WEIGHT = 1e-6
_ROWS_PER_BAND = 32
_VALUES_PER_BLOCK = 2**21
# Guided networks are trained with it: about half the distance between cervical vertebrae.
MARK_SIGMA_MM = 8.0


@dataclass(frozen=True)
class PreprocessRules:
    """How the network's input is made, besides the `PreprocessConfig` that travels with its weights."""

    # Metal far above this range would make the spline swing below the window around an implant.
    ct_range_hu: tuple[float, float] = rule((-1024.0, 3071.0), "HU", "the range of a 12-bit CT")


def prepare(scan: Volume, config: PreprocessConfig, rules: PreprocessRules = PreprocessRules()) -> Prepared:
    """Turn a CT in HU, any orientation and spacing, into the network's input.

    Axes are permuted and flipped to R, A, S, never rotated. The result is on `scan.to_ras().grid.resampled(...)`: its
    first voxel centre is the input's. Values come from a cubic B-spline that interpolates the input's voxel centres. An
    axis that gets coarser is smoothed first (`smoothing_sigma_mm`); one whose spacing stays is left exact. Input
    outside `ct_range_hu`, or outside the config's window if that is wider, is clipped before resampling.

    Returns float32 (I, J, K), C-contiguous, in [0, 1] for the scaling `unit`. Raises InputError if a value is NaN.
    """
    ras = scan.to_ras()
    grid = ras.grid.resampled(config.spacing_mm)
    low, high = config.window_hu
    limits = (min(low, rules.ct_range_hu[0]), max(high, rules.ct_range_hu[1]))
    array = _resample_cubic(ras.array, ras.grid, grid, limits)
    np.clip(array, low, high, out=array)
    if np.isnan(array.min()):
        raise InputError("the scan contains values that are not numbers (NaN); replace them with the HU of air, -1024")
    offset, scale = (low, high - low) if config.scaling == "unit" else (config.mean_hu, config.std_hu)
    array -= np.float32(offset)
    array /= np.float32(scale)
    return Prepared(Volume(array, grid.affine), scan.grid, config)


def prepare_labels(labels: Volume, spacing_mm: float) -> Volume:
    """Resample a label map (any integer dtype, kept) to the grid of `prepare` at `spacing_mm`; nearest voxel."""
    ras = labels.to_ras()
    grid = ras.grid.resampled(spacing_mm)
    array = ras.array
    for axis in range(3):
        positions = _positions(ras.grid, grid, axis)
        array = array.take(np.floor(positions + 0.5).astype(np.intp), axis=axis)
    return Volume(np.ascontiguousarray(array), grid.affine)


def centre_mark(shape: tuple[int, int, int], spacing_mm: float, sigma_mm: float = MARK_SIGMA_MM) -> NDArray[np.float32]:
    """Return the input channel of a guided network that marks its vertebra: the one in the middle of the window.

    (I, J, K) float32: a Gaussian with a standard deviation of `sigma_mm`, 1 in the middle.
    """
    mark = np.ones(shape, np.float32)
    for axis, size in enumerate(shape):
        offset_mm = (np.arange(size) - (size - 1) / 2) * spacing_mm
        line = np.exp(-0.5 * (offset_mm / sigma_mm) ** 2).astype(np.float32)
        mark *= line.reshape([-1 if n == axis else 1 for n in range(3)])
    return mark


def smoothing_sigma_mm(old_mm: float, new_mm: float) -> float:
    """Return the standard deviation of the Gaussian that `prepare` applies along an axis before it gets coarser.

    The full width at half maximum of a voxel's point spread function is taken to be its spacing; the Gaussian turns the
    old one into the new one (Cardoso et al. 2015, "Scale factor point spread function matching"). 0 if not coarser.
    """
    return float(np.sqrt(max(0.0, new_mm**2 - old_mm**2)) / _FWHM_PER_SIGMA)


def _positions(old: Grid, new: Grid, axis: int) -> Matrix:
    """Return the voxel centres of `new` along `axis` in voxels of `old`, clipped to its first and last."""
    positions = np.arange(new.shape[axis]) * (new.spacing_mm[axis] / old.spacing_mm[axis])
    return np.clip(positions, 0, old.shape[axis] - 1)


def _resample_cubic(array: Array, old: Grid, new: Grid, limits: tuple[float, float]) -> NDArray[np.float32]:
    """Return `array` on `old`, clipped to `limits`, sampled on `new` (same axes): a new C-contiguous float32 array."""
    memory_order = sorted(range(3), key=lambda axis: -abs(array.strides[axis]))
    matrices = [_cubic_matrix(old, new, axis) for axis in memory_order]
    # The axis that shrinks most goes first, so that the later steps are small.
    todo = sorted(
        ((slot, matrix) for slot, matrix in enumerate(matrices) if matrix is not None),
        key=lambda item: item[1].shape[0] / item[1].shape[1],
    )
    if not todo:
        return np.array(array, np.float32, order="C")
    values = array.transpose(memory_order)
    for turn, (slot, matrix) in enumerate(todo):
        values = _apply_along(values, matrix, slot, limits if turn == 0 else None)
    return np.ascontiguousarray(values.transpose(np.argsort(memory_order)))


def _cubic_matrix(old: Grid, new: Grid, axis: int) -> Matrix | None:
    """Return smoothing, spline prefilter and sampling along `axis` as one (n_new, n_old) matrix; None if unchanged."""
    count = old.shape[axis]
    positions = _positions(old, new, axis)
    if len(positions) == count and np.abs(positions - np.arange(count)).max() < _SAME_POSITION_VOXELS:
        return None
    coefficients = np.eye(count)
    sigma_mm = smoothing_sigma_mm(old.spacing_mm[axis], new.spacing_mm[axis])
    if sigma_mm > 0:
        sigma_voxels = sigma_mm / old.spacing_mm[axis]
        coefficients = ndimage.gaussian_filter1d(coefficients, sigma_voxels, axis=0, mode="nearest")
    coefficients = ndimage.spline_filter1d(coefficients, order=3, axis=0, mode="mirror")
    matrix = _cubic_basis(positions, count) @ coefficients
    matrix[np.abs(matrix) < _NEGLIGIBLE_WEIGHT] = 0
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True), np.float64)


def _cubic_basis(positions: Matrix, count: int) -> Matrix:
    """Return weights (positions, count) of cubic B-spline coefficients, mirrored at the first and last voxel centre."""
    base = np.floor(positions).astype(np.intp)
    matrix = np.zeros((len(positions), count))
    period = max(1, 2 * (count - 1))
    for tap in (-1, 0, 1, 2):
        distance = np.abs(positions - (base + tap))
        weight = np.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, np.maximum(0, 2 - distance) ** 3 / 6)
        index = (base + tap) % period
        np.add.at(matrix, (np.arange(len(positions)), np.minimum(index, period - index) % count), weight)
    return matrix


def _bands(matrix: Matrix) -> list[Band]:
    """Cut a banded matrix into blocks of rows: (rows, columns where they are not zero, float32 weights)."""
    bands: list[Band] = []
    for start in range(0, len(matrix), _ROWS_PER_BAND):
        rows = slice(start, min(start + _ROWS_PER_BAND, len(matrix)))
        used = np.flatnonzero(matrix[rows].any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        bands.append((rows, columns, matrix[rows, columns].astype(np.float32)))
    return bands


def _apply_along(array: Array, matrix: Matrix, axis: int, limits: tuple[float, float] | None) -> NDArray[np.float32]:
    """Multiply `array` by a banded `matrix` along `axis` in float32, block by block; its values are clipped first.

    Blocks are cut along an axis other than `axis`, so that only one at a time is held as float32.
    """
    bands = _bands(matrix)
    shape = list(array.shape)
    shape[axis] = len(matrix)
    result = np.empty(shape, np.float32)
    # With `axis` last or second to last, each block is a stack of matrices for BLAS.
    source, target = (array.swapaxes(0, 1), result.swapaxes(0, 1)) if axis == 0 else (array, result)
    step = max(1, _VALUES_PER_BLOCK // (source.shape[1] * source.shape[2]))
    for start in range(0, len(source), step):
        block = np.array(source[start : start + step], np.float32, order="C")
        if limits is not None:
            np.clip(block, *limits, out=block)
        for rows, columns, weights in bands:
            if axis == 2:
                target[start : start + step, :, rows] = block[:, :, columns] @ weights.T
            else:
                target[start : start + step, rows] = weights @ block[:, columns]
    return result
