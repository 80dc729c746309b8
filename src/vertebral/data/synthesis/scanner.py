"""The scanner: blur, slice thickness and noise. All torch, one generator."""

import math

import torch
from torch.nn import functional

from vertebral.data.synthesis.config import SynthesisConfig
from vertebral.data.synthesis.random_draws import happens, smooth_field, uniform

AIR_HU = -1000.0


def scan(hu: torch.Tensor, spacing_mm: float, generator: torch.Generator, config: SynthesisConfig) -> torch.Tensor:
    """Return `hu` as a scanner shows it: in-plane blur, slice thickness along one axis, noise, gain and offset."""
    blur_mm = uniform(generator, (0.0, 0.45 * spacing_mm))
    slice_mm = uniform(generator, config.slice_mm)
    axis = 2 if happens(generator, 0.7) else int(torch.randint(0, 3, (), generator=generator))
    for a in range(3):
        extra = 0.42 * math.sqrt(max(0.0, slice_mm**2 - spacing_mm**2)) if a == axis else 0.0
        hu = blur(hu, math.hypot(blur_mm, extra) / spacing_mm, a)
    noise = torch.randn(hu.shape, generator=generator)
    grain = uniform(generator, (0.0, 0.8))
    noise = noise + 2.0 * grain * smooth_field(hu.shape, 2, generator)
    # Squared, because low noise is the common case in routine scans of the trunk.
    level = config.noise_hu[0] + (config.noise_hu[1] - config.noise_hu[0]) * uniform(generator, (0, 1)) ** 2
    return hu * uniform(generator, (0.95, 1.05)) + uniform(generator, (-15, 15)) + level * noise


def blur(values: torch.Tensor, sigma: float, axis: int) -> torch.Tensor:
    """Blur (I, J, K) along `axis` with a Gaussian of `sigma` voxels; below a quarter of a voxel nothing changes."""
    if sigma < 0.25:
        return values
    radius = max(1, math.ceil(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    moved = values.movedim(axis, -1)
    rows = functional.pad(moved.flatten(0, 1)[None], (radius, radius), mode="replicate")[0]
    padded = rows.reshape(*moved.shape[:2], -1)
    n = moved.shape[-1]
    total = torch.zeros_like(moved)
    for k, weight in enumerate(kernel.tolist()):
        total += weight * padded[..., k : k + n]
    return total.movedim(-1, axis)
