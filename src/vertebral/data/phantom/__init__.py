"""A procedural CT with ground truth, for the offline demo and the tests.

`make_phantom` stacks vertebrae along natural curves, fills the trunk around them and adds noise. It needs no data.
The geometry is frozen: a test compares its labels with a hash, and its HU by the means of slabs.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import Level, parse_levels
from vertebral.core.errors import ConfigError
from vertebral.core.volume import Affine, Volume
from vertebral.data.phantom.shapes import Distance, Points
from vertebral.data.phantom.spine_curve import Curves, PlacedBone, disc_frame, own_frame, stack
from vertebral.data.phantom.surroundings import HU, Solid, TrunkProfile, other_bones, profile, soft_tissue
from vertebral.data.phantom.vertebrae import disc, shape

__all__ = ["LOWER_SPINE", "NATURAL", "WHOLE_SPINE", "Curves", "Phantom", "make_phantom"]

Box = tuple[slice, slice, slice]

LOWER_SPINE = parse_levels("T8-T12,L1-L5,sacrum")
WHOLE_SPINE = parse_levels("C1-C7,T1-T12,L1-L5,sacrum")
NATURAL = Curves()

_HALF_WIDTH_MM = 160.0
_JOINT_GAP_MM = 2.0
_CORTEX_MM = 1.3
_EVERYWHERE = np.float32(50.0)


@dataclass(frozen=True)
class Phantom:
    """A synthetic scan: `ct` int16 HU and `labels` uint8 VerSe ids on one RAS grid."""

    ct: Volume
    labels: Volume


def make_phantom(
    levels: Sequence[Level] = LOWER_SPINE,
    spacing_mm: float | tuple[float, float, float] = 1.0,
    seed: int = 0,
    curves: Curves = NATURAL,
    noise_hu: float = 15.0,
) -> Phantom:
    """Make a CT of a trunk with the given `levels`, and its labels.

    The grid is RAS, axis-parallel, 320 mm wide and as deep and high as the body needs; the origin of the lowest bone is
    (0, 0, 0) mm. Each label is one connected component (26-neighbourhood), and neighbours keep a joint gap of 2 mm.
    The result depends only on the arguments. `seed` sets the sizes (a few per cent), textures and noise.

    Raises ConfigError if a level cannot be built, the spacing is outside 0.3-6 mm or the noise is negative.
    """
    spacing = np.broadcast_to(np.asarray(spacing_mm, np.float64), 3)
    if not ((spacing >= 0.3) & (spacing <= 6)).all():
        raise ConfigError(f"phantom spacing {spacing_mm} mm: use 0.3 to 6 mm along each axis")
    if noise_hu < 0:
        raise ConfigError(f"phantom noise {noise_hu} HU: use zero or more")
    rng = np.random.default_rng(seed)
    placed = stack(levels, curves, rng)
    canvas, body = _prepare(placed, spacing, rng)
    for below, above in itertools.pairwise(placed):
        canvas.disc(below, above)
    for bone in placed:
        canvas.vertebra(bone)
    for solid in other_bones(placed, body):
        canvas.other(solid)
    canvas.add_noise(noise_hu, rng)
    ct = np.clip(np.rint(canvas.hu), -1024, 3071).astype(np.int16)
    return Phantom(Volume(ct, canvas.affine), Volume(canvas.labels, canvas.affine))


def _prepare(
    placed: Sequence[PlacedBone], spacing_mm: NDArray[np.float64], rng: np.random.Generator
) -> tuple["_Canvas", TrunkProfile]:
    """Choose the field of view and fill it with soft tissue, slab by slab."""
    low_z = min(b.bounds_mm()[0][2] for b in placed) - 4
    high_z = max(b.bounds_mm()[1][2] for b in placed) + (22 if placed[-1].level.name == "C1" else 4)
    z = np.arange(low_z, high_z, spacing_mm[2])
    body = profile(placed, z)
    low_y = float((body.centre_y - body.half_depth).min()) - 8
    high_y = float((body.centre_y + body.half_depth).max()) + 8
    x = np.arange(-_HALF_WIDTH_MM + spacing_mm[0] / 2, _HALF_WIDTH_MM, spacing_mm[0])
    canvas = _Canvas(x, np.arange(low_y, high_y, spacing_mm[1]), z, spacing_mm, rng)
    slab = max(1, round(24 / spacing_mm[2]))
    coarse_shape = tuple(int(n * s / 9) + 3 for n, s in zip(canvas.hu.shape, spacing_mm, strict=True))
    coarse = ndimage.gaussian_filter(rng.standard_normal(coarse_shape, np.float32), 0.8, mode="wrap")
    coarse /= coarse.std()
    for start in range(0, len(z), slab):
        part = body.part(start, start + slab)
        patches = _interpolated(coarse, canvas.axes, start, start + slab)
        canvas.hu[:, :, start : start + slab] = soft_tissue(
            canvas.axes[0][:, None, None], canvas.axes[1][None, :, None], part, patches, float(spacing_mm.mean())
        )
    return canvas, body


def _interpolated(coarse: Distance, axes: Sequence[Distance], start: int, stop: int) -> Distance:
    """Interpolate `coarse` (9 mm cells) linearly at the voxels start <= k < stop of the grid with the given axes."""
    values: Any = coarse
    for axis, places in enumerate((axes[0], axes[1], axes[2][start:stop])):
        at = (places - axes[axis][0]) / 9
        cell = at.astype(int)
        shape_along = [1, 1, 1]
        shape_along[axis] = -1
        share = (at - cell).astype(np.float32).reshape(shape_along)
        values = values.take(cell, axis) * (1 - share) + values.take(cell + 1, axis) * share
    return np.asarray(values, np.float32)


def _near_fragments(solid: Any) -> Any:
    """Return the surroundings of all components of a mask but the largest (26-neighbourhood)."""
    parts, count = ndimage.label(solid, np.ones((3, 3, 3)))
    if count < 2:
        return False
    main = parts == int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    return ndimage.binary_dilation(solid & ~main, iterations=2) & ~main


class _Canvas:
    """The volumes being painted: `hu`, `labels` and `clearance`, the distance (mm) to the nearest bone so far."""

    def __init__(self, x: Any, y: Any, z: Any, spacing_mm: NDArray[np.float64], rng: np.random.Generator) -> None:
        self.axes = [np.asarray(a, np.float32) for a in (x, y, z)]
        self.affine: Affine = np.diag([*spacing_mm, 1.0])
        self.affine[:3, 3] = x[0], y[0], z[0]
        self.spacing_mm = spacing_mm
        self.voxel_mm = float(spacing_mm.mean())
        extent = len(x), len(y), len(z)
        self.hu = np.full(extent, HU["air"], np.float32)
        self.labels = np.zeros(extent, np.uint8)
        self.clearance = np.full(extent, _EVERYWHERE, np.float32)
        grain = ndimage.gaussian_filter(rng.standard_normal((64, 64, 64), np.float32), 0.9 / spacing_mm, mode="wrap")
        self.grain = 35 * grain / grain.std()

    def box(self, low_mm: Any, high_mm: Any) -> Box:
        """Return the voxels between two corners (mm), cropped to the grid."""
        cuts = [np.searchsorted(a, (lo, hi)) for a, lo, hi in zip(self.axes, low_mm, high_mm, strict=True)]
        return slice(*map(int, cuts[0])), slice(*map(int, cuts[1])), slice(*map(int, cuts[2]))

    def points(self, box: Box) -> Points:
        """Return the RAS+ mm coordinates of a box as broadcastable arrays."""
        x, y, z = (a[cut] for a, cut in zip(self.axes, box, strict=True))
        return x[:, None, None], y[None, :, None], z[None, None, :]

    def disc(self, below: PlacedBone, above: PlacedBone) -> None:
        """Paint the disc between two neighbours."""
        if above.size.disc <= 0:
            return
        centre, rotation = disc_frame(below, above)
        reach = above.size.width
        box = self.box(centre - reach, centre + reach)
        inside = self._share(disc(own_frame(self.points(box), centre, rotation), above.size))
        self.hu[box] += (HU["disc"] - self.hu[box]) * inside

    def vertebra(self, bone: PlacedBone) -> None:
        """Paint a labelled bone, cut back to a joint gap from earlier bones, without loose fragments."""
        box = self.box(*bone.bounds_mm())
        distance = shape(bone.level.name, bone.to_own(self.points(box)), bone.size)
        distance = np.maximum(distance, _JOINT_GAP_MM - self.clearance[box])
        distance = np.where(_near_fragments(distance < 0), np.float32(self.voxel_mm), distance)
        self.labels[box][distance < 0] = bone.level.verse_id
        self._bone(box, distance, HU["trabecular"])

    def other(self, solid: Solid) -> None:
        """Paint an unlabelled bone, cut back to a joint gap from earlier bones."""
        low = np.min([piece[0] for piece in solid.pieces], axis=0)
        high = np.max([piece[1] for piece in solid.pieces], axis=0)
        box = self.box(low, high)
        distance = np.full([s.stop - s.start for s in box], _EVERYWHERE, np.float32)
        for low, high, piece in solid.pieces:
            part = self.box(low, high)
            inner = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
            distance[inner] = np.minimum(distance[inner], piece(self.points(part)))
        self._bone(box, np.maximum(distance, _JOINT_GAP_MM - self.clearance[box]), HU["marrow"])

    def add_noise(self, noise_hu: float, rng: np.random.Generator) -> None:
        """Add Gaussian noise of standard deviation `noise_hu`, correlated over 0.7 mm within each slice."""
        slab = max(1, 16_000_000 // (self.hu.shape[0] * self.hu.shape[1]))
        for start in range(0, self.hu.shape[2] if noise_hu > 0 else 0, slab):
            part = self.hu[:, :, start : start + slab]
            noise = rng.standard_normal(part.shape, np.float32)
            for axis in (0, 1):
                noise = ndimage.gaussian_filter1d(noise, 0.7 / self.spacing_mm[axis], axis=axis, truncate=3)
            part += noise * (noise_hu / noise.std())

    def _share(self, distance: Any) -> Any:
        """Return the fraction of a voxel inside a surface at a signed distance."""
        return np.clip(0.5 - distance / self.voxel_mm, 0, 1)

    def _bone(self, box: Box, distance: Distance, core_hu: float) -> None:
        """Mix cortical shell and spongy core into `hu`, and note the bone in `clearance`."""
        self.clearance[box] = np.minimum(self.clearance[box], distance)
        near = np.nonzero(distance < self.voxel_mm)
        if not near[0].size:
            return
        at = tuple(n + cut.start for n, cut in zip(near, box, strict=True))
        depth = distance[near]
        whole, core = self._share(depth), self._share(depth + _CORTEX_MM)
        grain = self.grain[tuple(n % 64 for n in at)]
        hu = self.hu[at] * (1 - whole) + HU["cortical"] * (whole - core) + (core_hu + grain) * core
        self.hu[at] = hu
