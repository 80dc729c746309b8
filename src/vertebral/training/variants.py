"""Variants of a recipe: in miniature, for a trial run, or with two classes."""

from vertebral.core.anatomy import SPINE
from vertebral.core.config import changed
from vertebral.training.config import TrainConfig

# A multiple of 32 whose first axis is 3 at the bottom of Swin UNETR: `precision.choose_precision` says why not 2.
_SIZE = (96, 64, 64)


def smoke(config: TrainConfig) -> TrainConfig:
    """The same recipe with small patches, few channels and few steps; everything else stays.

    Patches and windows of 96x64x64 voxels, batches of 2, one epoch of two steps in each phase, the network in
    miniature, one loader process.
    """
    inference = changed(config.model.inference, window=_SIZE)
    model = changed(config.model, network=config.model.network.miniature(), inference=inference)
    return changed(config, model=model, patch=_SIZE, batch=2, epochs=1, steps_per_epoch=2, workers=1)


def as_binary(config: TrainConfig) -> TrainConfig:
    """The same recipe with two classes: any vertebra, and background."""
    network = changed(config.model.network, levels=(SPINE.name,))
    return changed(config, model=changed(config.model, network=network, name=f"{config.model.name}-binary"))
