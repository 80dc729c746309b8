"""Folders to results: three patients, four scans, worked by hand; broken ones, caches and processes."""

import csv
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks import save_blocks
from vertebral.core.errors import ConfigError, InputError, OutputExistsError
from vertebral.evaluation import cohort
from vertebral.evaluation.case import FailedCase, ScoredCase
from vertebral.evaluation.cohort import score_cases
from vertebral.evaluation.page import tables
from vertebral.evaluation.pairing import find_cases
from vertebral.evaluation.settings import Settings
from vertebral.workflows.evaluate_folder import EvaluationRequest, evaluate_folders

TRUTH = {"L1": (20, 25), "L2": (10, 15)}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """`a`: patient 1 has a perfect scan and one without L2, 2 is one slice off, 3 is named one up. `b` is perfect."""
    predictions = {
        "sub-1_x": TRUTH,
        "sub-1_y": {"L1": (20, 25)},
        "sub-2": {"L1": (21, 26), "L2": (11, 16)},
        "sub-3": {"T12": (20, 25), "L1": (10, 15)},
    }
    for case, blocks in predictions.items():
        save_blocks(tmp_path / "ref" / f"{case}_seg-vert_msk.nii.gz", **TRUTH)
        save_blocks(tmp_path / "a" / case / f"{case}_seg-vert_msk.nii.gz", **blocks)
        save_blocks(tmp_path / "b" / f"{case}.nii.gz", **TRUTH)
    return tmp_path


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def evaluated(folders: Path, *names: str, out: str = "out", **options: Any) -> tuple[Any, dict[str, Any], Any]:
    predictions = tuple((None, folders / name) for name in names)
    request = EvaluationRequest(predictions, folders / "ref", jobs=1, **{"worst": 0, **options})
    return evaluate_folders(request, Settings(), folders / out)


def test_means_are_over_patients(folders: Path) -> None:
    _, collected, _ = evaluated(folders, "a")
    (model,) = collected["models"]
    assert (model["name"], model["scans"], model["patients"]) == ("a", 4, 3)
    dice = model["metrics"]["dice_levels"]
    # 1: (1 + 0.5) / 2; 2: 0.8; 3: 0. Over scans the mean would be 0.575.
    assert dice["mean"] == pytest.approx((0.75 + 0.8 + 0) / 3)
    assert dice["median"] == 0.75
    assert model["metrics"]["all_right"]["mean"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert model["metrics"]["dice_any_level"]["mean"] == pytest.approx((0.75 + 0.8 + 1) / 3)
    assert model["metrics"]["seconds"] is None
    assert model["shifts"] == {"-1": 2, "+0": 5}
    level = model["levels"]["L2"]
    assert (level["complete"], level["cut"], level["missing"], level["hits"]) == (4, 0, 2, 2)
    assert level["dice"]["patients"] == 3
    # HD95 of those found; and with the image's diagonal, 20 x 10 x 90 mm, in place of the missing.
    assert model["metrics"]["hd95_levels_mm"]["patients"] == 3
    diagonal = (20**2 + 10**2 + 90**2) ** 0.5
    one = (0 + diagonal / 2) / 2
    three = (30 + diagonal) / 2
    assert model["metrics"]["hd95_levels_with_missing_mm"]["mean"] == pytest.approx((one + 3 + three) / 3)


def test_two_models_are_compared_patient_by_patient(folders: Path) -> None:
    _, collected, files = evaluated(folders, "a", "b")
    (compared,) = collected["comparisons"]
    gap = compared["metrics"]["dice_levels"]
    assert (compared["first"], compared["second"], gap["patients"]) == ("a", "b", 3)
    assert gap["mean"] == pytest.approx((0.25 + 0.2 + 1) / 3)
    assert gap["p"] == pytest.approx(0.25)
    assert "b minus a" in files["markdown"].read_text()
    with pytest.raises(ConfigError, match="two models are called a"):
        evaluated(folders, "a", "a", out="twice")


def test_files(folders: Path) -> None:
    """Everything as json without NaN, a row a case, a row a structure."""
    _, _, files = evaluated(folders, "a")
    text = files["results"].read_text()
    stored = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert stored["disclaimer"].startswith("Research use only")
    assert set(stored["policies"]) >= {"grid", "missing vertebra", "both empty", "cut by the border", "T13 and L6"}
    cases = rows_of(files["cases"])
    assert [row["case"] for row in cases] == ["sub-1_x", "sub-1_y", "sub-2", "sub-3"]
    assert cases[3]["shifts"] == "-1:2" and cases[3]["extra"] == "T12"
    levels = rows_of(files["levels"])
    assert {row["structure"] for row in levels} == {"spine", "region", "level"}
    assert len(levels) == 4 * (1 + 1 + 2)
    latex = files["latex"].read_text()
    assert latex.count("\\\\") == 2 and "a & 4 &" in latex


def test_a_broken_file_is_a_row_with_its_error(folders: Path) -> None:
    (folders / "a" / "sub-2" / "sub-2_seg-vert_msk.nii.gz").write_bytes(b"broken")
    (folders / "a" / "sub-3" / "sub-3_seg-vert_msk.nii.gz").unlink()
    (model,), collected, files = evaluated(folders, "a")
    assert [row.case for row in model.failed] == ["sub-2", "sub-3"]
    assert model.failed[0].error.startswith("sub-2_seg-vert_msk.nii.gz: ")  # without its folder
    assert model.failed[1].error == "no prediction for this case"
    rows = {row["case"]: row for row in rows_of(files["cases"])}
    assert rows["sub-2"]["error"] and not rows["sub-2"]["dice_spine"] and not rows["sub-1_x"]["error"]
    assert tables.overview(collected)[1][0][1] == "2 of 4"
    for name in ("markdown", "report"):
        assert "no prediction for this case" in files[name].read_text()


def test_where_nothing_can_be_scored(folders: Path) -> None:
    for path in (folders / "a").rglob("*.nii.gz"):
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="none of the 4 cases could be scored"):
        evaluated(folders, "a")


