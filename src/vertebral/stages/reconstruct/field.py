"""From occupancies and label maps to a `Field`: one solid, sampled finely enough in all directions to be contoured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter

from vertebral.core.anatomy import BY_VERSE_ID, Level, sort_levels
from vertebral.core.errors import InputError, VertebralError
from vertebral.core.records import Box
from vertebral.core.volume import Grid, Volume
from vertebral.runtime.stage_timer import Progress, no_progress
from vertebral.stages.reconstruct.rules import RECONSTRUCT_RULES, ReconstructRules

ISO = 0.5

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Field:
    """One vertebra on its own `grid`: `values` (I, J, K) is 0.5 on the surface, higher inside, low at the border.

    `volume_mm3` is that of the source's voxels, `dropped_mm3` that of islands left out. `voxel_mm` are the source's
    spacings along the grid's axes, in which the surface's freedom to move is counted. `is_binary` is True if the source
    is a mask or nearly one.
    """

    level: Level
    values: Values
    grid: Grid
    volume_mm3: float
    dropped_mm3: float
    voxel_mm: tuple[float, float, float]
    is_binary: bool


def field_of(
    occupancy: NDArray[Any],
    box: Box,
    grid: Grid,
    level: Level,
    spacing_mm: float | None = None,
    rules: ReconstructRules = RECONSTRUCT_RULES,
) -> Field:
    """Return the field of `occupancy` (a mask, or 0-1 with 0.5 on the surface) on the crop `box` of `grid`.

    Islands and inner cavities are dropped. Masks with slices much thicker than their pixels, and coarse ones, are
    resampled by shape-based interpolation (Raya and Udupa 1990), with `spacing_mm` to that spacing. Raises
    VertebralError if nothing is inside, if nothing remains at the new spacing, or if values are not finite.
    """
    crop, inner = _padded_crop(occupancy, level)
    values = _largest_piece(crop, rules)
    i, j, k = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, inner, strict=True))
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(np.array([i.start, j.start, k.start]))
    own = Grid((crop.shape[0], crop.shape[1], crop.shape[2]), affine)
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    volume_mm3 = np.count_nonzero(values > ISO) * voxel_mm3
    dropped_mm3 = np.count_nonzero((crop >= ISO) & (values < ISO)) * voxel_mm3
    is_binary = _is_binary(values, rules)
    wanted = spacing_mm or _spacing_for(own.spacing_mm, rules)
    if wanted is not None:
        fine = own.resampled(wanted)
        values, own = _resampled(values, own, fine, is_binary, rules), fine
        if not (values >= ISO).any():
            raise VertebralError(
                f"{level.name}: nothing is left of it on a grid of {wanted:g} mm; leave out this level"
            )
        values = _largest_piece(values, rules)
    elif is_binary:
        values = _kept_sides(values, gaussian_filter(values, rules.mask_blur_voxels), rules)
    return Field(level, values, own, volume_mm3, dropped_mm3, grid.spacing_mm, is_binary)


def fields_of_labels(
    labels: Volume,
    levels: Sequence[Level] | None = None,
    spacing_mm: float | None = None,
    progress: Progress = no_progress,
    rules: ReconstructRules = RECONSTRUCT_RULES,
) -> list[Field]:
    """Return the fields of a label map with VerSe ids (I, J, K), from head to tail; `levels` None takes all of them.

    Raises InputError if it has none of the levels, or a value that is no VerSe id.
    """
    array = np.asfortranarray(labels.array)
    boxes = {n + 1: box[::-1] for n, box in enumerate(find_objects(array.T)) if box is not None}
    unknown = sorted(set(boxes) - set(BY_VERSE_ID))
    if unknown:
        raise InputError(
            f"label {unknown[0]} is not a VerSe id (C1-C7 1-7, T1-T12 8-19, L1-L6 20-25, sacrum 26, T13 28); "
            "convert the label map with vertebral relabel"
        )
    found = sort_levels(level for value, level in BY_VERSE_ID.items() if value in boxes)
    chosen = [level for level in found if levels is None or level in levels]
    if not chosen:
        has = ", ".join(level.name for level in found) or "no label at all"
        raise InputError(f"the label map has none of the requested levels; it has {has}")
    fields = []
    for n, level in enumerate(chosen):
        progress("sample", n / len(chosen))
        box = boxes[level.verse_id]
        fields.append(field_of(array[box] == level.verse_id, box, labels.grid, level, spacing_mm, rules))
    progress("sample", 1.0)
    return fields


def _spacing_for(spacing_mm: tuple[float, float, float], rules: ReconstructRules) -> float | None:
    """Return the spacing to resample to; None for a grid that is contoured as it is."""
    least, most = min(spacing_mm), max(spacing_mm)
    if most <= rules.max_anisotropy * least and least >= rules.min_native_mm and most <= rules.max_native_mm:
        return None
    lowest = max(rules.min_spacing_mm, min(least, rules.max_spacing_mm))
    return float(np.clip(most / rules.planes_per_slice, lowest, rules.max_spacing_mm))


def _padded_crop(occupancy: NDArray[Any], level: Level) -> tuple[Values, Box]:
    """Crop to the inside with a border of two voxels, zero where the array ends; also return the crop's box."""
    inside = occupancy >= ISO
    if not inside.any():
        peak = float(np.max(occupancy, initial=0))
        raise VertebralError(
            f"{level.name}: it has no voxels (highest probability {peak:.3f}, {ISO:g} is needed); leave out this level"
        )
    if not np.isfinite(occupancy).all():
        raise VertebralError(
            f"{level.name}: its probabilities contain NaN or infinite values; run `vertebral run` again"
        )
    spans = [np.flatnonzero(inside.any(axis=others))[[0, -1]] for others in ((1, 2), (0, 2), (0, 1))]
    i, j, k = (slice(max(int(low) - 1, 0), int(high) + 2) for low, high in spans)
    crop = np.pad(occupancy[i, j, k].astype(np.float32), 1)
    i, j, k = (slice(s.start - 1, s.start - 1 + n) for s, n in zip((i, j, k), crop.shape, strict=True))
    return crop, (i, j, k)


