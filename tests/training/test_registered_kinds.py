"""A network and a loss that another package registers: trained, exported to ONNX and run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from vertebral.core.config import changed, parse_config
from vertebral.core.errors import ConfigError
from vertebral.models import networks
from vertebral.models.cards import read_card, shipped_models
from vertebral.models.config import ModelConfig
from vertebral.models.exchange import export_model
from vertebral.models.modules import Network
from vertebral.models.networks import NetworkConfig, build_network, register_network
from vertebral.models.weights import load_model
from vertebral.training import losses
from vertebral.training.config import TrainConfig
from vertebral.training.losses import LossConfig, register_loss
from vertebral.training.run_folder import RunFolder
from vertebral.training.train import make_fabric, train


class ToyConfig(NetworkConfig):
    """One convolution."""

    kind: Literal["toy"] = "toy"
    kernel: int = 3

    @property
    def size_factor(self) -> int:
        return 4


class Toy(Network):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.head = torch.nn.Conv3d(config.input_count, config.channel_count, config.kernel, padding="same")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(image)
        return logits


class SquaresConfig(LossConfig):
    """Mean squared distance between logits and one-hot classes, times `scale`."""

    kind: Literal["squares"] = "squares"
    scale: float = 1.0


def squares(logits: torch.Tensor, classes: torch.Tensor, config: SquaresConfig) -> torch.Tensor:
    one_hot = torch.nn.functional.one_hot(classes.long(), len(logits)).permute(3, 0, 1, 2)
    return config.scale * (logits - one_hot).square().mean()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for registry in (networks._NETWORKS, losses._LOSSES):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    register_network(ToyConfig, Toy)
    register_loss(SquaresConfig, squares)
    yield


def config(**changes: object) -> TrainConfig:
    values = {
        "model": {
            "name": "toy",
            "network": {"kind": "toy", "levels": ["L1", "L2"]},
            "preprocess": {"spacing_mm": 4.0},
            "inference": {"window": [16, 16, 16]},
        },
        "data": {
            "kind": "synthetic",
            "sources": [{"kind": "body", "bodies": "*_organs.nii.gz"}],
            "synthesis": {"cache_spacing_mm": 4.0},
        },
        "loss": {"kind": "squares", "scale": 2.0},
        "optimizer": {"learning_rate": 0.01},
        "patch": [16, 16, 16],
        "epochs": 1,
        "steps_per_epoch": 3,
        "workers": 0,
        **changes,
    }
    return parse_config(TrainConfig, values, "test")


def test_it_trains_exports_and_runs(bodies: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    import onnxruntime

    settings, run = config(), RunFolder(tmp_path / "run")
    train(settings, bodies, run, fabric=make_fabric(settings, "cpu"))
    assert len(run.rows()) == 1 and np.isfinite(run.rows()[0].loss)
    model = load_model(run.model)
    assert isinstance(model.config.network, ToyConfig) and isinstance(model.network, Toy)
    card = export_model(str(run.model), tmp_path / "onnx", "onnx")
    assert card["onnx"]["any_size"] and min(one["same_class"] for one in card["onnx"]["check"]) > 0.999
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    image = torch.rand(1, 1, 12, 8, 16)
    with torch.inference_mode():
        expected = model.network(image).numpy()
    np.testing.assert_allclose(session.run(None, {"image": image.numpy()})[0], expected, atol=1e-5)


def test_its_config_survives_a_dump() -> None:
    settings = config()
    dumped = settings.model_dump(mode="json")
    assert dumped["model"]["network"]["kernel"] == 3 and dumped["loss"]["scale"] == 2.0
    assert TrainConfig.model_validate(dumped) == settings
    assert TrainConfig.model_validate_json(settings.model_dump_json()) == settings
    assert isinstance(build_network(settings.model.network), Toy)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"patch": [16, 16, 18]}, "must be multiples of 4"),
        ({"loss": {"kind": "squares", "scael": 1}}, r"loss\.scael = 1: Extra inputs"),
        ({"loss": {"kind": "cubes"}}, "unknown kind of loss 'cubes'; known kinds: dice_ce, squares"),
    ],
)
def test_its_faults_are_named(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config(**changes)


@pytest.mark.parametrize("kind", ["vnet", None, ["toy"]])
def test_an_unknown_network_is_refused_with_the_known_ones(kind: object) -> None:
    with pytest.raises(ConfigError, match=r"unknown kind of network .*; known kinds: resunet, swinunetr, toy, unet"):
        parse_config(ModelConfig, {"name": "x", "network": {"kind": kind, "levels": ["L1"]}}, "test")


def test_a_kind_is_registered_once() -> None:
    with pytest.raises(ConfigError, match="network 'toy' is already registered"):
        register_network(ToyConfig, Toy)


def test_an_encoder_rate_needs_an_encoder(bodies: Path, tmp_path: Path) -> None:
    settings = config(optimizer={"encoder_rate": 0.1})
    with pytest.raises(ConfigError, match=r"optimizer\.encoder_rate 0\.1: this network has no encoder"):
        train(settings, bodies, RunFolder(tmp_path), fabric=make_fabric(settings, "cpu"))


def test_shipped_cards_load_unchanged() -> None:
    for folder in shipped_models().values():
        card = read_card(folder)
        assert card.config.model_dump(mode="json") == card.values["config"]
        assert list(card.config.network.model_dump()) == list(card.values["config"]["network"])


def test_a_change_is_validated() -> None:
    settings = config()
    assert changed(settings, epochs=2).epochs == 2 and changed(settings, epochs=1) == settings
    with pytest.raises(ConfigError, match=r"epochs = 0: Input should be greater than or equal to 1"):
        changed(settings, epochs=0)
    with pytest.raises(ConfigError, match="epoch = 2: Extra inputs"):
        changed(settings, epoch=2)
    with pytest.raises(ConfigError, match="must be multiples of 4"):
        changed(settings, patch=(16, 16, 18))
