"""Augmentation of patches from real scans: another pose, another scanner. All torch, one generator.

It must keep up with a GPU, so no step on a whole patch uses float64 or runs if its probability has ruled it out.
`benchmarks/loader.py` measures the time.
"""

import math

import numpy as np
import torch

from vertebral.data.patches.config import AugmentConfig
from vertebral.data.synthesis.implants import with_metal
from vertebral.data.synthesis.pose import rotation
from vertebral.data.synthesis.random_draws import Range, happens, uniform
from vertebral.data.synthesis.scanner import blur

Shape = tuple[int, int, int]

_GAIN: Range = (0.9, 1.1)
_OFFSET_HU: Range = (-20.0, 20.0)
_LOG_GAMMA: Range = (-0.25, 0.25)


def draw_knots(
    patch: Shape, spacing_mm: float, generator: torch.Generator, config: AugmentConfig
) -> torch.Tensor | None:
    """Draw the pose of a patch: (A, B, C, 3) float32 knots, in voxels of the scan from the centre of the patch.

    The knots are evenly spaced from the first to the last voxel of the patch along each axis; between them the map is
    linear, so a rotation and a scale need only the eight corners, and a smooth random displacement needs knots
    `elastic_step_mm` apart. None if the patch keeps the pose of the scan.
    """
    turned, warped = (happens(generator, p) for p in (config.affine_probability, config.elastic_probability))
    if not turned and not warped:
        return None
    step = max(2, round(config.elastic_step_mm / spacing_mm))
    counts = [n // step + 2 if warped else 2 for n in patch]
    axes = [torch.linspace(-(n - 1) / 2, (n - 1) / 2, count) for n, count in zip(patch, counts, strict=True)]
    knots = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    if turned:
        limit = math.radians(config.rotation_deg)
        turn = rotation([uniform(generator, (-limit, limit)) for _ in range(3)])
        # Divide, because a body scaled up by s is sampled s times more densely.
        knots = knots @ turn.T / uniform(generator, config.scale)
    if warped:
        knots = knots + uniform(generator, (0.0, config.elastic_mm)) / spacing_mm * torch.randn(
            knots.shape, generator=generator
        )
    return knots


def sampling_grid(knots: torch.Tensor, patch: Shape) -> torch.Tensor:
    """Return (I, J, K, 3): the values of `knots` (A, B, C, 3) at every voxel of the patch, linear between knots."""
    first, second, third = (_between(count, n) for count, n in zip(knots.shape[:3], patch, strict=True))
    planes = torch.tensordot(second, torch.tensordot(first, knots, dims=([1], [0])), dims=([1], [1]))
    lines = planes.transpose(0, 1).reshape(patch[0] * patch[1], -1)
    # One product with the weights of the last axis for all coordinates, which avoids interleaving a whole patch.
    grid: torch.Tensor = lines @ torch.kron(third.T.contiguous(), torch.eye(3))
    return grid.reshape(*patch, 3)


def change_look(
    hu: torch.Tensor,
    labels: torch.Tensor,
    spacing_mm: float,
    window_hu: Range,
    generator: torch.Generator,
    config: AugmentConfig,
) -> torch.Tensor:
    """Return `hu` (I, J, K), already clipped to the window, as if from another scanner or with an implant.

    Implants come first, then blur and thick slices, then intensity and noise. Clipped voxels are far outside the window
    and stay clipped: no streak, offset or noise turns air into soft tissue. `labels` (I, J, K) locate bone.
    """
    low, high = window_hu
    if happens(generator, config.metal_probability):
        made = with_metal(hu, labels, spacing_mm, generator)
        hu = torch.where((hu <= low) & (made < high), hu, made.clamp(low, high))
    if happens(generator, config.blur_probability):
        sigma = uniform(generator, config.blur_mm) / spacing_mm
        for axis in range(3):
            hu = blur(hu, sigma, axis)
    if happens(generator, config.low_resolution_probability):
        axis = int(torch.randint(0, 3, (), generator=generator))
        hu = in_slabs(hu, uniform(generator, config.slice_mm) / spacing_mm, axis, uniform(generator, (0.0, 1.0)))
    scaled, noisy = (happens(generator, p) for p in (config.intensity_probability, config.noise_probability))
    if not scaled and not noisy:
        return hu
    clipped = (hu <= low) | (hu >= high)
    changed = with_other_scale(hu, window_hu, generator) if scaled else hu
    if noisy:
        noise = torch.empty_like(hu).normal_(0.0, uniform(generator, config.noise_hu), generator=generator)
        changed = noise.add_(changed)
    return torch.where(clipped, hu, changed)


def with_other_scale(hu: torch.Tensor, window_hu: Range, generator: torch.Generator) -> torch.Tensor:
    """Draw a gamma, which keeps the ends of the window, then a gain about the lower end and an offset."""
    low, high = window_hu
    gamma = math.exp(uniform(generator, _LOG_GAMMA))
    gain, offset = uniform(generator, _GAIN), uniform(generator, _OFFSET_HU)
    share = (hu - low).mul_(1 / (high - low)).clamp_(0, 1).pow_(gamma)
    return share.mul_((high - low) * gain).add_(low + offset)


def in_slabs(hu: torch.Tensor, thickness: float, axis: int, phase: float) -> torch.Tensor:
    """Average `hu` (I, J, K) over slabs of `thickness` voxels along `axis`; interpolate linearly between their middles.

    The first slab starts `phase` (0 to 1) thicknesses before the first voxel; voxels outside do not count.
    """
    if thickness <= 1:
        return hu
    voxel = np.arange(hu.shape[axis])
    edges = (np.arange(len(voxel) / thickness + 2) - phase) * thickness
    overlap = np.minimum(edges[1:, None], voxel + 1) - np.maximum(edges[:-1, None], voxel)
    mean = overlap.clip(min=0)[overlap.max(axis=1) > 1e-3]
    mean /= mean.sum(axis=1, keepdims=True)
    places = np.interp(voxel, mean @ voxel, np.arange(len(mean)))
    back = (1 - np.abs(places[:, None] - np.arange(len(mean)))).clip(min=0)
    matrix = torch.from_numpy((back @ mean).astype(np.float32))
    averaged: torch.Tensor = torch.tensordot(matrix, hu, dims=([1], [axis]))
    return averaged.movedim(0, axis)


def _between(knots: int, count: int) -> torch.Tensor:
    """(count, knots) float32 weights of linear interpolation, from the first knot to the last."""
    positions = torch.linspace(0, knots - 1, count)
    return (1 - (positions[:, None] - torch.arange(knots)).abs()).clamp(min=0)
