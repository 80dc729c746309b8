"""Findings that label maps do not show: each is drawn, then written into the tissue map, the HU or the pose.

All torch, one generator. Maps are (I, J, K), axes R, A, S, isotropic. Where possible, a change is confined to the box
of one vertebra, so that it costs little compared with painting.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from vertebral.core.anatomy import LEVELS
from vertebral.data.synthesis.config import FindingsConfig
from vertebral.data.synthesis.random_draws import Range, happens, smooth_field, uniform
from vertebral.data.synthesis.tissues import TISSUE_ID

Box = tuple[slice, slice, slice]

_SCLEROSIS_MM: Range = (4.0, 12.0)
_CEMENT_MM: Range = (6.0, 14.0)
_GAS_HU: Range = (-900.0, -300.0)
_GAS_MM: Range = (6.0, 14.0)
_GAS_HALF_THICKNESS_MM = 3.0
_OSTEOPHYTE_MM: Range = (2.0, 5.0)
_CORTEX, _DISC, _ARTERY = (TISSUE_ID[name] for name in ("vertebra_cortex", "disc", "artery"))
_SOFT = torch.tensor([TISSUE_ID[name] for name in ("muscle", "fat", "soft", "disc")], dtype=torch.uint8)
_VERTEBRAE = tuple(level.verse_id for level in LEVELS if level.is_vertebra)


@dataclass(frozen=True)
class VertebraBox:
    """A vertebra in a label map, in voxels: its VerSe id, its box (`low`, `high`), centroid, and that of its body."""

    verse_id: int
    low: torch.Tensor
    high: torch.Tensor
    centre: torch.Tensor
    body_low: torch.Tensor
    body_high: torch.Tensor

    def box(self, shape: torch.Size, margin: int = 0) -> Box:
        """Return the slices around it, cropped to `shape`."""
        low, high = self.low.long() - margin, self.high.long() + margin + 1
        i, j, k = (slice(max(0, int(a)), min(n, int(b))) for a, b, n in zip(low, high, shape, strict=True))
        return i, j, k


def draw_vertebra(labels: torch.Tensor, generator: torch.Generator) -> VertebraBox | None:
    """Draw one of the vertebrae in uint8 `labels`; None if there is none. Measured on every second voxel, for speed."""
    coarse = labels[::2, ::2, ::2]
    counts = torch.bincount(coarse.flatten().int(), minlength=max(_VERTEBRAE) + 1)
    present = [value for value in _VERTEBRAE if counts[value] >= 20]
    if not present:
        return None
    value = present[int(torch.randint(0, len(present), (), generator=generator))]
    points = 2.0 * torch.nonzero(coarse == value)
    centre, high = points.mean(0), points.amax(0) + 1
    # Voxels well in front of the centroid belong to the vertebral body, not to the posterior elements.
    front = points[points[:, 1] > (2 * centre[1] + high[1]) / 3]
    body = front if len(front) else points
    return VertebraBox(value, points.amin(0), high, centre, body.amin(0), body.amax(0) + 1)


def change_tissue(
    tissue: torch.Tensor, labels: torch.Tensor, spacing_mm: float, generator: torch.Generator, config: FindingsConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw findings that change shapes: osteophytes, which belong to their vertebra. Returns tissue and labels."""
    if happens(generator, config.osteophyte_probability):
        before, tissue, labels = labels, tissue.clone(), labels.clone()
        for _ in range(1 + int(torch.randint(0, 4, (), generator=generator))):
            _add_osteophytes(tissue, labels, before, spacing_mm, generator)
    return tissue, labels


def change_hu(
    hu: torch.Tensor,
    tissue: torch.Tensor,
    labels: torch.Tensor,
    spacing_mm: float,
    generator: torch.Generator,
    config: FindingsConfig,
) -> torch.Tensor:
    """Draw findings that change only HU, and write them into `hu`: in bone, discs and the walls of arteries."""
    if happens(generator, config.endplate_probability):
        hu[_endplates(tissue, labels)] += uniform(generator, config.endplate_hu)
    if happens(generator, config.sclerosis_probability):
        for _ in range(1 + int(torch.randint(0, 4, (), generator=generator))):
            _add_blob(hu, labels, spacing_mm, _SCLEROSIS_MM, uniform(generator, config.sclerosis_hu), False, generator)
    if happens(generator, config.vacuum_probability):
        for _ in range(1 + int(torch.randint(0, 2, (), generator=generator))):
            _add_gas(hu, tissue, labels, spacing_mm, generator)
    if happens(generator, config.calcification_probability):
        _calcify(hu, tissue, uniform(generator, config.calcification_hu), generator)
    if happens(generator, config.cement_probability):
        _add_blob(hu, labels, spacing_mm, _CEMENT_MM, uniform(generator, config.cement_hu), True, generator)
    return hu