def test_what_was_scored_is_not_scored_again(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what changed: a file's bytes, or a policy."""
    done: list[str] = []
    real = cohort.evaluate

    def watched(*args: Any) -> ScoredCase:
        done.append(args[3])
        return real(*args)

    monkeypatch.setattr(cohort, "evaluate", watched)
    _, first, _ = evaluated(folders, "a")
    assert len(done) == 4
    with pytest.raises(OutputExistsError, match="--overwrite"):
        evaluated(folders, "a")
    _, again, _ = evaluated(folders, "a", overwrite=True)
    assert len(done) == 4 and again == first
    save_blocks(folders / "a" / "sub-2" / "sub-2_seg-vert_msk.nii.gz", **TRUTH)
    (folders / "out" / "cases" / "sub-3.json").write_text("{")
    evaluated(folders, "a", overwrite=True)
    assert done[4:] == ["sub-2", "sub-3"]
    cases, _ = find_cases(folders / "a", folders / "ref")
    score_cases(cases, Settings(ignore_outside_reference=True), folders / "out" / "cases", jobs=1)
    assert len(done) == 10


def test_processes_give_the_same_in_the_same_order(folders: Path) -> None:
    cases, _ = find_cases(folders / "a", folders / "ref")
    told: list[tuple[int, int]] = []
    outcomes = score_cases(cases, Settings(), jobs=2, progress=lambda done, total, text: told.append((done, total)))
    assert outcomes == score_cases(cases, Settings(), jobs=1)
    assert told == [(n, 4) for n in range(1, 5)]


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed otherwise there")
def test_a_process_that_is_killed_is_one_case(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does for want of memory. Its neighbours are scored all the same."""
    cases, _ = find_cases(folders / "a", folders / "ref")
    monkeypatch.setattr(cohort, "_score", _deadly)
    found = score_cases(cases[1:3], Settings(), jobs=2)
    assert isinstance(found[1], FailedCase) and "its process was killed" in found[1].error
    assert found[0] == FailedCase("sub-1_y", "sub-1", "fine")


def _deadly(job: Any) -> FailedCase:
    if job.paths.case == "sub-2":
        os._exit(9)
    return FailedCase(job.paths.case, job.paths.subject, "fine")


def test_memory_bounds_how_many_cases_are_read_at_once(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, _ = find_cases(folders / "a", folders / "ref")
    monkeypatch.setattr(cohort, "free_memory_gb", lambda: 1.1)
    assert cohort._fitting(cases) == 4
    monkeypatch.setattr(cohort, "free_memory_gb", lambda: 0.01)
    assert cohort._fitting(cases) == 1
    monkeypatch.setattr(cohort, "free_memory_gb", lambda: None)
    assert cohort._fitting([replace(cases[0], reference=folders / "none.nii.gz")]) == 1


def test_out_is_a_file(folders: Path) -> None:
    (folders / "out").write_text("")
    with pytest.raises(OutputExistsError, match="is a file"):
        evaluated(folders, "a")
    with pytest.raises(InputError, match="cannot create the folder"):
        evaluated(folders, "a", out="out/below")
