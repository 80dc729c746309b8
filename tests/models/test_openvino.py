import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vertebral.core.errors import ConfigError, ModelError, VertebralError
from vertebral.models import load as loading
from vertebral.models.backends import agreement
from vertebral.models.backends import openvino as openvino_network
from vertebral.models.backends.agreement import Agreement
from vertebral.models.backends.openvino import cache_folder
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.load import load_models
from vertebral.models.networks import UNetConfig, build_network
from vertebral.models.weights import save_model
from vertebral.workflows.config import RunConfig

needs_openvino = pytest.mark.skipif(not openvino_network.is_installed(), reason="OpenVINO is not installed")
CONFIG = ModelConfig(
    name="tiny",
    network=UNetConfig(levels=("T12", "L1"), offsets=True, channels=(4, 8), strides=(2,), residual_units=1),
    inference=InferenceConfig(window=(16, 16, 32)),
    refiner="tiny-refiner",
)
REFINER = ModelConfig(
    name="tiny-refiner",
    network=UNetConfig(levels=("spine",), guided=True, channels=(2, 4), strides=(2,), residual_units=0, kind="unet"),
    inference=InferenceConfig(window=(16, 16, 16)),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VERTEBRAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for config in (CONFIG, REFINER):
        save_model(root / config.name, config, build_network(config.network).state_dict(), {"licence": "CC0-1.0"})
    return root


@needs_openvino
def test_same_output_as_pytorch_at_any_size(models: Path) -> None:
    ours = load_models(RunConfig(model=str(models / "tiny"), device="cpu"))
    theirs = load_models(RunConfig(model=str(models / "tiny"), device="cpu", backend="torch"))
    assert (ours.backend, theirs.backend) == ("openvino", "torch")
    assert ours.coarse.sha256 == theirs.coarse.sha256 and ours.coarse.licence == "CC0-1.0"
    assert ours.coarse.config == theirs.coarse.config and ours.coarse.provenance == theirs.coarse.provenance
    assert ours.refiner is not None and theirs.refiner is not None
    for mine, other, channels in ((ours.coarse, theirs.coarse, 1), (ours.refiner, theirs.refiner, 2)):
        for shape in ((1, channels, 16, 16, 32), (2, channels, 32, 16, 18)):
            image = torch.rand(shape)
            with torch.inference_mode():
                expected = other.network(image).numpy()
            # Not bit by bit: OpenVINO orders sums in its own way, and normalises with its own rounding.
            np.testing.assert_allclose(mine.network(image).numpy(), expected, atol=1e-3 * np.abs(expected).max())


@needs_openvino
def test_a_network_is_converted_once(models: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig(model=str(models / "tiny"), device="cpu")
    load_models(config)
    assert len(list(cache_folder().iterdir())) == 2 and cache_folder().parent == cache
    monkeypatch.setattr(loading, "load_model", None)  # would be needed to convert
    load_models(config)
    for folder in cache_folder().iterdir():
        (folder / "network.xml").write_text("damaged")
    with pytest.raises(TypeError):
        load_models(config)
    monkeypatch.undo()
    monkeypatch.setenv("VERTEBRAL_CACHE", str(cache))
    assert load_models(config).backend == "openvino"


@needs_openvino
def test_a_cache_that_cannot_be_written_is_done_without(models: Path, cache: Path) -> None:
    cache.write_text("a file")
    assert load_models(RunConfig(model=str(models / "tiny"), device="cpu")).backend == "openvino"
    assert cache.read_text() == "a file"


@needs_openvino
def test_another_class_than_pytorchs_is_refused(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_compare", lambda *_: Agreement((1, 1, 8, 8, 8), 0.998, 1.0))
    asked = RunConfig(model=str(models / "tiny"), device="cpu", backend="openvino")
    with pytest.raises(VertebralError, match=r"PyTorch give different classes in 0\.20%.*--backend torch"):
        load_models(asked)
    models_found = load_models(asked.model_copy(update={"backend": "auto"}))
    assert models_found.backend == "torch"
    assert len(models_found.notes) == 1 and models_found.notes[0].startswith(
        "PyTorch was used instead of OpenVINO: model tiny"
    )


def test_openvino_has_to_be_there(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_network, "is_installed", lambda: False)
    with pytest.raises(ConfigError, match=r"pip install 'vertebral\[openvino\]'"):
        load_models(RunConfig(model=str(models / "tiny"), device="cpu", backend="openvino"))
    assert load_models(RunConfig(model=str(models / "tiny"), device="cpu")).backend == "torch"


def test_openvino_is_for_the_cpu(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_network, "is_installed", lambda: True)
    monkeypatch.setattr(loading, "choose_device", lambda name: torch.device("cuda"))
    with pytest.raises(ConfigError, match="--device cpu"):
        load_models(RunConfig(model=str(models / "tiny"), backend="openvino"))
    assert load_models(RunConfig(model=str(models / "tiny"))).backend == "torch"


def test_bad_models_are_named(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot find vertebrae on its own"):
        load_models(RunConfig(model=str(models / "tiny-refiner"), device="cpu"))
    copy = tmp_path / "tiny"
    shutil.copytree(models / "tiny", copy)
    (copy / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="damaged, or of another model"):
        load_models(RunConfig(model=str(copy), device="cpu"))


@needs_openvino
def test_nothing_is_reported_to_anybody(models: Path, tmp_path: Path) -> None:
    """OpenVINO reports its import and its conversions to a server; here it must not, nor start a process for it."""
    code = (
        "import os, sys; forks = []; os.register_at_fork(before=lambda: forks.append(1));"
        "from vertebral.models.config import ModelsConfig; from vertebral.models.load import load_models;"
        f"found = load_models(ModelsConfig(model={str(models / 'tiny')!r}, device='cpu', backend='openvino'));"
        "print(found.backend, forks, [name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    home = {**os.environ, "HOME": str(tmp_path), "VERTEBRAL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "openvino [] []"
    assert not (tmp_path / "intel").exists()
