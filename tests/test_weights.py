import hashlib
import json
from pathlib import Path

import pytest
import torch

from vertebral.config import InferenceConfig, ModelConfig, NetworkConfig, PreprocessConfig
from vertebral.errors import ModelError
from vertebral.model import build_network
from vertebral.weights import load_model, save_model, shipped_models

CONFIG = ModelConfig(
    name="tiny",
    network=NetworkConfig(levels=("L1", "L6", "sacrum"), channels=(4, 8), strides=(2,), residual_units=1),
    preprocess=PreprocessConfig(spacing_mm=2.5, window_hu=(-200, 800)),
    inference=InferenceConfig(window=(16, 16, 32), overlap=0.5),
)


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(CONFIG.network)


@pytest.fixture
def folder(tmp_path: Path, network: torch.nn.Module) -> Path:
    save_model(tmp_path / "model", CONFIG, network.state_dict(), {"licence": "CC0", "steps": 7})
    return tmp_path / "model"


def card(folder: Path) -> dict[str, object]:
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_what_is_saved_is_loaded_in_half_precision(folder: Path, network: torch.nn.Module) -> None:
    model = load_model(str(folder))
    state = model.network.state_dict()
    assert state.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], value.half().float())
    assert not model.network.training


def test_the_config_travels_with_the_weights(folder: Path) -> None:
    model = load_model(str(folder))
    assert model.config == CONFIG
    assert model.licence == "CC0"
    assert ModelConfig.model_validate(card(folder)["config"]) == CONFIG
    assert card(folder)["steps"] == 7


def test_the_hash_is_that_of_the_weights_file(folder: Path) -> None:
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    assert load_model(str(folder)).sha256 == digest == card(folder)["sha256"]


def test_saving_leaves_two_files_and_may_be_repeated(folder: Path, network: torch.nn.Module) -> None:
    before = (folder / "weights.safetensors").read_bytes()
    save_model(folder, CONFIG, network.state_dict(), {})
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert (folder / "weights.safetensors").read_bytes() == before
    assert load_model(str(folder)).licence == "unknown"


def test_channels_last_weights_are_saved_too(tmp_path: Path, network: torch.nn.Module) -> None:
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    save_model(tmp_path / "model", CONFIG, network.state_dict(), {})
    loaded = load_model(str(tmp_path / "model")).network.state_dict()
    assert all(torch.equal(loaded[name], value.half().float()) for name, value in network.state_dict().items())


def test_an_unknown_model_is_named_with_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vertebral.weights.shipped_models", lambda: {"default": tmp_path, "fast": tmp_path})
    with pytest.raises(ModelError, match=r"model 'defualt': neither a shipped model \(default, fast\) nor a folder"):
        load_model("defualt")
    monkeypatch.setattr("vertebral.weights.shipped_models", dict)
    with pytest.raises(ModelError, match=r"neither a shipped model \(none\)"):
        load_model(str(tmp_path))


def test_a_shipped_model_goes_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vertebral.weights.shipped_models", lambda: {"default": folder})
    assert load_model("default").config == CONFIG


def test_shipped_models_are_folders_with_a_config() -> None:
    assert all((folder / "model.json").is_file() for folder in shipped_models().values())


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "text"])
def test_a_damaged_weights_file_is_refused(folder: Path, damage: str) -> None:
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"truncated": content[:-40], "empty": b"", "text": b"version https://git-lfs"}[damage])
    with pytest.raises(ModelError, match="incomplete or damaged"):
        load_model(str(folder))


def test_a_changed_byte_is_found_by_the_hash(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.safetensors: sha256 .* is not the .* of its model\.json"):
        load_model(str(folder))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": 3}', '{"config": {"name": "tiny"}}', "null"])
def test_a_damaged_card_is_refused(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="incomplete or damaged"):
        load_model(str(folder))


def test_a_card_without_a_hash_is_refused(folder: Path) -> None:
    values = card(folder)
    del values["sha256"]
    (folder / "model.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ModelError, match="is not the None"):
        load_model(str(folder))


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    other = CONFIG.model_copy(update={"network": CONFIG.network.model_copy(update={"levels": ("L1",)})})
    (folder / "model.json").write_text(
        json.dumps({**card(folder), "config": other.model_dump(mode="json")}), encoding="utf-8"
    )
    with pytest.raises(ModelError, match="do not fit the network"):
        load_model(str(folder))
