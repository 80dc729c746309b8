"""From occupancies and masks to a `Field`: one solid, sampled so finely in all directions that it can be contoured."""

from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from vertebral.core.anatomy import Level
from vertebral.core.errors import VertebralError
from vertebral.core.records import Box
from vertebral.core.volume import Grid

ISO = 0.5

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Values nearer than this to the contour are moved away from it: no triangle may shrink to nothing at a voxel centre.
_ISO_MARGIN = 0.02
_STEP = 0.9
# Grids that are contoured as they are; others are sampled anew between the two spacings.
_MOST_ANISOTROPY = 1.5
_FINE_MM, _COARSE_MM = 0.75, 1.7
# Finer than 0.9 mm, phantoms came out no nearer to the truth (benchmarks/surfaces.py), with more triangles.
_LEAST_SPACING_MM, _MOST_SPACING_MM = 0.9, 1.0
_PLANES_PER_SLICE = 3
_BLUR_VOXELS = 0.7
# Distances count up to this many slices (or, without slices, voxels): what lies deeper says nothing of the surface.
_REACH_SLICES, _REACH_VOXELS = 0.8, 1.5


@dataclass(frozen=True)
class Field:
    """One vertebra on its own `grid`: `values` (I, J, K) is 0.5 on the surface, higher inside, low all along the edge.

    `volume_mm3` is that of the source's voxels, `dropped_mm3` that of crumbs left out. `voxel_mm` are the source's
    spacings along the grid's axes: what the surface may be moved by is counted in these. `stepped` is
    True where the source is a mask or nearly one.
    """

    level: Level
    values: Values
    grid: Grid
    volume_mm3: float
    dropped_mm3: float
    voxel_mm: tuple[float, float, float]
    stepped: bool


def field_of(occupancy: NDArray[Any], box: Box, grid: Grid, level: Level, spacing_mm: float | None = None) -> Field:
    """Return the field of `occupancy` (a mask, or 0-1 with 0.5 on the surface) on the crop `box` of `grid`.

    Crumbs and inner cavities are dropped. Masks on slices much thicker than their pixels, and coarse ones, are sampled
    anew by shape-based interpolation (Raya and Udupa 1990); `spacing_mm` asks for one spacing. Raises VertebralError
    where nothing is inside, is left of it at the new spacing, or values are not finite.
    """
    crop, inner = _padded_crop(occupancy, level)
    values = _one_solid(crop)
    i, j, k = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, inner, strict=True))
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(np.array([i.start, j.start, k.start]))
    own = Grid((crop.shape[0], crop.shape[1], crop.shape[2]), affine)
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    volume_mm3 = np.count_nonzero(values > ISO) * voxel_mm3
    dropped_mm3 = np.count_nonzero((crop >= ISO) & (values < ISO)) * voxel_mm3
    stepped = _is_stepped(values)
    wanted = spacing_mm or _spacing_for(own.spacing_mm)
    if wanted is not None:
        fine = own.resampled(wanted)
        values, own = _sampled_anew(values, own, fine, stepped), fine
        if not (values >= ISO).any():
            raise VertebralError(f"{level.name}: nothing is left of it at {wanted:g} mm: its voxels are too small")
        values = _one_solid(values)
    elif stepped:
        values = _kept_sides(values, gaussian_filter(values, _BLUR_VOXELS))
    return Field(level, values, own, volume_mm3, dropped_mm3, grid.spacing_mm, stepped)


def _spacing_for(spacing_mm: tuple[float, float, float]) -> float | None:
    least, most = min(spacing_mm), max(spacing_mm)
    if most <= _MOST_ANISOTROPY * least and least >= _FINE_MM and most <= _COARSE_MM:
        return None
    return float(
        np.clip(most / _PLANES_PER_SLICE, max(_LEAST_SPACING_MM, min(least, _MOST_SPACING_MM)), _MOST_SPACING_MM)
    )


def _padded_crop(occupancy: NDArray[Any], level: Level) -> tuple[Values, Box]:
    """Crop to the inside with a border of two voxels, zero where the array ends; also the crop's box."""
    inside = occupancy >= ISO
    if not inside.any():
        peak = float(np.max(occupancy, initial=0))
        raise VertebralError(f"{level.name}: no voxel is inside (highest occupancy {peak:.3f}); drop this vertebra")
    if not np.isfinite(occupancy).all():
        raise VertebralError(f"{level.name}: the occupancy holds values that are not finite")
    spans = [np.flatnonzero(inside.any(axis=others))[[0, -1]] for others in ((1, 2), (0, 2), (0, 1))]
    i, j, k = (slice(max(int(low) - 1, 0), int(high) + 2) for low, high in spans)
    crop = np.pad(occupancy[i, j, k].astype(np.float32), 1)
    i, j, k = (slice(s.start - 1, s.start - 1 + n) for s, n in zip((i, j, k), crop.shape, strict=True))
    return crop, (i, j, k)


def _one_solid(values: Values) -> Values:
    """Keep the largest face-connected piece, fill its cavities and keep values off the contour level."""
    inside = values >= ISO
    pieces = cc3d.connected_components(inside, connectivity=6)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    hollows = cc3d.connected_components(pieces != largest, connectivity=6)
    solid = hollows != hollows[0, 0, 0]
    return _kept_sides(
        solid, np.where(solid & ~inside, np.float32(1), np.where(inside & ~solid, np.float32(0), values))
    )


def _kept_sides(solid: NDArray[Any], values: Values) -> Values:
    """Keep `values` above the contour level inside of `solid` and below it outside."""
    return np.where(solid > ISO, np.maximum(values, ISO + _ISO_MARGIN), np.minimum(values, ISO - _ISO_MARGIN))


def _is_stepped(values: Values) -> bool:
    """True where over half of the steps through the surface are those of a binary mask."""
    crossing = stepped = 0
    for axis in range(3):
        low, high = np.moveaxis(values, axis, 0)[:-1], np.moveaxis(values, axis, 0)[1:]
        jump = np.abs(high - low)[(high > ISO) != (low > ISO)]
        crossing += jump.size
        stepped += int(np.count_nonzero(jump > _STEP))
    return stepped > crossing / 2


def _sampled_anew(values: Values, own: Grid, fine: Grid, stepped: bool) -> Values:
    """Return `values` on `fine`, an isotropic grid over the same axes; a mask by its signed distance."""
    if stepped:
        values = _soft_sides(values > ISO, own.spacing_mm, fine.spacing_mm[0])
    for axis in range(3):
        at = np.minimum(np.arange(fine.shape[axis]) * fine.spacing_mm[axis] / own.spacing_mm[axis], own.shape[axis] - 1)
        low = np.minimum(at.astype(np.int64), max(own.shape[axis] - 2, 0))
        share = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, own.shape[axis] - 1)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    for axis in range(3):
        np.moveaxis(values, axis, 0)[[0, -1]] = 0
    return values


def _soft_sides(mask: Mask, spacing_mm: tuple[float, float, float], fine_mm: float) -> Values:
    """Return 0.5 plus the signed distance from the surface of `mask`, in steps of `fine_mm`.

    Within slices where one axis is much coarser than the others, else in all three directions.
    """
    most, least = max(spacing_mm), min(spacing_mm)
    axes = [axis for axis in range(3) if spacing_mm[axis] < most / _MOST_ANISOTROPY]
    reach_mm = most * (_REACH_SLICES if axes else _REACH_VOXELS)
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