def with_fracture(
    voxels: torch.Tensor, labels: torch.Tensor, spacing_mm: float, generator: torch.Generator, config: FindingsConfig
) -> torch.Tensor:
    """Draw whether a vertebral body is fractured, and return the `voxels` (P, Q, R, 3) of the patch moved to match.

    A wedge loses height in front, a crushed body everywhere, a biconcave one in the middle: the upper endplate sinks,
    and the disc above follows. `voxels` are indices of the intact `labels`, to which the fractured body is mapped.
    """
    if not happens(generator, config.fracture_probability):
        return voxels
    found = draw_vertebra(labels, generator)
    share, kind = uniform(generator, config.fracture_loss), int(torch.randint(0, 3, (), generator=generator))
    if found is None:
        return voxels
    low, high = found.body_low, found.body_high
    height = float(high[2] - low[2])
    follows = 6.0 / spacing_mm
    x, y, z = voxels.unbind(-1)
    aside = 2 * (x - (low[0] + high[0]) / 2).abs() / (high[0] - low[0])
    ahead = (y - found.centre[1]) / (high[1] - found.centre[1])
    depth = (ahead, ahead * 4, 1 - (2 * ahead - 1).square())[kind].clamp(0, 1)
    beyond = ((1.5 - aside) * 2).clamp(0, 1) * ((1.5 - ahead) * 2).clamp(0, 1)
    sink = share * height * depth * beyond
    within = (z - low[2]) * sink / (height - sink)
    above = sink * (high[2] + follows - z) / (follows + sink)
    moved = torch.minimum(within, above).clamp(min=0)
    return torch.stack((x, y, z + moved), dim=-1)


def _endplates(tissue: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the voxels of bone directly above or below a disc."""
    disc, plates = tissue == _DISC, labels > 0
    beside = torch.zeros_like(plates)
    beside[:, :, 1:] |= disc[:, :, :-1]
    beside[:, :, :-1] |= disc[:, :, 1:]
    return plates & beside


def _add_blob(
    hu: torch.Tensor,
    labels: torch.Tensor,
    spacing_mm: float,
    radius_mm: Range,
    value: float,
    replaces: bool,
    generator: torch.Generator,
) -> None:
    """Draw a ragged ellipsoid in one vertebral body: `value` replaces the HU there, or is added and fades outwards."""
    found = draw_vertebra(labels, generator)
    radii = torch.tensor([uniform(generator, radius_mm) / spacing_mm for _ in range(3)])
    share = torch.rand(3, generator=generator)
    if found is None:
        return
    centre = found.body_low + share * (found.body_high - found.body_low)
    box = found.box(labels.shape)
    inside = labels[box] == found.verse_id
    distance = _distance(box, centre, radii) + 0.3 * smooth_field(inside.shape, 3, generator)
    part = hu[box]
    if replaces:
        part[inside & (distance < 0.8)] = value
    else:
        part += value * inside * (1.4 - distance).clamp(0, 1)


def _add_gas(
    hu: torch.Tensor, tissue: torch.Tensor, labels: torch.Tensor, spacing_mm: float, generator: torch.Generator
) -> None:
    """Draw a flat pocket of gas in the disc below one vertebra."""
    found = draw_vertebra(labels, generator)
    width = uniform(generator, _GAS_MM) / spacing_mm
    value = uniform(generator, _GAS_HU)
    if found is None:
        return
    i, j, k = found.box(labels.shape, margin=round(8 / spacing_mm))
    low = min(labels.shape[2], int(found.body_low[2]) + 2)  # a body may touch the border
    box = (i, j, slice(k.start, max(k.start + 1, low)))
    disc = tissue[box] == _DISC
    places = torch.nonzero(disc).float()
    if len(places) < 10:
        return
    centre = places.mean(0) + torch.tensor([float(s.start) for s in box])
    flat = max(1.0, _GAS_HALF_THICKNESS_MM / spacing_mm)
    distance = _distance(box, centre, torch.tensor([width, width, flat]))
    hu[box][disc & (distance + 0.3 * smooth_field(disc.shape, 4, generator) < 1)] = value


def _calcify(hu: torch.Tensor, tissue: torch.Tensor, value: float, generator: torch.Generator) -> None:
    """Draw plaques in the walls of arteries."""
    places = 2 * torch.nonzero(tissue[::2, ::2, ::2] == _ARTERY)
    limit = uniform(generator, (0.6, 1.5))
    if not len(places):
        return
    box = tuple(slice(max(0, int(a) - 2), int(b) + 3) for a, b in zip(places.amin(0), places.amax(0), strict=True))
    artery = tissue[box] == _ARTERY
    wall = artery & _grown(~artery, 1)
    plaques = wall & (smooth_field(artery.shape, 5, generator) > limit)
    part = hu[box]
    part[plaques] = torch.clamp(part[plaques], min=value)


def _add_osteophytes(
    tissue: torch.Tensor, labels: torch.Tensor, before: torch.Tensor, spacing_mm: float, generator: torch.Generator
) -> None:
    """Add bone at the front and side rims of one vertebral body in the labels `before`, next to its discs."""
    found = draw_vertebra(before, generator)
    reach = max(1, round(uniform(generator, _OSTEOPHYTE_MM) / spacing_mm))
    if found is None:
        return
    box = found.box(labels.shape, margin=reach + 1)
    own = before[box] == found.verse_id
    disc = tissue[box] == _DISC
    rim = _grown(own, reach) & _grown(disc, reach) & ~disc & torch.isin(tissue[box], _SOFT)
    rim[:, : max(0, int(found.centre[1]) - box[1].start)] = False
    rim &= smooth_field(rim.shape, 4, generator) > 0.2
    tissue[box][rim] = _CORTEX
    labels[box][rim] = found.verse_id


def _distance(box: Box, centre: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """Return the distance of the voxels of `box` from `centre`: 1 on the ellipsoid with these `radii`, in voxels."""
    axes = [
        ((torch.arange(s.start, s.stop) - float(c)) / float(r)).square()
        for s, c, r in zip(box, centre, radii, strict=True)
    ]
    return (axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]).sqrt()


def _grown(mask: torch.Tensor, voxels: int) -> torch.Tensor:
    """Dilate the mask (I, J, K) by `voxels` along each axis."""
    size = 2 * voxels + 1
    return functional.max_pool3d(mask.float()[None, None], size, stride=1, padding=voxels)[0, 0] > 0
