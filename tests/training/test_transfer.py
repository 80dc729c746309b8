"""A network that starts from another one's weights."""

import pytest
import torch

from vertebral.core.errors import ConfigError
from vertebral.models.config import ModelConfig
from vertebral.models.networks import NetworkConfig, UNetConfig, build_network
from vertebral.models.weights import Model
from vertebral.training.transfer import copy_weights

IMAGE = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def _unet(*channels: int, units: int = 1) -> UNetConfig:
    kind = "resunet" if units else "unet"
    return UNetConfig(kind=kind, levels=("L1",), channels=channels, strides=(2, 2), residual_units=units)


def _model(config: NetworkConfig) -> Model:
    return Model(ModelConfig(name="narrow", network=config), build_network(config).eval(), sha256="", licence="")


@pytest.mark.parametrize("units", [0, 1, 2])
@pytest.mark.parametrize("wider", [(4, 8, 16), (5, 11, 17), (4, 9, 16)])
def test_a_wider_network_starts_with_what_the_narrow_one_computes(wider: tuple[int, ...], units: int) -> None:
    narrow = _model(_unet(4, 8, 16, units=units))
    config = _unet(*wider, units=units)
    network = build_network(config).eval()
    with torch.no_grad():
        copy_weights(narrow, network, config)
        torch.testing.assert_close(network(IMAGE), narrow.network(IMAGE), rtol=1e-4, atol=1e-5)


def test_its_new_channels_can_learn() -> None:
    config = _unet(5, 9, 17)
    network = build_network(config)
    with torch.no_grad():
        copy_weights(_model(_unet(4, 8, 16)), network, config)
    network(IMAGE).square().mean().backward()
    assert network.head.weight.grad is not None
    assert network.head.weight.grad[:, 4].abs().min() > 0


@pytest.mark.parametrize("other", [_unet(4, 6, 16), _unet(4, 8, 16, units=2)])
def test_a_network_that_does_not_fit_is_refused(other: UNetConfig) -> None:
    with pytest.raises(ConfigError, match="model narrow: cannot start a resunet of this config"):
        copy_weights(_model(_unet(4, 8, 16)), build_network(other), other)
