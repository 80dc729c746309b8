"""Starting from the weights of another model, and training the encoder at its own rate."""

import torch

from vertebral.core.errors import ConfigError
from vertebral.models.modules import Network
from vertebral.models.networks import AUXILIARY, NetworkConfig
from vertebral.models.weights import Model
from vertebral.training.config import OptimizerConfig

_HEAD = ("head.weight", "head.bias")


def copy_weights(source: Model, network: Network, config: NetworkConfig) -> None:
    """Start `network` from the weights of `source`: same architecture, any other levels, at least its widths.

    Classes that both networks have are copied, as are background and offsets; the other channels of the head, and
    auxiliary heads, stay as they are. At first a wider network computes the same as the narrow one: the outputs of its
    new channels have weight zero (Chen et al., Net2Net, ICLR 2016, with zeros for copies). Raises ConfigError if the
    architectures differ.
    """
    theirs = source.config.network
    state, found = network.state_dict(), source.network.state_dict()
    inner = [name for name in state if name not in _HEAD and not name.startswith(AUXILIARY)]
    wrong = [name for name in inner if name not in found or not _fits(found[name], state[name])]
    if theirs.kind != config.kind or wrong:
        reason = f"is a {theirs.kind}" if theirs.kind != config.kind else f"{wrong[0]} differs in shape"
        raise ConfigError(
            f"model {source.config.name}: cannot start a {config.kind} of this config ({reason}); "
            "give the config the same kind of network, with channels of the same size or more"
        )
    skips = network.skip_widths()
    for name, old in (source.network.skip_widths() if isinstance(source.network, Network) else {}).items():
        _put(found[name].transpose(0, 1), state[name].transpose(0, 1), old, skips[name] - old)
    for name in inner:
        if name not in skips:
            _put(found[name], state[name])
    for name in _HEAD:
        for ours, other in _shared_channels(config, theirs):
            _put(found[name][other : other + 1], state[name][ours : ours + 1])


def _fits(found: torch.Tensor, ours: torch.Tensor) -> bool:
    """Whether `found` fits into `ours`: the same kernel size, and no more inputs or outputs."""
    pairs = zip(found.shape[:2], ours.shape[:2], strict=True)
    return found.shape[2:] == ours.shape[2:] and found.ndim == ours.ndim and all(a <= b for a, b in pairs)


def _put(found: torch.Tensor, ours: torch.Tensor, skip: int = 0, shift: int = 0) -> None:
    """Write `found` into the first outputs of `ours`, in place; inputs from `skip` on move up by `shift`.

    Other inputs of these outputs get weight zero. Weights are (outputs, inputs, kernel); a bias is (outputs,).
    """
    if found.shape == ours.shape:
        ours.copy_(found)
        return
    ours[: len(found)] = 0
    if found.ndim == 1:
        ours[: len(found)] = found
        return
    inputs = torch.arange(found.shape[1])
    inputs[skip:] += shift
    ours[: len(found), inputs] = found


def _shared_channels(config: NetworkConfig, theirs: NetworkConfig) -> list[tuple[int, int]]:
    """Pairs of output channels (ours, theirs) with the same meaning."""
    classes = {name: n for n, name in enumerate(theirs.levels, start=1)}
    pairs = [(0, 0), *((n, classes[name]) for n, name in enumerate(config.levels, start=1) if name in classes)]
    if config.offsets and theirs.offsets:
        pairs += [(config.class_count + axis, theirs.class_count + axis) for axis in range(3)]
    return pairs


def parameter_groups(network: Network, settings: OptimizerConfig) -> list[dict[str, object]]:
    """The weights for the optimizer, the encoder's at `encoder_rate` of the learning rate; 0 freezes them.

    Raises ConfigError if an `encoder_rate` is set and the network has no encoder.
    """
    encoder = network.encoder()
    if settings.encoder_rate != 1 and not encoder:
        raise ConfigError(f"optimizer.encoder_rate {settings.encoder_rate:g}: this network has no encoder; remove it")
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
    """An exponential moving average of the weights of `network`, or None without a `decay`."""
    if decay is None:
        return None
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=average, use_buffers=True)
