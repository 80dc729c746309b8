import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ModelError
from vertebral.models.cards import check_weights, count_parameters, imported_models, read_card, shipped_models
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.networks import SwinUNETRConfig, UNetConfig, build_network
from vertebral.models.weights import load_model, load_refiner, save_model
from vertebral.training.config import TrainConfig

CONFIG = ModelConfig(
    name="tiny",
    network=UNetConfig(levels=("L1", "L6", "sacrum"), channels=(4, 8), strides=(2,), residual_units=1),
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


def supervised() -> ModelConfig:
    """A network with what only training needs."""
    network = UNetConfig(levels=("L1",), channels=(4, 8, 8), strides=(2, 2), residual_units=1, deep_supervision=1)
    return CONFIG.model_copy(update={"network": network.model_copy(update={"activation_checkpointing": True})})


def test_heads_that_only_training_uses_stay_behind(tmp_path: Path) -> None:
    config = supervised()
    state = build_network(config.network).state_dict()
    assert any("auxiliary" in name for name in state)
    save_model(tmp_path, config, state, {})
    model = load_model(tmp_path)
    assert (model.config.network.deep_supervision, model.config.network.activation_checkpointing) == (0, False)
    assert model.network.state_dict().keys() == {name for name in state if "auxiliary" not in name}
    assert read_card(tmp_path).config == model.config


def test_whole_numbers_are_not_halved(tmp_path: Path) -> None:
    """Half precision holds no 2049; Swin's table of positions goes up to 2196."""
    network = SwinUNETRConfig(
        kind="swinunetr", levels=("L1",), feature_size=12, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1)
    )
    config = CONFIG.model_copy(update={"network": network})
    state = build_network(network).state_dict()
    tables = {name: value for name, value in state.items() if not value.is_floating_point()}
    assert max(int(value.max()) for value in tables.values()) == 13**3 - 1
    save_model(tmp_path, config, state, {})
    loaded = load_model(tmp_path).network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in tables.items())
    parameters = sum(value.numel() for value in state.values() if value.is_floating_point())
    assert count_parameters(tmp_path / "weights.safetensors") == parameters


def test_an_unknown_model_is_named_with_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERTEBRAL_MODELS", str(tmp_path / "none"))
    monkeypatch.setattr("vertebral.models.cards.shipped_models", lambda: {"default": tmp_path, "fast": tmp_path})
    expected = r"model 'defualt': neither a shipped model \(default, fast\), nor an imported one \(none\), nor a folder"
    with pytest.raises(ModelError, match=expected):
        load_model("defualt")
    monkeypatch.setattr("vertebral.models.cards.shipped_models", dict)
    with pytest.raises(ModelError, match=r"neither a shipped model \(none\)"):
        load_model(str(tmp_path))


def test_a_shipped_model_goes_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vertebral.models.cards.shipped_models", lambda: {"default": folder})
    assert load_model("default").config == CONFIG
    with pytest.raises(ModelError, match="check the name"):
        load_model(Path("default"))


def test_an_imported_model_goes_by_its_name_but_never_hides_a_shipped_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERTEBRAL_MODELS", str(tmp_path / "mine"))
    for name in ("hospital", "default", ".partial-0"):
        shutil.copytree(folder, tmp_path / "mine" / name)
    assert imported_models() == {"hospital": tmp_path / "mine" / "hospital"}
    assert load_model("hospital").config == CONFIG
    assert load_model("default").config != CONFIG


def test_shipped_models_are_folders_with_a_config() -> None:
    assert all((folder / "model.json").is_file() for folder in shipped_models().values())


def test_a_run_folder_stands_for_its_model(folder: Path) -> None:
    assert folder.name == "model"
    assert load_model(folder.parent).sha256 == load_model(folder).sha256


def checkpoint(path: Path, config: ModelConfig, **changes: object) -> dict[str, torch.Tensor]:
    """Write what a training run does; return the weights of its network."""
    torch.manual_seed(1)
    run = TrainConfig.model_validate(
        {
            "model": config.model_dump(mode="json"),
            "licence": "CC0",
            "data": {"kind": "scans"},
            "patch": (16, 16, 16),
        }
    )
    state = build_network(config.network).state_dict()
    facts = {"config": run.model_dump(mode="json"), "metrics": {"dice_levels": 0.5}, "phase": 1, "epoch": 7, "step": 70}
    content = {
        "state_dict": {f"network.{name}": value for name, value in state.items()},
        "optimizer": {"state": {}},
        "vertebral": facts,
        **changes,
    }
    torch.save(content, path)
    return state


