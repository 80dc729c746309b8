import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from vertebral.cli import app
from vertebral.core.volume import Volume
from vertebral.io.write import write_labels


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


@pytest.fixture
def label_map(tmp_path: Path) -> Path:
    """L1 and L2 as cubes at 4 mm."""
    labels = np.zeros((14, 14, 22), np.uint8)
    labels[3:11, 5:12, 12:20] = 20
    labels[3:11, 5:12, 2:10] = 21
    path = tmp_path / "case_seg-vert_msk.nii.gz"
    write_labels(Volume(labels, np.diag([4.0, 4.0, 4.0, 1.0])), path)
    return path


def test_a_set_is_made_and_found_by_data_index(label_map: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    result = invoke("synth", label_map, "--out", out, "--n", 2, "--spacing-mm", 4)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(out)
    assert "case-0001_ct.nii.gz (1/2)" in result.stderr
    found = invoke("data", "index", out, "--json")
    assert found.exit_code == 0, found.stderr
    catalog = json.loads((out / "catalog.json").read_text())
    assert "case-0002" in json.dumps(catalog)
    again = invoke("synth", label_map, "--out", out, "--n", 2, "--spacing-mm", 4, "--json")
    assert json.loads(again.stdout) == {"out": str(out), "pairs": 2, "made": 0, "notes": str(out / "synth.json")}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--spacing-mm", 9), "--spacing-mm 9: choose 0.5 to 4"),
        (("--config", "resunet"), "resunet: its data.kind is scans; give a config with data.kind synthetic"),
        (("--bodies", "nowhere"), "--bodies nowhere: no label map with a JSON file of names"),
        (("--levels", "L1-C3"), "is reversed"),
        (("--levels", "C1", "--spacing-mm", 4), "contains none of the requested levels"),
        (("--set", "data.synthesis.findings.arms_probability=3"), "arms_probability = 3"),
    ],
)
def test_bad_options_are_one_line(label_map: Path, tmp_path: Path, options: tuple[object, ...], says: str) -> None:
    result = invoke("synth", label_map, "--out", tmp_path / "set", "--n", 1, *options)
    assert result.exit_code == 2
    assert result.stdout == "" and says in result.stderr
    assert result.stderr.startswith("vertebral: ") and result.stderr.count("\n") == 1


def test_a_file_in_the_way_of_the_folder(label_map: Path, tmp_path: Path) -> None:
    result = invoke("synth", label_map, "--out", label_map)
    assert result.exit_code == 2 and "is a file; give a folder as --out" in result.stderr
    result = invoke("synth", tmp_path / "nowhere", "--out", tmp_path / "set")
    assert result.exit_code == 2 and "nowhere: no label map found" in result.stderr


def test_help_says_that_body_maps_give_better_context() -> None:
    result = invoke("synth", "--help")
    assert result.exit_code == 0 and "better context" in result.stdout
