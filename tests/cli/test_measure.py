import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli_result import assert_one_line
from measure_solids import Vertebra, grid_around, painted, stacked
from vertebral.cli import app
from vertebral.core.volume import Volume
from vertebral.io.write import write_image, write_labels

TABLES = ("vertebrae", "gaps", "regions", "curves")


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["measure", *(str(word) for word in words)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the label map and the CT of two vertebrae, as `vertebral run` would leave it."""
    folder = tmp_path_factory.mktemp("result")
    bones = stacked([Vertebra("L2"), Vertebra("L3")], 9.0)
    labels = painted(bones, grid_around(bones, (1.5, 1.5, 1.5), np.eye(3)))
    write_labels(labels, folder / "a_seg-vert_msk.nii.gz")
    hu = np.where(labels.array > 0, 200.0, 40.0) + np.random.default_rng(0).normal(0, 10, labels.array.shape)
    hu[:4] = hu[-4:] = -1000
    write_image(Volume(hu, labels.affine), folder / "a_ct.nii.gz")
    (folder / "manifest.json").write_text('{"outputs": [{"file": "a_seg-vert_msk.nii.gz"}]}')
    return folder


def test_a_folder_of_results(case: Path, tmp_path: Path) -> None:
    result = invoke(case, "--out", tmp_path / "m")
    assert result.exit_code == 0
    names = {*(f"a_measure-{table}.csv" for table in TABLES), "a_measure.json"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == names
    with (tmp_path / "m" / "a_measure-vertebrae.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["L2", "L3"]
    assert float(rows[0]["height_middle_mm"]) == pytest.approx(27, abs=1)
    assert rows[0]["core_mean_hu_quality"] == "none: no CT was given"
    assert "Research use only" in json.loads((tmp_path / "m" / "a_measure.json").read_text())["disclaimer"]


def test_json_holds_everything(case: Path, tmp_path: Path) -> None:
    labels = case / "a_seg-vert_msk.nii.gz"
    result = invoke(labels, "--ct", case / "a_ct.nii.gz", "--out", tmp_path / "m", "--format", "json", "--json")
    assert result.exit_code == 0, result.stdout
    answer = json.loads(result.stdout)
    assert answer["files"] == ["a_measure.json"]
    assert answer["vertebrae"][0]["figures"]["core_mean_hu"]["value"] == pytest.approx(200, abs=2)


def test_parquet(case: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is an optional extra")
    assert invoke(case, "--out", tmp_path, "--format", "parquet", "--quiet").stdout == ""
    assert (tmp_path / "a_measure-gaps.parquet").stat().st_size > 0


def test_results_are_not_replaced_unasked(case: Path, tmp_path: Path) -> None:
    (tmp_path / "a_measure-gaps.csv").write_text("mine")
    assert_one_line(invoke(case, "--out", tmp_path), "a_measure-gaps.csv", "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["a_measure-gaps.csv"]
    assert invoke(case, "--out", tmp_path, "--overwrite", "--quiet").exit_code == 0
    assert (tmp_path / "a_measure-gaps.csv").read_text() != "mine"


def test_refusals(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    assert_one_line(invoke(case, "--out", out, "--format", "csv,xlsx"), "csv,xlsx", "csv, json, parquet")
    assert_one_line(invoke(tmp_path, "--out", out), "manifest.json")
    assert_one_line(invoke(tmp_path / "none.nii.gz", "--out", out), "no such file")
    assert not out.exists()


def test_parquet_is_refused_before_the_work(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert_one_line(invoke(case, "--out", tmp_path / "m", "--format", "parquet"), "pyarrow")


def test_it_needs_no_torch() -> None:
    code = "import sys, vertebral.stages.measure, vertebral.cli.measure; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