def _largest_piece(values: Values, rules: ReconstructRules) -> Values:
    """Keep the largest face-connected piece, fill its cavities and keep values away from 0.5."""
    inside = values >= ISO
    pieces = cc3d.connected_components(inside, connectivity=6)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    hollows = cc3d.connected_components(pieces != largest, connectivity=6)
    solid = hollows != hollows[0, 0, 0]
    filled = np.where(solid & ~inside, np.float32(1), np.where(inside & ~solid, np.float32(0), values))
    return _kept_sides(solid, filled, rules)


def _kept_sides(solid: NDArray[Any], values: Values, rules: ReconstructRules) -> Values:
    """Keep `values` above 0.5 inside `solid` and below it outside."""
    margin = rules.contour_margin
    return np.where(solid > ISO, np.maximum(values, ISO + margin), np.minimum(values, ISO - margin))


def _is_binary(values: Values, rules: ReconstructRules) -> bool:
    """Tell whether most of the steps through the surface are those of a mask."""
    crossing = binary = 0
    for axis in range(3):
        low, high = np.moveaxis(values, axis, 0)[:-1], np.moveaxis(values, axis, 0)[1:]
        jump = np.abs(high - low)[(high > ISO) != (low > ISO)]
        crossing += jump.size
        binary += int(np.count_nonzero(jump > rules.binary_step))
    return binary > rules.binary_share * crossing


def _resampled(values: Values, own: Grid, fine: Grid, is_binary: bool, rules: ReconstructRules) -> Values:
    """Return `values` on `fine`, an isotropic grid over the same axes; a mask by its signed distance."""
    if is_binary:
        values = _signed_distance(values > ISO, own.spacing_mm, fine.spacing_mm[0], rules)
    for axis in range(3):
        at = np.minimum(np.arange(fine.shape[axis]) * fine.spacing_mm[axis] / own.spacing_mm[axis], own.shape[axis] - 1)
        low = np.minimum(at.astype(np.int64), max(own.shape[axis] - 2, 0))
        share = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, own.shape[axis] - 1)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    for axis in range(3):
        np.moveaxis(values, axis, 0)[[0, -1]] = 0
    return values


def _signed_distance(
    mask: Mask, spacing_mm: tuple[float, float, float], fine_mm: float, rules: ReconstructRules
) -> Values:
    """Return 0.5 plus the signed distance from the surface of `mask`, in units of `fine_mm`.

    If one axis is much coarser than the others, the distance is that within its slices, else that in three dimensions.
    """
    most, least = max(spacing_mm), min(spacing_mm)
    axes = [axis for axis in range(3) if spacing_mm[axis] < most / rules.max_anisotropy]
    reach_mm = most * (rules.reach_slices if axes else rules.reach_voxels)
    axes = axes or [0, 1, 2]
    inside = _distance_mm(~mask, spacing_mm, axes, reach_mm)
    outside = _distance_mm(mask, spacing_mm, axes, reach_mm)
    signed = np.where(mask, inside - least / 2, least / 2 - outside) / fine_mm
    return np.asarray(ISO + signed, np.float32)


def _distance_mm(target: Mask, spacing_mm: tuple[float, float, float], axes: list[int], reach_mm: float) -> Values:
    """Return the distance to the nearest voxel of `target`, at most `reach_mm`; exact below, one axis at a time."""
    squared = np.where(target, np.float32(0), np.float32(reach_mm**2))
    for axis in axes:
        lines = np.moveaxis(squared, axis, 0)
        nearest = lines.copy()
        for steps in range(1, min(int(reach_mm / spacing_mm[axis]) + 1, len(lines))):
            square = np.float32((steps * spacing_mm[axis]) ** 2)
            np.minimum(nearest[steps:], lines[:-steps] + square, out=nearest[steps:])
            np.minimum(nearest[:-steps], lines[steps:] + square, out=nearest[:-steps])
        squared = np.moveaxis(nearest, 0, axis)
    return np.sqrt(squared)
