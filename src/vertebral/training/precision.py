"""The numerical precision of a training run."""

import torch

from vertebral.core.errors import ConfigError
from vertebral.models.devices import computes_bfloat16
from vertebral.training.config import TrainConfig, TrainingPrecision


def choose_precision(config: TrainConfig, device: torch.device) -> TrainingPrecision:
    """Return the precision of `config`; for `auto`, bf16-mixed if `device` computes bfloat16 in hardware, else 32-true.

    On a CPU bf16-mixed trains wrongly if the deepest feature map has a first axis of 2 voxels: there the gradient of
    the weights of a 3x3x3 convolution reads uninitialised memory (oneDNN, at least in PyTorch 2.13) and is now and then
    not finite. `auto` is 32-true there; raises ConfigError if the config demands bf16-mixed.
    """
    factor = config.model.network.size_factor
    wrong = device.type == "cpu" and config.patch[0] // factor == 2
    if config.precision == "auto":
        return "bf16-mixed" if computes_bfloat16(device) and not wrong else "32-true"
    if wrong and config.precision == "bf16-mixed":
        raise ConfigError(
            f"patch {config.patch}: on a CPU bf16-mixed gives wrong gradients if the first size is twice {factor}; "
            "use --set precision=32-true, or another first size"
        )
    return config.precision
