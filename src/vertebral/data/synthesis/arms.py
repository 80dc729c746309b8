"""Arms: raised next to the head or at the side. Label maps of the trunk have none, CT scans do."""

import torch
from torch.nn import functional

from vertebral.data.synthesis.random_draws import Range, uniform
from vertebral.data.synthesis.tissues import TISSUE_ID

_RADIUS_MM: Range = (32.0, 55.0)
_BONE_MM: Range = (10.0, 15.0)
_CORTEX_MM: Range = (3.0, 5.0)
_SKIN_MM, _FAT_MM = 2.0, (2.0, 14.0)
_LATERAL_MM = 75.0
_TILT = 0.35
_TRIES = 30


def with_arms(
    tissue: torch.Tensor, labels: torch.Tensor, spacing_mm: float, generator: torch.Generator
) -> torch.Tensor:
    """Return uint8 `tissue` (I, J, K) with one or two arms in its air, each 75 mm or more to a side of the spine.

    An arm is a cylinder of skin, fat and muscle around one bone or, in a forearm, two, parallel or oblique to the body.
    It ends at a random height or runs through. Only air is painted over.
    """
    made = tissue.clone()
    columns = torch.nonzero(labels.amax((1, 2)))
    middle = float(columns.float().mean()) if len(columns) else tissue.shape[0] * uniform(generator, (0.0, 1.0))
    rows = torch.nonzero(labels.amax((0, 2)))
    # The patient is supine: arms are not below the spine.
    lowest = int(rows.min()) if len(rows) else 0
    shape = torch.tensor(tissue.shape)
    for _ in range(1 + int(torch.randint(0, 2, (), generator=generator))):
        for _ in range(_TRIES):
            place = (torch.rand(3, generator=generator) * shape).long()
            away = abs(float(place[0]) - middle) * spacing_mm
            beside = away > _LATERAL_MM and int(place[1]) >= lowest
            if beside and tissue[tuple(place.tolist())] == TISSUE_ID["air"]:
                _add_arm(made, tissue, place.float(), spacing_mm, generator)
                break
    return made


def _add_arm(
    made: torch.Tensor, tissue: torch.Tensor, place: torch.Tensor, spacing_mm: float, generator: torch.Generator
) -> None:
    """Write an arm whose axis runs through voxel `place` into the air of `tissue`."""
    radius = uniform(generator, _RADIUS_MM)
    bone_mm, cortex_mm = uniform(generator, _BONE_MM), uniform(generator, _CORTEX_MM)
    fat_mm = uniform(generator, _FAT_MM)
    lean = torch.tensor([_TILT, _TILT, 0.0]) * torch.randn(3, generator=generator)
    direction = functional.normalize(torch.tensor([0.0, 0.0, 1.0]) + lean, dim=0)
    is_forearm = uniform(generator, (0, 1)) < 0.4
    half_mm = uniform(generator, (100, 400))
    reach = radius / spacing_mm / float(direction[2])
    # The columns that the axis crosses, widened by the radius of the arm.
    ends = torch.stack([place + direction * (k - place[2]) / direction[2] for k in (0, tissue.shape[2] - 1)])
    low, high = ends.amin(0) - reach, ends.amax(0) + reach
    box = tuple(
        slice(max(0, int(a)), max(0, min(n, int(b) + 1)))
        for a, b, n in zip(low[:2].tolist(), high[:2].tolist(), tissue.shape, strict=False)
    )
    part, free = made[box], tissue[box] == TISSUE_ID["air"]
    x, y, z = (
        ((torch.arange(n) + first - at) * spacing_mm).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, first, at) in enumerate(
            zip(part.shape, (box[0].start, box[1].start, 0), place.tolist(), strict=True)
        )
    )
    i, j, k = direction.tolist()
    along = i * x + j * y + k * z
    across, deep, rest = x - i * along, y - j * along, z - k * along
    flat = deep * deep + rest * rest
    depth = (across * across + flat).sqrt()
    free &= along.abs() < half_mm
    for name, within in (("skin", radius), ("fat", radius - _SKIN_MM), ("muscle", radius - _SKIN_MM - fat_mm)):
        part[free & (depth < within)] = TISSUE_ID[name]
    gap = bone_mm + 3.0 if is_forearm else 0.0
    bone_mm *= 0.65 if is_forearm else 1.0
    for side in (-1, 1) if is_forearm else (0,):
        middle = ((across - side * gap / 1.6).square() + flat).sqrt()
        part[free & (middle < bone_mm)] = TISSUE_ID["bone_cortex"]
        part[free & (middle < bone_mm - cortex_mm)] = TISSUE_ID["bone_interior"]
