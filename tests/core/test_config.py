import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import vertebral
from vertebral.core.config import PreprocessConfig, load_config, parse_config
from vertebral.core.errors import ConfigError
from vertebral.data.patches.config import ScansConfig
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.networks import UNetConfig
from vertebral.training.config import OptimizerConfig, TrainConfig

CONFIGS = Path(vertebral.__file__).parent / "training" / "configs"
MODEL = ModelConfig(
    name="small",
    network=UNetConfig(levels=("L1", "L2"), channels=(8, 16), strides=(2,)),
    preprocess=PreprocessConfig(spacing_mm=2.5, scaling="zscore", mean_hu=200, std_hu=100),
    inference=InferenceConfig(window=(80, 80, 128)),
)


def test_round_trip_through_json_and_yaml(tmp_path: Path) -> None:
    assert ModelConfig.model_validate_json(MODEL.model_dump_json()) == MODEL
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(json.loads(MODEL.model_dump_json())), encoding="utf-8")
    assert load_config(ModelConfig, path) == MODEL


def test_an_unknown_key_is_an_error_that_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "pre.yaml"
    path.write_text("spacing: 1.0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"pre\.yaml: spacing = 1.0: Extra inputs"):
        load_config(PreprocessConfig, path)


def test_a_nested_key_is_named_with_its_path() -> None:
    values = {"name": "x", "network": {"kind": "resunet", "levels": ["L1"], "depth": 4}}
    with pytest.raises(ConfigError, match=r"here: network\.depth"):
        parse_config(ModelConfig, values, "here")


@pytest.mark.parametrize("text", ["a: [1, 2", "- 1\n- 2\n", "", "just text"])
def test_what_is_no_yaml_mapping_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(UNetConfig, path)


def test_missing_and_binary_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config"):
        load_config(PreprocessConfig, tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a readable YAML"):
        load_config(PreprocessConfig, tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="not a readable YAML"):
        load_config(PreprocessConfig, tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"spacing_mm": 0},
        {"spacing_mm": -1},
        {"std_hu": 0},
        {"window_hu": [100, 100]},
        {"window_hu": [1000, -100]},
        {"window_hu": [0, 1, 2]},
        {"scaling": "minmax"},
    ],
)
def test_preprocess_bounds(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        parse_config(PreprocessConfig, values, "test")


@pytest.mark.parametrize("overlap", [-0.1, 1.0])
def test_overlap_bounds(overlap: float) -> None:
    with pytest.raises(ConfigError, match="overlap"):
        parse_config(InferenceConfig, {"overlap": overlap}, "test")


@pytest.mark.parametrize(
    "values",
    [
        {"levels": ["L1"], "strides": [2]},
        {"levels": ["L1", "L1"]},
        {"levels": ["L7"]},
        {"levels": ["L1"], "residual_units": -1},
        {"levels": ["L1"], "kind": "vnet"},
        {"levels": ["L1"], "kind": "unet"},
        {"levels": ["L1"], "residual_units": 0},
        {"levels": ["L1", "spine"]},
        {"levels": []},
        {"levels": ["L1"], "deep_supervision": 4},
    ],
)
def test_network_consistency(values: dict[str, object]) -> None:
    with pytest.raises((ConfigError, ValidationError)):
        parse_config(UNetConfig, values, "test")


def test_class_count_includes_background() -> None:
    assert MODEL.network.class_count == 3


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        MODEL.preprocess.spacing_mm = 3.0  # type: ignore[misc]


@pytest.mark.parametrize("name", ["unet", "resunet", "swinunetr", "default"])
def test_shipped_configs_are_valid(name: str) -> None:
    config = load_config(TrainConfig, CONFIGS / f"{name}.yaml")
    assert config.model.name == name
    assert config.model.network.kind == {"default": "resunet"}.get(name, name)


@pytest.mark.parametrize(
    ("name", "batch", "monitor"), [("unet", 8, "dice"), ("resunet", 8, "loss"), ("swinunetr", 2, "dice")]
)
def test_the_recipes_are_the_reports(name: str, batch: int, monitor: str) -> None:
    config = load_config(TrainConfig, CONFIGS / f"{name}.yaml")
    assert config.patch == config.model.inference.window == (160, 160, 160)
    assert config.model.inference.overlap == 0.25
    assert config.model.preprocess == PreprocessConfig(spacing_mm=1, window_hu=(-100, 1000), scaling="unit")
    assert isinstance(config.data, ScansConfig) and config.data.bone_centred == 0.5
    assert (config.batch, config.epochs, config.phases) == (batch, 50, 2)
    assert config.optimizer == OptimizerConfig(learning_rate=1e-4, weight_decay=1e-5)
    assert (config.validation.monitor, config.validation.patience) == (monitor, 5)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"patch": [160, 160, 150]}, "patch"),
        ({"data": {"kind": "synthetic", "sources": [{"kind": "body", "bodies": "*"}]}}, "steps_per_epoch"),
        ({"data": {"kind": "films"}}, "films"),
        ({"epochs": 0}, "epochs = 0"),
    ],
)
def test_a_run_that_cannot_be_is_refused(changes: dict[str, object], part: str) -> None:
    values = yaml.safe_load((CONFIGS / "resunet.yaml").read_text())
    with pytest.raises(ConfigError, match=part):
        parse_config(TrainConfig, {**values, **changes}, "test")


