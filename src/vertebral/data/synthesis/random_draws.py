"""Random draws from one torch generator, so that a seed gives the same patch on every machine and in every worker."""

import numpy as np
import torch
from torch.nn import functional

Range = tuple[float, float]


def seed_of(*numbers: int) -> int:
    """Return a seed that depends on all of these numbers, for example the seed of a run and the number of a patch."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def uniform(generator: torch.Generator, bounds: Range) -> float:
    """Draw one number from `bounds`."""
    return bounds[0] + (bounds[1] - bounds[0]) * float(torch.rand((), generator=generator))


def happens(generator: torch.Generator, probability: float) -> bool:
    """Draw whether an event of this probability happens. Takes one draw, whatever the probability."""
    return uniform(generator, (0.0, 1.0)) < probability


def smooth_field(shape: torch.Size, step: int, generator: torch.Generator) -> torch.Tensor:
    """Return Gaussian noise (I, J, K): unit variance at knots `step` voxels apart, linear between them."""
    knots = [max(2, n // step + 2) for n in shape]
    coarse = torch.randn((1, 1, *knots), generator=generator)
    return functional.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]
