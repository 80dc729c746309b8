"""Starting from other weights, and training parts of a network at other rates."""

import torch

from vertebral.config import NetworkConfig, OptimizerConfig
from vertebral.errors import ConfigError
from vertebral.model import AUXILIARY, Network
from vertebral.weights import Model

_HEAD = ("head.weight", "head.bias")


def copy_weights(source: Model, network: Network, config: NetworkConfig) -> None:
    """Start `network` from the weights of `source`: same architecture, any other levels.

    Classes that both know by name are carried over, as are background and offsets; the rest of the head, and heads that
    only training has, stay as they are. Raises ConfigError where the architectures differ.
    """
    theirs = source.config.network
    state, found = network.state_dict(), source.network.state_dict()
    inner = [name for name in state if name not in _HEAD and not name.startswith(AUXILIARY)]
    wrong = [n for n in inner if n not in found or found[n].shape != state[n].shape]
    if theirs.kind != config.kind or wrong:
        reason = f"is a {theirs.kind}" if theirs.kind != config.kind else f"{wrong[0]} differs in shape"
        raise ConfigError(
            f"model {source.config.name}: cannot start a {config.kind} of this config ({reason}); "
            "give the config the same kind and sizes of network"
        )
    rows = _shared_channels(config, theirs)
    for name in inner:
        state[name].copy_(found[name])
    for name in _HEAD:
        for ours, other in rows:
            state[name][ours] = found[name][other]


def _shared_channels(config: NetworkConfig, theirs: NetworkConfig) -> list[tuple[int, int]]:
    """Pairs of output channels (ours, theirs) that mean the same."""
    classes = {name: n for n, name in enumerate(theirs.levels, start=1)}
    pairs = [(0, 0), *((n, classes[name]) for n, name in enumerate(config.levels, start=1) if name in classes)]
    if config.offsets and theirs.offsets:
        pairs += [(config.class_count + axis, theirs.class_count + axis) for axis in range(3)]
    return pairs


def parameter_groups(network: Network, settings: OptimizerConfig) -> list[dict[str, object]]:
    """The weights for the optimizer, the encoder's at `encoder_rate` of the learning rate; 0 freezes them."""
    encoder = network.encoder()
    inside = {id(parameter) for parameter in encoder}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    if settings.encoder_rate == 0:
        for parameter in encoder:
            parameter.requires_grad_(False)
        return [{"params": rest, "lr": settings.learning_rate}]
    return [
        {"params": rest, "lr": settings.learning_rate},
        {"params": encoder, "lr": settings.learning_rate * settings.encoder_rate},
    ]


def averaged(network: torch.nn.Module, decay: float | None) -> torch.optim.swa_utils.AveragedModel | None:
    """An exponential moving average of the weights of `network`, or None where there is no `decay`."""
    if decay is None:
        return None
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=average, use_buffers=True)
