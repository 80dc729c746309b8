"""Pose, shape and field of view: drawn first, then applied. All torch, one generator."""

import math

import torch
from torch.nn import functional

from vertebral.data.synthesis.config import SynthesisConfig
from vertebral.data.synthesis.random_draws import happens, smooth_field, uniform


def draw_pose(
    patch: tuple[int, int, int], spacing_mm: float, generator: torch.Generator, config: SynthesisConfig
) -> torch.Tensor:
    """Return (I, J, K, 3) float32: each patch voxel in the frame of the body, in mm from the centre of the patch.

    Combines a rotation, a slightly anisotropic scale, a left-right mirror image (no label has a side) and a smooth
    random displacement.
    """
    axes = [(torch.arange(n) - (n - 1) / 2) * spacing_mm for n in patch]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    limit = math.radians(config.rotation_deg)
    matrix = rotation([uniform(generator, (-limit, limit)) for _ in range(3)])
    scale = uniform(generator, config.scale)
    stretch = [scale * uniform(generator, (1 - config.anisotropy, 1 + config.anisotropy)) for _ in range(3)]
    if happens(generator, config.mirror_probability):
        stretch[0] = -stretch[0]
    # Divide, because a body scaled up by s is sampled s times more densely.
    placed = points @ (matrix / torch.tensor(stretch)).T
    step = max(2, round(config.elastic_step_mm / spacing_mm))
    shift = torch.stack([smooth_field(torch.Size(patch), step, generator) for _ in range(3)], dim=-1)
    return placed + uniform(generator, (0, config.elastic_mm)) * shift


def sample(volume: torch.Tensor, voxels: torch.Tensor, mode: str, outside: float) -> torch.Tensor:
    """Sample `volume` (I, J, K) at `voxels` (P, Q, R, 3), fractional indices; `outside` beyond its border."""
    size = torch.tensor(volume.shape, dtype=torch.float32)
    grid = (2 * voxels / (size - 1) - 1).flip(-1)[None]
    source = (volume.float() - outside)[None, None]
    return functional.grid_sample(source, grid, mode=mode, padding_mode="zeros", align_corners=True)[0, 0] + outside


def draw_field_of_view(
    shape: tuple[int, int, int], generator: torch.Generator, config: SynthesisConfig
) -> tuple[slice, slice, slice]:
    """Draw the part of a patch within the field of view: all of it, or all but a slab at one end of a random axis."""
    shown = [slice(0, n) for n in shape]
    if happens(generator, config.crop_probability):
        axis = 2 if happens(generator, 0.6) else int(torch.randint(0, 2, (), generator=generator))
        cut = int(uniform(generator, (0.05, 0.5)) * shape[axis])
        at_start = happens(generator, 0.5)
        shown[axis] = slice(cut, shape[axis]) if at_start else slice(0, shape[axis] - cut)
    return shown[0], shown[1], shown[2]


def rotation(angles: list[float]) -> torch.Tensor:
    """Return the (3, 3) rotation by `angles` in radians, one about each axis in turn."""
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [k for k in range(3) if k != axis]
        turn = torch.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix
