import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from vertebral.config import InferenceConfig, ModelConfig, NetworkConfig, PreprocessConfig, load_config, parse_config
from vertebral.errors import ConfigError

MODEL = ModelConfig(
    name="small",
    network=NetworkConfig(levels=("L1", "L2"), channels=(8, 16), strides=(2,)),
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
    values = {"name": "x", "network": {"levels": ["L1"], "depth": 4}}
    with pytest.raises(ConfigError, match=r"here: network\.depth"):
        parse_config(ModelConfig, values, "here")


@pytest.mark.parametrize("text", ["a: [1, 2", "- 1\n- 2\n", "", "just text"])
def test_what_is_no_yaml_mapping_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(NetworkConfig, path)


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
    ],
)
def test_network_consistency(values: dict[str, object]) -> None:
    with pytest.raises((ConfigError, ValidationError)):
        parse_config(NetworkConfig, values, "test")


def test_class_count_includes_background() -> None:
    assert MODEL.network.class_count == 3


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        MODEL.preprocess.spacing_mm = 3.0  # type: ignore[misc]
