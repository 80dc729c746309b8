"""The `models` commands: names and places, cards, import and export."""

import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vertebral.cli import app
from vertebral.core.errors import ConfigError, VertebralError
from vertebral.models.backends import agreement
from vertebral.models.backends import onnx as onnx_export
from vertebral.models.backends.onnx import export_onnx
from vertebral.models.cards import models_folder
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.exchange import export_model
from vertebral.models.networks import SwinUNETRConfig, UNetConfig, build_network
from vertebral.models.weights import Model, load_model, save_model
from vertebral.training.config import TrainConfig

CONFIG = ModelConfig(
    name="tiny",
    network=UNetConfig(kind="unet", levels=("L1", "L2"), channels=(2, 4), strides=(2,), residual_units=0, offsets=True),
    inference=InferenceConfig(window=(8, 8, 8)),
)


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of imported models."""
    monkeypatch.setenv("VERTEBRAL_MODELS", str(tmp_path / "mine"))
    return tmp_path / "mine"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    provenance = {"licence": "CC0", "metrics": {"dice_levels": 0.8125}, "training": {"epochs": 3}}
    save_model(tmp_path / "run" / "model", CONFIG, build_network(CONFIG.network).state_dict(), provenance)
    return tmp_path / "run" / "model"


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["models", *(str(word) for word in words)], env={"COLUMNS": "200"})


def printed(*words: object) -> str:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def refused(*words: object) -> str:
    result = invoke(*words)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    return str(result.stderr)


def test_shipped_and_imported_models_are_listed(folder: Path, mine: Path) -> None:
    printed("import", folder, "--name", "hospital-a")
    (mine / "broken").mkdir()
    (mine / "broken" / "model.json").write_text("{")
    document = json.loads(printed("list", "--json"))
    rows = {row["name"]: row for row in document["models"]}
    size = sum(path.stat().st_size for path in (mine / "hospital-a").iterdir())
    assert rows["hospital-a"] == {
        "name": "hospital-a",
        "network": "unet",
        "levels": ["L1", "L2"],
        "spacing_mm": 1.0,
        "licence": "CC0",
        "origin": "imported",
        "path": str(mine / "hospital-a"),
        "bytes": size,
    }
    assert rows["default"]["origin"] == "shipped"
    assert len(document["damaged"]) == 1 and "broken" in document["damaged"][0]
    result = invoke("list")
    assert all(word in result.stdout for word in ("hospital-a", "unet", "2: L1 to L2", "1 mm", "CC0", "shipped"))
    assert "incomplete or damaged" in result.stderr


def test_the_list_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "vertebral.models.weights", "vertebral.models.networks"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "default" in printed("list")
    assert "CC BY-NC-SA" in printed("info", "default")


def test_a_card_is_shown(folder: Path) -> None:
    text = printed("info", folder.parent)
    network = build_network(CONFIG.network)
    count = sum(parameter.numel() for parameter in network.parameters())
    lines = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert lines["name"] == "tiny"
    assert lines["parameters"] == str(count)
    assert lines["levels"] == "L1, L2"
    assert lines["metrics"] == "dice_levels 0.8125"
    assert lines["where"] == str(folder)
    document = json.loads(printed("info", folder, "--json"))
    assert (document["parameters"], document["licence"], document["training"]) == (count, "CC0", {"epochs": 3})
    assert document["sha256"] == lines["sha256"] == load_model(folder).sha256
    assert ModelConfig.model_validate(document["config"]) == CONFIG


def checkpoint(path: Path) -> dict[str, torch.Tensor]:
    values = {"model": CONFIG.model_dump(mode="json"), "data": {"kind": "scans"}, "patch": (8, 8, 8), "licence": "CC0"}
    run = TrainConfig.model_validate(values)
    state = build_network(CONFIG.network).state_dict()
    facts = {"config": run.model_dump(mode="json"), "epoch": 3}
    torch.save({"state_dict": {f"network.{k}": v for k, v in state.items()}, "vertebral": facts}, path)
    return state


def test_a_checkpoint_can_be_shown_and_imported(tmp_path: Path, mine: Path) -> None:
    state = checkpoint(tmp_path / "best.ckpt")
    document = json.loads(printed("info", tmp_path / "best.ckpt", "--json"))
    assert (document["epoch"], document["origin"]) == (3, "given")
    printed("import", tmp_path / "best.ckpt", "--name", "mine")
    model = load_model("mine")
    assert (model.config.name, model.licence, model.provenance["epoch"]) == ("mine", "CC0", 3)
    halved = {name: value.half().float() for name, value in state.items()}
    assert all(torch.equal(value, halved[name]) for name, value in model.network.state_dict().items())


@pytest.mark.parametrize("form", ["folder", "run", "zip"])
def test_an_imported_model_has_the_same_weights_and_its_new_name(form: str, folder: Path, tmp_path: Path) -> None:
    source = {"folder": folder, "run": folder.parent, "zip": tmp_path / "out.zip"}[form]
    printed("export", folder, "--out", tmp_path / "out.zip")
    assert Path(printed("import", source, "--name", "mine").strip()) == models_folder() / "mine"
    assert (models_folder() / "mine" / "weights.safetensors").read_bytes() == (
        folder / "weights.safetensors"
    ).read_bytes()
    assert load_model("mine").config.name == "mine"
    assert load_model("mine").provenance["metrics"] == {"dice_levels": 0.8125}
    assert [path.name for path in models_folder().iterdir()] == ["mine"]


def test_a_taken_name_needs_overwrite(folder: Path, mine: Path) -> None:
    printed("import", folder, "--name", "mine")
    (mine / "mine" / "notes.txt").write_text("old")
    assert "add --overwrite" in refused("import", folder, "--name", "mine")
    assert printed("import", folder, "--name", "mine", "--overwrite", "--quiet") == ""
    assert {path.name for path in (mine / "mine").iterdir()} == {"model.json", "weights.safetensors"}
    assert [path.name for path in mine.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b", "x" * 65, "/tmp/a"])
def test_a_name_is_no_path(name: str, folder: Path, mine: Path) -> None:
    assert "letters, digits" in refused("import", folder, "--name", name)
    assert not mine.exists()


def test_a_shipped_name_is_not_given_away(folder: Path, mine: Path) -> None:
    assert "shipped model's name" in refused("import", folder, "--name", "default", "--overwrite")
    assert not mine.exists()


def test_a_failed_import_leaves_what_was_there(folder: Path, mine: Path, tmp_path: Path) -> None:
    printed("import", folder, "--name", "mine")
    (folder / "weights.safetensors").write_bytes(b"")
    assert "weights.safetensors" in refused("import", folder, "--name", "mine", "--overwrite")
    assert "no such file" in refused("import", tmp_path / "none", "--name", "other")
    assert load_model("mine").config.name == "mine"
    assert [path.name for path in mine.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["../model.json"], "points outside its folder"),
        (["/model.json"], "points outside its folder"),
        (["a.txt"], "holds 0 files named model.json"),
        (["a/model.json", "b/model.json"], "holds 2 files named model.json"),
        (["a/model.json"], "bad.zip/a: the model is incomplete"),
    ],
)
def test_a_bad_zip_is_refused(names: list[str], part: str, tmp_path: Path, mine: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    message = refused("import", tmp_path / "bad.zip", "--name", "mine")
    assert part in message and "bad.zip" in message
    assert not (mine / "mine").exists()
    (tmp_path / "no.zip").write_bytes(b"text")
    assert "not a zip file" in refused("import", tmp_path / "no.zip", "--name", "mine")


def test_an_export_is_a_model_folder_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert printed("export", folder, "--out", out).splitlines() == [
        str(out / "model.json"),
        str(out / "weights.safetensors"),
    ]
    assert load_model(out).sha256 == load_model(folder).sha256
    (out / "notes.txt").write_text("kept")
    assert "add --overwrite" in refused("export", folder, "--out", out)
    document = json.loads(printed("export", folder, "--out", out, "--overwrite", "--json"))
    assert document == {"files": [str(out / "model.json"), str(out / "weights.safetensors")]}
    assert {path.name for path in out.iterdir()} == {"model.json", "weights.safetensors", "notes.txt"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_the_same_model_gives_the_same_zip(folder: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        printed("export", folder, "--out", tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["model.json", "weights.safetensors"]


def test_an_export_goes_where_it_can(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.zip").mkdir()
    assert "give a folder" in refused("export", folder, "--out", tmp_path / "file", "--overwrite")
    assert "ends in .zip" in refused("export", folder, "--out", tmp_path / "folder.zip")
    assert "cannot be written" in refused("export", folder, "--out", tmp_path / "file" / "out")
    assert "--format jpeg: use" in refused("export", folder, "--out", tmp_path / "out", "--format", "jpeg")


def test_onnx_gives_what_pytorch_gives(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    text = printed("export", folder, "--out", tmp_path / "out", "--format", "onnx")
    assert "same class in 100.000% of voxels" in text
    facts = json.loads((tmp_path / "out" / "model.json").read_text())["onnx"]
    assert facts["output"]["channels"] == ["background", "L1", "L2", "offset R", "offset A", "offset S"]
    assert facts["input"]["shape"] == ["any", 1, *["a multiple of 2"] * 3]
    assert [one["shape"] for one in facts["check"]] == [[1, 1, 8, 8, 8], [2, 1, 6, 4, 4]]
    session = runtime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((3, 1, 10, 6, 12), np.float32)
    (found,) = session.run(None, {"image": image})
    with torch.inference_mode():
        expected = load_model(folder).network(torch.from_numpy(image)).numpy()
    assert np.abs(found - expected).max() < 1e-5
    assert "holds an ONNX export" in refused("import", tmp_path / "out", "--name", "mine")


def traced(config: ModelConfig, path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """The card of an export whose tracing is left out, and what the tracer was asked for."""
    asked: dict[str, Any] = {}

    def export(network: torch.nn.Module, images: tuple[torch.Tensor], file: Path, **options: Any) -> None:
        asked.update(options, image=images[0])
        file.write_bytes(b"onnx")

    monkeypatch.setattr(torch.onnx, "export", export)
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnxruntime" else object())
    network = torch.nn.Identity()
    return export_onnx(Model(config, network, "0", "CC0"), path), asked


def test_swin_unetr_is_exported_for_its_own_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = SwinUNETRConfig(kind="swinunetr", levels=("L1",), feature_size=12)
    config = ModelConfig(name="swin", network=network, inference=InferenceConfig(window=(64, 64, 96)))
    facts, asked = traced(config, tmp_path / "model.onnx", monkeypatch)
    assert (facts["any_size"], facts["input"]["shape"], facts["check"]) == (False, ["any", 1, 64, 64, 96], None)
    assert asked["image"].shape == (2, 1, 64, 64, 96)
    assert list(asked["dynamic_shapes"][0]) == [0]
    facts, asked = traced(CONFIG, tmp_path / "model.onnx", monkeypatch)
    assert facts["any_size"] and list(asked["dynamic_shapes"][0]) == [0, 2, 3, 4]


def test_a_failed_export_to_onnx_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    message = "needs onnx and onnxscript: pip install 'vertebral[onnx]'"
    assert message in refused("export", folder, "--out", tmp_path / "out", "--format", "onnx")
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: object())

    def fail(*_: object, **__: object) -> None:
        raise torch.onnx.errors.OnnxExporterError("an operator is unknown\nand more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(VertebralError, match=r"its unet cannot be exported to ONNX \(an operator is unknown\)"):
        export_model(str(folder), tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_an_export_that_differs_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_export, "_trace", lambda *given: Path(given[2]).write_bytes(b"onnx"))
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: None)
    compared = agreement.Agreement((1, 1, 8, 8, 8), 0.98, 0.5)
    monkeypatch.setattr(agreement, "_compare", lambda *_: compared)
    with pytest.raises(VertebralError, match=r"PyTorch give different classes in 2\.00% of voxels"):
        export_model(str(folder), tmp_path / "out.zip", "onnx")
    assert not (tmp_path / "out.zip").exists()


def test_the_user_s_models_live_in_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERTEBRAL_MODELS")
    assert models_folder().parts[-2:] == ("vertebral", "models")
    monkeypatch.setenv("VERTEBRAL_MODELS", "~/models")
    assert models_folder() == Path.home() / "models"


def test_a_format_is_one_of_two(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use safetensors or onnx"):
        export_model(str(folder), tmp_path, "ONNX")
    shutil.rmtree(folder)
    assert "neither a shipped model" in refused("export", folder, "--out", tmp_path / "out")
