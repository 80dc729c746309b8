"""From a body to a CT with its labels: painted, posed, scanned. Training patches and `vertebral synth` share this."""

from collections.abc import Sequence

import numpy as np
import torch

from vertebral.core.errors import ConfigError
from vertebral.core.volume import Array, Volume
from vertebral.data.synthesis.arms import with_arms
from vertebral.data.synthesis.artefacts import acquire
from vertebral.data.synthesis.body_cache import UNKNOWN_HU, CachedBody
from vertebral.data.synthesis.config import SynthesisConfig
from vertebral.data.synthesis.findings import change_hu, change_tissue, with_fracture
from vertebral.data.synthesis.level_variants import REACH_MM, with_variant
from vertebral.data.synthesis.painting import breathe, draw_patient, paint
from vertebral.data.synthesis.pose import draw_field_of_view, draw_pose, sample
from vertebral.data.synthesis.random_draws import happens, uniform
from vertebral.data.synthesis.scanner import AIR_HU

Box = tuple[slice, slice, slice]

_MARGIN_MM = (75.0, 85.0, 30.0)
_HU_ON_DISK = (-1024, 3071)


def paint_body(
    body: CachedBody, box: Box, generator: torch.Generator, config: SynthesisConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a patient within `box` of `body`. Return HU float32 and labels uint8, both (I, J, K).

    The labels are those of the body, except for osteophytes, which belong to their vertebra, and for a vertebra that is
    repeated or left out (`level_variants`).
    """
    mm, findings = config.cache_spacing_mm, config.findings
    tissue, labels, real = _cut(body, box, generator, config)
    if any(config.breathing_mm):
        tissue = breathe(tissue, round(uniform(generator, config.breathing_mm) / mm))
    if findings is not None:
        if happens(generator, findings.arms_probability):
            tissue = with_arms(tissue, labels, mm, generator)
        tissue, labels = change_tissue(tissue, labels, mm, generator, findings)
    hu = paint(tissue, labels, draw_patient(generator, config), generator, mm)
    if real is not None:
        hu = torch.where(real != UNKNOWN_HU, real.float(), hu)
    if findings is not None:
        hu = change_hu(hu, tissue, labels, mm, generator, findings)
    return hu, labels


def _cut(
    body: CachedBody, box: Box, generator: torch.Generator, config: SynthesisConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return tissue, labels and known HU of `body` in `box`, perhaps with a vertebra more or fewer."""
    varied = config.variant_probability > 0 and happens(generator, config.variant_probability)
    # A removed vertebra makes room that is filled from below the box.
    more = min(box[2].start, round(REACH_MM / config.cache_spacing_mm)) if varied else 0
    larger = (box[0], box[1], slice(box[2].start - more, box[2].stop))
    labels = torch.from_numpy(np.array(body.labels[larger]))
    maps = [torch.from_numpy(np.array(values[larger])) for values in (body.tissue, body.hu) if values is not None]
    if varied:
        maps, labels = with_variant(maps, labels, generator)
    tissue, *known = (values[:, :, more:].contiguous() for values in maps)
    return tissue, labels[:, :, more:].contiguous(), known[0] if known else None


def pose_body(
    hu: torch.Tensor,
    labels: torch.Tensor,
    voxels: torch.Tensor,
    spacing_mm: float,
    generator: torch.Generator,
    config: SynthesisConfig,
) -> tuple[torch.Tensor, torch.Tensor, Box]:
    """Sample a painted body at `voxels` (P, Q, R, 3), fractional indices of `hu` and `labels`, and scan it.

    Returns the CT in HU and the labels uint8, both (P, Q, R) at `spacing_mm`, and the box within the field of view:
    outside it the CT is air and the labels are 0.
    """
    if config.findings is not None:
        voxels = with_fracture(voxels, labels, config.cache_spacing_mm, generator, config.findings)
    size = (voxels.shape[0], voxels.shape[1], voxels.shape[2])
    shown = draw_field_of_view(size, generator, config)
    posed = sample(labels, voxels, "nearest", 0.0).round().to(torch.uint8)
    made = acquire(sample(hu, voxels, "bilinear", AIR_HU), posed, spacing_mm, generator, config)
    ct, seen = torch.full(size, AIR_HU), torch.zeros(size, dtype=torch.uint8)
    ct[shown], seen[shown] = made[shown], posed[shown]
    return ct, seen, shown


def synthesise(
    body: CachedBody, config: SynthesisConfig, seed: int, spacing_mm: float, levels: Sequence[int] | None = None
) -> tuple[Volume, Volume]:
    """Return a CT (int16 HU) of the spine of `body` and its surroundings, and labels (uint8, VerSe ids) on its grid.

    `body` has voxels of `config.cache_spacing_mm`, the CT of `spacing_mm`. The field of view is centred on `levels`
    (VerSe ids); other levels within it are labelled too. The same seed gives the same CT.

    Raises ConfigError if the body shows none of the levels.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = np.array(body.labels.shape)
    low, high = _extent(np.asarray(body.labels), levels, body.name)
    margin = np.array(_MARGIN_MM) / config.cache_spacing_mm
    low, high = np.maximum(0, low - margin), np.minimum(shape, high + margin)
    counts = np.maximum(8, np.round((high - low) * config.cache_spacing_mm / spacing_mm)).astype(int).tolist()
    size = (counts[0], counts[1], counts[2])
    centre = torch.from_numpy((low + high) / 2 - 0.5).float()
    voxels = centre + draw_pose(size, spacing_mm, generator, config) / config.cache_spacing_mm
    box = box_around(voxels, body.labels.shape)
    hu, labels = paint_body(body, box, generator, config)
    voxels = voxels - torch.tensor([s.start for s in box])
    ct, seen, shown = pose_body(hu, labels, voxels, spacing_mm, generator, config)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    whole = ct.clamp(*_HU_ON_DISK).round().to(torch.int16).numpy()
    return Volume(whole, affine).cropped(shown), Volume(seen.numpy(), affine).cropped(shown)


def box_around(voxels: torch.Tensor, shape: Sequence[int]) -> Box:
    """Return the box of `voxels` (P, Q, R, 3) in an array of `shape`, with a margin; at least two voxels per axis."""
    size = torch.tensor(tuple(shape))
    low = torch.minimum((voxels.amin((0, 1, 2)).floor().long() - 1).clamp(min=0), size - 2)
    high = torch.minimum(voxels.amax((0, 1, 2)).ceil().long() + 2, size)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, torch.maximum(high, low + 2), strict=True))
    return i, j, k


def _extent(labels: Array, levels: Sequence[int] | None, name: str) -> tuple[Array, Array]:
    """Return the first and last voxel (exclusive) of the levels."""
    wanted = labels > 0 if levels is None else np.isin(labels, levels)
    spans = [np.flatnonzero(wanted.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not all(len(span) for span in spans):
        raise ConfigError(f"{name}: contains none of the requested levels; choose others with --levels")
    return np.array([s[0] for s in spans], float), np.array([s[-1] + 1 for s in spans], float)
