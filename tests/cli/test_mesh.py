import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from typer.testing import CliRunner

from cli_result import assert_one_line
from vertebral.cli import app
from vertebral.core.anatomy import BY_NAME
from vertebral.core.records import Instance, Spine, Vertebra
from vertebral.core.volume import Grid, Volume
from vertebral.io.occupancies import write_occupancies
from vertebral.io.write import write_json, write_labels
from vertebral.runtime.hashing import file_sha256

AFFINE = np.array([[1.0, 0, 0, -40], [0, 1, 0, 20], [0, 0, 1, 100], [0, 0, 0, 1]])
DISTANCE = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0)


def mesh(*words: object) -> Any:
    return CliRunner().invoke(app, ["mesh", *map(str, words)], env={"COLUMNS": "200"})


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    array = np.zeros((24, 24, 50), np.uint8)
    array[:, :, 26:][DISTANCE < 9] = 20
    array[:, :, :24][DISTANCE < 9] = 21
    path = tmp_path / "case_seg-vert_msk.nii.gz"
    write_labels(Volume(array, AFFINE), path)
    return path


def result_of_a_run(folder: Path, labels: Path) -> Path:
    """A folder as `vertebral run` leaves it: the label map, a larger ball as the occupancy of L1, a manifest."""
    folder.mkdir()
    (folder / labels.name).write_bytes(labels.read_bytes())
    occupancy = (1 / (1 + np.exp(2 * (DISTANCE - 10)))).astype(np.float32)
    instance = Instance(occupancy, (slice(0, 24),) * 3, np.zeros(2), (0, 0, 0), False)
    spine = Spine((Vertebra(BY_NAME["L1"], 1.0, instance),), Grid((24, 24, 50), AFFINE))
    write_occupancies(spine, folder / "case_occupancy.npz")
    outputs = [{"file": path.name, "sha256": file_sha256(path)} for path in sorted(folder.iterdir())]
    write_json({"outputs": outputs}, folder / "manifest.json")
    return folder


def test_all_formats_and_a_report(tmp_path: Path, labels: Path) -> None:
    out = tmp_path / "out"
    done = mesh(labels, "--out", out, "--format", "stl,ply,obj,glb,3mf", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["warnings"] == []
    assert (report["frame"], report["units"], report["source"]["kind"]) == ("RAS+", "mm", "label map")
    each = [f"case_{level}.{kind}" for level in ("L1", "L2") for kind in ("obj", "ply", "stl")]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*each, "case_mesh-report.json", "case_spine.3mf", "case_spine.glb"]
    )
    assert [row["level"] for row in report["meshes"]] == ["L1", "L2"]
    for row in report["meshes"]:
        assert row["manifold"]
        assert row["self_intersections"] == 0
        assert abs(row["volume_change_percent"]) < 1
        assert row["wall_p5_mm"] > 3
    assert [row["pair"] for row in report["neighbours"]] in ([], [["L1", "L2"]])
    for row in report["outputs"]:
        assert file_sha256(out / row["file"]) == row["sha256"]
    assert json.loads((out / "case_mesh-report.json").read_text())["meshes"] == report["meshes"]


def test_a_result_is_meshed_from_its_occupancies(tmp_path: Path, labels: Path) -> None:
    result = result_of_a_run(tmp_path / "result", labels)
    report = json.loads(mesh(result, "--out", tmp_path / "out", "--json").stdout)
    assert report["source"]["kind"] == "occupancies"
    (row,) = report["meshes"]
    assert row["volume_ml"] == pytest.approx(4 / 3 * np.pi * 1000 / 1000, rel=0.02)


def test_an_edited_label_map_wins_over_the_occupancies(tmp_path: Path, labels: Path) -> None:
    result = result_of_a_run(tmp_path / "result", labels)
    array = np.zeros((24, 24, 50), np.uint8)
    array[:, :, 26:][DISTANCE < 9] = 22
    write_labels(Volume(array, AFFINE), result / labels.name)
    report = json.loads(mesh(result, "--out", tmp_path / "out", "--json").stdout)
    assert [row["level"] for row in report["meshes"]] == ["L3"]
    assert "edited after the run" in report["warnings"][0]


def test_lps_levels_and_quiet(tmp_path: Path, labels: Path) -> None:
    out = tmp_path / "out"
    done = mesh(labels, "--out", out, "--levels", "L2", "--format", "stl", "--lps", "--quiet")
    assert (done.exit_code, done.stdout) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["case_L2.stl", "case_mesh-report.json"]
    assert b"SPACE=LPS" in (out / "case_L2.stl").read_bytes()[:80]
    assert trimesh.load(out / "case_L2.stl").bounds.mean(axis=0) == pytest.approx([28.5, -31.5, 111.5], abs=0.1)


def test_a_cut_leaves_two_closed_parts(tmp_path: Path, labels: Path) -> None:
    out = tmp_path / "out"
    done = mesh(labels, "--out", out, "--levels", "L1", "--cut", "sagittal", "--format", "stl,3mf")
    assert done.exit_code == 0, done.stderr
    assert "L1-left" in done.stdout
    parts = [trimesh.load(out / f"case_L1-{side}.stl") for side in ("left", "right")]
    assert all(part.is_watertight for part in parts)
    assert parts[0].bounds[1][0] == pytest.approx(parts[1].bounds[0][0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "stp"), "formats"),
        (("--smooth", "2"), "smooth"),
        (("--levels", "C9"), "unknown level"),
        (("--levels", "C1"), "it has L1, L2"),
        (("--cut", "oblique"), "cut"),
        (("--cut", "axial@900"), "misses the surfaces"),
        (("--target-edge-mm", "0"), "target_edge_mm"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, labels: Path, words: tuple[str, ...], message: str) -> None:
    assert_one_line(mesh(labels, "--out", tmp_path / "out", *words, "--quiet"), message)
    assert not (tmp_path / "out").exists()


def test_bad_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    assert_one_line(mesh(tmp_path / "empty", "--out", out, "--quiet"), "empty", "contains no manifest.json")
    assert_one_line(mesh(tmp_path / "none.nii.gz", "--out", out, "--quiet"), "none.nii.gz", "no such file")


def test_results_are_not_replaced_unasked(tmp_path: Path, labels: Path) -> None:
    out = tmp_path / "out"
    words = (labels, "--out", out, "--levels", "L1", "--format", "stl", "--quiet")
    assert mesh(*words).exit_code == 0
    (out / "case_mesh-report.json").unlink()
    before = (out / "case_L1.stl").read_bytes()
    assert_one_line(mesh(*words, "--smooth", "0"), "case_L1.stl", "--overwrite")
    assert (out / "case_L1.stl").read_bytes() == before
    assert mesh(*words, "--smooth", "0", "--overwrite").exit_code == 0
    assert (out / "case_L1.stl").read_bytes() != before
