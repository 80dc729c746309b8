"""A recipe changed as a whole: in miniature, to see that all of it runs; or for two classes."""

from vertebral.core.anatomy import SPINE
from vertebral.models.config import SwinUNETRConfig
from vertebral.training.config import TrainConfig

# A multiple of 32 whose first axis is 3 at the bottom of Swin UNETR: `train.check_bottom` says why not 2.
_SIZE = (96, 64, 64)


def smoke(config: TrainConfig) -> TrainConfig:
    """The same recipe with small patches, few channels and few steps; nothing else changes.

    Patches and windows of 96x64x64 voxels, batches of 2, one epoch of two steps in each phase, channels divided by 8
    (Swin UNETR: 12 features, one block a stage), one loader process.
    """
    network = config.model.network
    small = (
        network.model_copy(update={"feature_size": 12, "depths": (1, 1, 1, 1)})
        if isinstance(network, SwinUNETRConfig)
        else network.model_copy(update={"channels": tuple(max(4, width // 8) for width in network.channels)})
    )
    inference = config.model.inference.model_copy(update={"window": _SIZE})
    model = config.model.model_copy(update={"network": small, "inference": inference})
    changes = {"model": model, "patch": _SIZE, "batch": 2, "epochs": 1, "steps_per_epoch": 2, "workers": 1}
    return config.model_copy(update=changes)


def as_binary(config: TrainConfig) -> TrainConfig:
    """The same recipe with two classes: any vertebra, and background."""
    network = config.model.network.model_copy(update={"levels": (SPINE.name,)})
    model = config.model.model_copy(update={"network": network, "name": f"{config.model.name}-binary"})
    return config.model_copy(update={"model": model})
