"""A training patch as the network takes it: HU in the window of its preprocessing, VerSe ids as its classes."""

import torch

from vertebral.core.anatomy import LEVELS, SPINE, level_named
from vertebral.core.config import PreprocessConfig

Patch = tuple[torch.Tensor, torch.Tensor]
"""Image (C, I, J, K) float32 and classes (I, J, K) uint8."""


def class_of_verse_id(levels: tuple[str, ...]) -> torch.Tensor:
    """Return (256,) uint8: the class of each VerSe id in a network with these levels; 0 if it has none."""
    classes = torch.zeros(256, dtype=torch.uint8)
    for index, name in enumerate(levels, start=1):
        meant = [level for level in LEVELS if level.is_vertebra] if name == SPINE.name else [level_named(name)]
        classes[[level.verse_id for level in meant]] = index
    return classes


def window(hu: torch.Tensor, settings: PreprocessConfig) -> torch.Tensor:
    """Clip and scale HU as `preprocess.prepare` does."""
    low, high = settings.window_hu
    clipped = hu.clamp(low, high)
    if settings.scaling == "unit":
        return (clipped - low) / (high - low)
    return (clipped - settings.mean_hu) / settings.std_hu
