"""Artefacts: objects around the patient and errors of the scanner. All torch, one generator.

CT is float32 HU (I, J, K), axes R, A, S. The patient is supine: the back is at the low end of axis J.
"""

import torch
from torch.nn import functional

from vertebral.data.synthesis.config import ArtefactsConfig, SynthesisConfig
from vertebral.data.synthesis.implants import with_metal
from vertebral.data.synthesis.random_draws import Range, happens, smooth_field, uniform
from vertebral.data.synthesis.scanner import blur, scan

_AIR_BELOW_HU = -500.0
_EMPTY_HU = -940.0
_TABLE_SHELL_HU: Range = (-150.0, 300.0)
_TABLE_FOAM_HU: Range = (-970.0, -800.0)
_TABLE_MM: Range = (20.0, 60.0)
_SHELL_MM: Range = (2.0, 4.5)
_GAP_MM: Range = (0.0, 15.0)
_CLOTH_MM: Range = (2.0, 8.0)
_CLOTH_HU: Range = (-850.0, -250.0)
_LINE_HU: Range = (100.0, 1500.0)


def acquire(
    hu: torch.Tensor, labels: torch.Tensor, spacing_mm: float, generator: torch.Generator, config: SynthesisConfig
) -> torch.Tensor:
    """Scan a posed body: surroundings, metal, beam hardening and motion first, then `scanner.scan`, then the kernel.

    `labels` (I, J, K) locate bone for implants. Without `config.artefacts` this is `scan`.
    """
    settings = config.artefacts
    if settings is None:
        return scan(hu, spacing_mm, generator, config)
    hu = with_surroundings(hu, spacing_mm, generator, settings)
    if happens(generator, settings.metal_probability):
        hu = with_metal(hu, labels, spacing_mm, generator)
    if happens(generator, settings.beam_hardening_probability):
        hu = with_beam_hardening(hu, uniform(generator, settings.beam_hardening_hu), spacing_mm, generator)
    if happens(generator, settings.motion_probability):
        hu = with_motion(hu, uniform(generator, settings.motion_mm) / spacing_mm, generator)
    hu = scan(hu, spacing_mm, generator, config)
    if happens(generator, settings.kernel_probability):
        hu = with_kernel(hu, uniform(generator, settings.sharpness))
    return hu


def with_surroundings(
    hu: torch.Tensor, spacing_mm: float, generator: torch.Generator, settings: ArtefactsConfig
) -> torch.Tensor:
    """Draw table, clothes and lines into the air around the patient. Returns a new tensor if anything is drawn."""
    table, clothes, lines = (
        happens(generator, p)
        for p in (settings.table_probability, settings.clothes_probability, settings.lines_probability)
    )
    if not (table or clothes or lines):
        return hu
    hu = hu.clone()
    if clothes:
        _add_clothes(hu, spacing_mm, generator)
    if table:
        _add_table(hu, spacing_mm, generator)
    if lines:
        for _ in range(1 + int(torch.randint(0, 3, (), generator=generator))):
            _add_line(hu, generator)
    return hu


def with_beam_hardening(hu: torch.Tensor, amount: float, spacing_mm: float, generator: torch.Generator) -> torch.Tensor:
    """Darken the rows (along I) that attenuate most by up to `amount` HU, and add noise along them.

    Approximates the broad dark bands between shoulders or hips; considers lateral rays only.
    """
    body = (hu > _AIR_BELOW_HU).float()
    matter = ((hu + 1000) * (1 / 1000)).clamp_(0, 2.5).mean(0)
    share = (matter / matter.amax().clamp(min=1e-3)).square()
    grain = torch.randn(share.shape, generator=generator)
    band = blur(share[None], 15.0 / spacing_mm, 1)[0]
    drop = amount * (-band + 0.5 * grain * share)
    across = torch.linspace(-1, 1, hu.shape[0])
    profile = 1 - 0.5 * (across - uniform(generator, (-0.5, 0.5))).square()
    return torch.addcmul(hu, body, profile[:, None, None] * drop)