def test_a_window_that_does_not_fit_the_network_is_refused() -> None:
    values = yaml.safe_load((CONFIGS / "resunet.yaml").read_text())
    values["model"]["inference"]["window"] = [100, 160, 160]
    with pytest.raises(ConfigError, match=r"model\.inference\.window \(100, 160, 160\): sizes must be multiples of 16"):
        parse_config(TrainConfig, values, "test")


def test_changes_reach_nested_keys(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(json.loads(MODEL.model_dump_json())), encoding="utf-8")
    changed = load_config(
        ModelConfig, path, ["preprocess.spacing_mm=1.5", "name = other", "inference.window=[32,32,64]"]
    )
    assert (changed.preprocess.spacing_mm, changed.name, changed.inference.window) == (1.5, "other", (32, 32, 64))
    assert changed.network == MODEL.network


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("name", "write it as key=value"),
        ("name.first=x", "write it as key=value"),
        ("nome=x", "nome = 'x': Extra inputs"),
        ("preprocess.spacing_mm=-1", r"preprocess\.spacing_mm = -1"),
        ("name=[1", "its value is not valid YAML"),
    ],
)
def test_a_change_that_cannot_be_is_refused(tmp_path: Path, change: str, part: str) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(json.loads(MODEL.model_dump_json())), encoding="utf-8")
    with pytest.raises(ConfigError, match=part):
        load_config(ModelConfig, path, [change])


def test_guided_networks_refine_any_vertebra() -> None:
    assert UNetConfig(levels=("spine",), guided=True).input_count == 2 and MODEL.network.input_count == 1
    with pytest.raises(ValidationError, match="guided"):
        UNetConfig(levels=("L1",), guided=True)
    with pytest.raises(ValidationError, match="guided"):
        UNetConfig(levels=("spine",), guided=True, offsets=True)
    refiner = {"name": "r", "network": {"kind": "resunet", "levels": ["spine"], "guided": True}, "refiner": "other"}
    with pytest.raises(ValidationError, match="refiner other"):
        ModelConfig.model_validate(refiner)


def test_the_refiners_recipe_fits_its_network() -> None:
    config = load_config(TrainConfig, CONFIGS / "refiner.yaml")
    assert config.model.network.guided and config.patch == config.model.inference.window
    assert config.data.kind == "vertebrae"
    assert config.data.synthesis.cache_spacing_mm == config.model.preprocess.spacing_mm