def test_a_checkpoint_is_a_model_in_full_precision(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    state = checkpoint(path, supervised())
    model = load_model(str(path))
    assert model.config.network.deep_supervision == 0
    assert all(torch.equal(value, state[name]) for name, value in model.network.state_dict().items())
    assert model.licence == "CC0"
    assert {key: model.provenance[key] for key in ("phase", "epoch", "step")} == {"phase": 1, "epoch": 7, "step": 70}
    assert model.provenance["metrics"] == {"dice_levels": 0.5}
    assert model.provenance["training"]["model"]["network"]["deep_supervision"] == 1
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not model.network.training


@pytest.mark.parametrize(
    "changes",
    [{"vertebral": {}}, {"vertebral": 3}, {"vertebral": {"config": {}}}, {"state_dict": [1]}],
    ids=["no config", "no facts", "a bad config", "no state"],
)
def test_a_foreign_checkpoint_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    checkpoint(tmp_path / "a.ckpt", CONFIG, **changes)
    with pytest.raises(ModelError, match=r"a\.ckpt: damaged, or not a checkpoint of `vertebral train`"):
        load_model(tmp_path / "a.ckpt")


@pytest.mark.parametrize("content", [b"", b"text", b"PK"])
def test_a_damaged_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(ModelError, match="damaged, or not a checkpoint"):
        load_model(tmp_path / "a.ckpt")


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


def test_a_checkpoint_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(tmp_path / "a.ckpt", CONFIG, extra=Harmful())
    with pytest.raises(ModelError, match="damaged, or not a checkpoint"):
        load_model(tmp_path / "a.ckpt")
    assert capsys.readouterr().out == ""


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "a.ckpt", CONFIG, state_dict={"network.head.weight": torch.zeros(3)})
    with pytest.raises(ModelError, match=r"a\.ckpt: the weights do not fit"):
        load_model(tmp_path / "a.ckpt")


def test_an_onnx_export_is_told_from_a_damaged_model(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    (folder / "model.json").write_text(json.dumps({**card(folder), "onnx": {"file": "model.onnx"}}), encoding="utf-8")
    with pytest.raises(ModelError, match="holds an ONNX export"):
        load_model(folder)


def test_parameters_are_counted_without_loading(folder: Path, network: torch.nn.Module) -> None:
    assert count_parameters(folder / "weights.safetensors") == sum(p.numel() for p in network.parameters())
    assert check_weights(read_card(folder)) == card(folder)["sha256"]
    (folder / "weights.safetensors").write_bytes(b"12")
    with pytest.raises(ModelError, match="incomplete or damaged"):
        count_parameters(folder / "weights.safetensors")


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "text"])
def test_a_damaged_weights_file_is_refused(folder: Path, damage: str) -> None:
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"truncated": content[:-40], "empty": b"", "text": b"version https://git-lfs"}[damage])
    with pytest.raises(ModelError, match="incomplete or damaged" if damage == "missing" else "damaged, or of another"):
        load_model(str(folder))


def test_a_weights_file_of_another_kind_is_refused(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"pickled")
    digest = hashlib.sha256(b"pickled").hexdigest()
    (folder / "model.json").write_text(json.dumps({**card(folder), "sha256": digest}), encoding="utf-8")
    with pytest.raises(ModelError, match="incomplete or damaged"):
        load_model(folder)


def test_a_changed_byte_is_found_by_the_hash(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.safetensors: sha256 .* is not the .* in its model\.json"):
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


REFINER = CONFIG.model_copy(
    update={"name": "fine", "network": UNetConfig(levels=("spine",), guided=True, channels=(4, 8), strides=(2,))}
)
REFINED = CONFIG.model_copy(update={"refiner": "fine"})


def save(folder: Path, config: ModelConfig) -> Path:
    save_model(folder, config, build_network(config.network).state_dict(), {})
    return folder


def test_a_refiner_lies_beside_its_model_or_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder beside the model goes before an imported model of that name."""
    monkeypatch.setenv("VERTEBRAL_MODELS", str(tmp_path / "imported"))
    coarse = save(tmp_path / "here" / "coarse", REFINED)
    imported = save(tmp_path / "imported" / "fine", REFINER)
    found = load_refiner(coarse, REFINED)
    assert found is not None and found.sha256 == read_card(imported).values["sha256"]
    beside = save(tmp_path / "here" / "fine", REFINER)
    found = load_refiner(str(coarse), REFINED)
    assert found is not None and found.sha256 == read_card(beside).values["sha256"]
    assert found.config.network.input_count == 2


def test_most_models_have_no_refiner(folder: Path) -> None:
    assert load_refiner(folder, CONFIG) is None


def test_a_refiner_that_is_missing_or_none_is_refused(tmp_path: Path) -> None:
    coarse = save(tmp_path / "coarse", REFINED)
    with pytest.raises(ModelError, match=r"model tiny: its refiner 'fine' .*--no-refine"):
        load_refiner(coarse, REFINED)
    save(tmp_path / "fine", CONFIG)
    with pytest.raises(ModelError, match="is not a guided network"):
        load_refiner(coarse, REFINED)