def with_motion(hu: torch.Tensor, shift: float, generator: torch.Generator) -> torch.Tensor:
    """Mix `hu` with a copy shifted by `shift` voxels along I or J, as if the patient breathed or trembled."""
    axis = int(torch.randint(0, 2, (), generator=generator))
    share = uniform(generator, (0.25, 0.5))
    whole, rest = int(shift), shift - int(shift)
    moved = (1 - rest) * _moved(hu, whole, axis) + rest * _moved(hu, whole + 1, axis)
    return torch.lerp(hu, moved, share)


def with_kernel(hu: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Add `sharpness` times the detail (what an in-plane blur of about a voxel removes); below 0, remove it."""
    soft = blur(blur(hu, 0.8, 0), 0.8, 1)
    return torch.lerp(soft, hu, 1 + sharpness)


def _add_table(hu: torch.Tensor, spacing_mm: float, generator: torch.Generator) -> None:
    """Draw a curved slab below the lowest point of the back, in air only; nothing if the patch ends at the back."""
    gap = uniform(generator, _GAP_MM)
    thick, shell_mm = uniform(generator, _TABLE_MM), max(spacing_mm, uniform(generator, _SHELL_MM))
    shell, foam = uniform(generator, _TABLE_SHELL_HU), uniform(generator, _TABLE_FOAM_HU)
    bend = uniform(generator, (0.0, 1 / 700))
    off_centre = uniform(generator, (-40, 40))
    rows = (hu > _AIR_BELOW_HU).any(2).float().mean(0) > 0.05
    if not rows.any():
        return
    back = int(rows.float().argmax())
    if back == 0:
        return
    x = (torch.arange(hu.shape[0]) - (hu.shape[0] - 1) / 2) * spacing_mm - off_centre
    y = torch.arange(hu.shape[1]) * spacing_mm
    top = back * spacing_mm - gap + bend * x.square()
    depth = top[:, None] - y[None, :]
    slab = (depth >= 0) & (depth < thick)
    hard = slab & ((depth < shell_mm) | (depth > thick - shell_mm))
    free = hu < _AIR_BELOW_HU
    hu[(slab & ~hard)[:, :, None] & free] = foam
    hu[hard[:, :, None] & free] = shell


def _add_clothes(hu: torch.Tensor, spacing_mm: float, generator: torch.Generator) -> None:
    """Draw a thin layer with folds on everything that is not air. In place."""
    body = (hu > _AIR_BELOW_HU).float()[None, None]
    size = 2 * max(1, round(uniform(generator, _CLOTH_MM) / spacing_mm)) + 1
    wide = functional.max_pool3d(body, (size, size, 1), stride=1, padding=(size // 2, size // 2, 0))[0, 0] > 0
    folds = smooth_field(hu.shape, 6, generator) > uniform(generator, (-0.5, 1.0))
    # Low HU inside the body are lung, so only nearly empty air is covered.
    hu[wide & folds & (hu < _EMPTY_HU)] = uniform(generator, _CLOTH_HU)


def _add_line(hu: torch.Tensor, generator: torch.Generator) -> None:
    """Draw a tube or lead: a curve (Bezier, three random points) one voxel thick, through air and body. In place."""
    size = torch.tensor(hu.shape)
    start, middle, stop = torch.rand((3, 3), generator=generator) * (size - 1)
    t = torch.linspace(0, 1, 2 * int(size.sum()))[:, None]
    points = ((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * stop).round().long()
    i, j, k = points.unbind(1)
    hu[i, j, k] = torch.maximum(hu[i, j, k], torch.tensor(uniform(generator, _LINE_HU)))


def _moved(hu: torch.Tensor, voxels: int, axis: int) -> torch.Tensor:
    """Return the values `voxels` further along `axis`; the last ones repeat."""
    n = hu.shape[axis]
    return hu.index_select(axis, (torch.arange(n) + voxels).clamp(max=n - 1))
