"""Metal implants: rods and screws with their streaks. All torch, one generator."""

import math

import torch
from torch.nn import functional

from vertebral.data.synthesis.random_draws import Range, happens, uniform

_METAL_HU: Range = (2500.0, 3000.0)
_METAL_RADIUS_MM: Range = (1.5, 3.5)
_ROD_MM, _SCREW_MM = (40.0, 120.0), (30.0, 50.0)
_STREAK_HU: Range = (100.0, 600.0)
_STREAK_REACH_MM: Range = (10.0, 40.0)


def with_metal(hu: torch.Tensor, labels: torch.Tensor, spacing_mm: float, generator: torch.Generator) -> torch.Tensor:
    """Put one or two rods (along the spine) or screws (from back to front) through bone; nothing if there is none.

    Each is a bright cylinder; in its axial planes, streaks fade with the distance from it.
    """
    bone = torch.nonzero(labels[::2, ::2, ::2])
    if not len(bone):
        return hu
    hu = hu.clone()
    for _ in range(1 + int(happens(generator, 0.5))):
        centre = 2.0 * bone[int(torch.randint(0, len(bone), (), generator=generator))]
        is_rod = happens(generator, 0.5)
        direction = torch.tensor([0.0, 0.0, 1.0] if is_rod else [0.0, 1.0, 0.0])
        direction = functional.normalize(direction + 0.2 * torch.randn(3, generator=generator), dim=0)
        half_mm = uniform(generator, _ROD_MM if is_rod else _SCREW_MM) / 2
        _add_implant(hu, centre, direction, half_mm, spacing_mm, generator)
    return hu


def _add_implant(
    hu: torch.Tensor,
    centre: torch.Tensor,
    direction: torch.Tensor,
    half_mm: float,
    spacing_mm: float,
    generator: torch.Generator,
) -> None:
    """Draw a cylinder of length 2 `half_mm` and its streaks into `hu`, in place."""
    radius_mm = uniform(generator, _METAL_RADIUS_MM)
    rise = (half_mm * abs(float(direction[2])) + radius_mm) / spacing_mm
    start, stop = max(0, math.floor(float(centre[2]) - rise)), math.ceil(float(centre[2]) + rise) + 1
    part = hu[:, :, start:stop]
    x, y, z = (
        ((torch.arange(n) + first - at) * spacing_mm).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, first, at) in enumerate(zip(part.shape, (0, 0, start), centre.tolist(), strict=True))
    )
    i, j, k = direction.tolist()
    along = (i * x + j * y + k * z).clamp_(-half_mm, half_mm)
    x, y, z = x - i * along, y - j * along, z - k * along
    distance = (x * x + y * y + z * z).sqrt_()
    rays, phase = 2 + int(torch.randint(0, 5, (), generator=generator)), uniform(generator, (0.0, math.pi))
    streaks = torch.cos(torch.atan2(y, x).mul_(2 * rays).add_(phase))
    streaks *= torch.exp(distance * (-1 / uniform(generator, _STREAK_REACH_MM))).mul_(uniform(generator, _STREAK_HU))
    part += streaks.mul_(z.abs() <= radius_mm)
    part[distance <= radius_mm] = uniform(generator, _METAL_HU)
