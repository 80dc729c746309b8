import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli_result import assert_one_line
from vertebral.cli import app
from vertebral.core.config import PreprocessConfig, load_config
from vertebral.data.patches.scan_patches import ScanPatches
from vertebral.data.verse import prepare
from vertebral.data.verse.catalogue import load_catalogue
from vertebral.data.verse.index import index_dataset
from vertebral.data.verse.prepared_set import open_prepared
from vertebral.data.verse.split import load_split, make_split, write_split
from vertebral.training.config import TrainConfig

CONFIG = """
model:
  name: tiny
  network: {kind: resunet, levels: [T11, T12, L1, L2, L3], channels: [4, 8], strides: [2]}
  preprocess: {spacing_mm: 4, window_hu: [-200, 800]}
  inference: {window: [32, 32, 32]}
data: {kind: scans}
patch: [32, 32, 32]
"""


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["data", "prepare", *(str(word) for word in words)], env={"COLUMNS": "200"})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path / "tiny.yaml"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, make_verse: Any) -> Path:
    """Four subjects with five scans; its catalogue is made by the first who asks."""
    root = tmp_path_factory.mktemp("verse")
    make_verse(root, 4)
    return root


def test_a_data_folder_becomes_what_training_reads(dataset: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    (dataset / "catalog.json").unlink(missing_ok=True)
    result = invoke(dataset, "--out", out, "--config", config, "--jobs", 1)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"scans: 5\n{out}\n"
    assert "indexed (5/5)" in result.stderr and "(5/5)" in result.stderr.splitlines()[-1]
    made = open_prepared(out)
    assert made.preprocess == PreprocessConfig(spacing_mm=4, window_hu=(-200, 800))
    catalogue = load_catalogue(dataset / "catalog.json")
    assert made.catalog_sha256 == catalogue.sha256
    assert made.split == load_split(out / "split.json", catalogue) == make_split(catalogue, "random", 0.2, seed=0)
    train, validation = made.fold(0)
    assert len(train) + len(validation) == 5 and len({scan.subject for scan in validation}) == 1
    for scan in made.cases:
        assert (
            scan.spacing_mm == 4 and int(scan.ct.min()) == -200 and set(scan.levels) <= {"T11", "T12", "L1", "L2", "L3"}
        )
    image, classes = ScanPatches(train, load_config(TrainConfig, config))[0]
    assert image.shape == (1, 32, 32, 32) and classes.max() > 0


def test_a_catalogue_and_a_split_of_ones_own(dataset: Path, config: Path, tmp_path: Path) -> None:
    catalogue = index_dataset(dataset, tmp_path / "own.json", jobs=1)
    split = make_split(catalogue, "folds", folds=3, seed=4)
    write_split(split, tmp_path / "folds.json")
    words = (tmp_path / "own.json", "--out", tmp_path / "out", "--config", config, "--jobs", 1)
    result = invoke(*words, "--split", tmp_path / "folds.json", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"out": str(tmp_path / "out"), "scans": 5, "left_out": {}, "unused": []}
    assert open_prepared(tmp_path / "out").split == split
    assert not (tmp_path / "out" / "split.json").exists()


def test_how_to_split_is_passed_on(dataset: Path, config: Path, tmp_path: Path) -> None:
    words = ("--mode", "folds", "--folds", 4, "--seed", 7, "--validation", 0.3, "--jobs", 1, "--quiet")
    result = invoke(dataset, "--out", tmp_path / "out", "--config", config, *words)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    split = open_prepared(tmp_path / "out").split
    assert (split.mode, split.seed, len(split.folds)) == ("folds", 7, 4)


def test_what_was_left_out_and_what_is_not_used_is_said(dataset: Path, config: Path, tmp_path: Path) -> None:
    index_dataset(dataset, tmp_path / "own.json", jobs=1)
    words = (tmp_path / "own.json", "--out", tmp_path / "out", "--config", config, "--jobs", 1)
    assert invoke(*words).exit_code == 0
    config.write_text(CONFIG.replace("800", "700"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "read_scan", lambda path, real=prepare.read_scan: real(_not_504(path)))
        result = invoke(*words)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "left out: 1" and lines[1].startswith("  sub-gl004") and lines[1].endswith("RuntimeError: no")
    assert lines[2] == f"{tmp_path / 'out' / 'cases'}: 5 folders are from other settings and can be deleted"
    assert lines[3:] == ["scans: 4", str(tmp_path / "out")]


def _not_504(path: Path) -> Path:
    if "gl004" in path.name:
        raise RuntimeError("no")
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "nowhere"}, "no such folder or catalogue"),
        ({"--config": "nothing"}, "nothing: no such config file"),
        ({"--split": "nothing.json"}, "nothing.json: no such file"),
        ({"--mode": "dice"}, "--mode dice: use random"),
        ({"--out": "tiny.yaml"}, "is a file; give a folder"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(
    dataset: Path, config: Path, tmp_path: Path, changes: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if not (dataset / "catalog.json").exists():
        index_dataset(dataset, dataset / "catalog.json", jobs=1)
    options = {"dataset": str(dataset), "--out": "out", "--config": str(config), **changes}
    words = [options.pop("dataset"), *(word for pair in options.items() for word in pair)]
    assert_one_line(invoke(*words), said)


def test_help_has_an_example_and_starts_without_torch() -> None:
    result = invoke("--help")
    assert result.exit_code == 0 and "vertebral data prepare verse --out prepared" in result.stdout
    code = "import sys, vertebral.cli, vertebral.data.verse.prepare; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
