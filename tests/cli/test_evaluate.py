import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from blocks import AFFINE, save_blocks
from cli_result import assert_one_line
from vertebral.cli import app

TRUTH = {"L1": (20, 25), "L2": (10, 15)}


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for case in ("a", "b"):
        save_blocks(tmp_path / "ref" / f"{case}.nii.gz", **TRUTH)
        save_blocks(tmp_path / "one" / f"{case}.nii.gz", **TRUTH)
        save_blocks(tmp_path / "two" / f"{case}.nii.gz", L1=(20, 25))
    return tmp_path


def test_folders_to_a_report(folders: Path) -> None:
    words = ["--pred", folders / "one", "--ref", folders / "ref", "--out", folders / "out", "--worst", 0, "--jobs", 1]
    result = invoke(*words, "--compare", folders / "two", "--name", "first", "--name", "second")
    assert result.exit_code == 0
    assert "first" in result.stdout and "second" in result.stdout and "1.000" in result.stdout
    for name in ("evaluation.json", "cases.csv", "levels.csv", "report.html", "report.md", "table.tex"):
        assert (folders / "out" / name).is_file() and str(folders / "out" / name) in result.stdout.replace("\n", "")
    assert_one_line(invoke(*words, "--quiet"), "evaluation.json: already exists", "--overwrite")
    again = invoke(*words, "--overwrite", "--json")
    document = json.loads(again.stdout, parse_constant=lambda text: pytest.fail(text))
    assert document["models"][0]["metrics"]["dice_levels"]["mean"] == 1
    assert document["models"][0]["name"] == "one" and "cases" not in document


def test_a_broken_case_is_told_and_exit_code_1(folders: Path) -> None:
    (folders / "one" / "b.nii.gz").write_bytes(b"broken")
    words = ["--pred", folders / "one", "--ref", folders / "ref", "--out", folders / "out", "--worst", 0, "--jobs", 1]
    result = invoke(*words)
    assert result.exit_code == 1
    assert "not scored (one): b:" in result.stdout and "1 of 2" in result.stdout
    document = json.loads(invoke(*words, "--overwrite", "--json").stdout)
    assert document["models"][0]["failed"][0]["case"] == "b"


def test_policies_from_the_command_line(folders: Path) -> None:
    """Another scheme, another grid, vertebrae outside, nothing on either side."""
    moved = AFFINE.copy()
    moved[0, 3] = 2
    other = save_blocks(folders / "other.nii.gz", moved, L1=(20, 25), L2=(10, 15), T12=(26, 29))
    reference = folders / "ref" / "a.nii.gz"
    assert_one_line(invoke("--pred", other, "--ref", reference), "other.nii.gz", "--resample nearest")
    words = ["--pred", other, "--ref", reference, "--resample", "nearest"]
    assert "predicted, but not in the reference: T12" in invoke(*words).stdout
    assert "left out: T12" in invoke(*words, "--ignore-outside-reference").stdout
    # 20 and 21 are C5 and C4 where L5 is 1.
    words = ["--pred", reference, "--ref", reference, "--pred-scheme", "cads-vertebrae"]
    assert json.loads(invoke(*words, "--json").stdout)["extra"] == ["C4", "C5"]
    empty = save_blocks(folders / "empty.nii.gz")
    for more, expected in (([], None), (["--both-empty", "one"], 1)):
        result = invoke("--pred", empty, "--ref", empty, *more, "--json")
        assert json.loads(result.stdout)["spine"]["dice"] == expected


def test_bad_words(folders: Path) -> None:
    words = ["--pred", folders / "one", "--ref", folders / "ref"]
    assert_one_line(invoke(*words), "one: is a folder; add --out")
    out = [*words, "--out", folders / "out", "--quiet"]
    assert_one_line(invoke(*out, "--resample", "cubic"), "--resample cubic", "nearest")
    assert_one_line(invoke(*out, "--both-empty", "two"), "--both-empty two", "skip or one")
    assert_one_line(invoke(*out, "--pred-scheme", "mine"), "unknown scheme 'mine'", "totalsegmentator")
    assert_one_line(invoke(*out, "--name", "a", "--name", "b"), "2 names for 1 models")
    assert_one_line(invoke("--pred", folders / "no", *out[2:]), "no such file or folder")
    assert not (folders / "out").exists()
