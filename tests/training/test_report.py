"""Reports of run folders made by hand: two phases, three scans of blocks, a network that is told what to say."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from vertebral.cli import app
from vertebral.core.about import DISCLAIMER
from vertebral.core.errors import InputError, ModelError, OutputExistsError
from vertebral.data.verse.prepared_set import PreparedScan, PreparedSet, open_prepared
from vertebral.data.verse.split import Fold, Split
from vertebral.models.networks import build_network
from vertebral.models.weights import load_model, save_model
from vertebral.stages.preview import comparison
from vertebral.training import worst_cases
from vertebral.training.config import TrainConfig
from vertebral.training.curves import running_epochs
from vertebral.training.report import write_report
from vertebral.training.run_folder import EpochRow, RunFolder
from vertebral.training.scores import best_epoch, read_scores, worst_first

MM = 4.0
SHA = "0" * 64
SCANS = ("sub-1/a", "sub-2", "sub-3")
# By scan: Dice of the spine, of the levels, of L1 and L2 in phase 2, epoch 1. The third shows no vertebra.
SCORES: dict[str, tuple[float | None, ...]] = {
    "sub-1/a": (0.9, 0.6, 0.8, 0.4),
    "sub-2": (0.7, 0.5, 0.5, None),
    "sub-3": (None, None, None, None),
}


def row(phase: int, epoch: int, loss_validation: float | None, dice_levels: float | None, **more: Any) -> EpochRow:
    spine = None if dice_levels is None else dice_levels + 0.1
    values = {"step": 5, "learning_rate": 1e-4, "loss": 1.0 / epoch, "seconds": 36.0, "memory_gb": 2.5, **more}
    return EpochRow(phase, epoch, loss_validation=loss_validation, dice_spine=spine, dice_levels=dice_levels, **values)


HISTORY = (row(1, 1, 0.9, 0.1), row(1, 2, None, None), row(1, 3, 0.6, 0.4), row(2, 1, 0.7, 0.55), row(2, 2, 0.5, 0.55))


def config(levels: tuple[str, ...] = ("L1", "L2"), kind: str = "scans") -> TrainConfig:
    network = {"kind": "resunet", "levels": levels, "channels": (2, 4), "strides": (2,), "residual_units": 1}
    source = {"kind": "body", "bodies": "*.nii.gz"}
    model = {
        "name": "micro",
        "network": network,
        "preprocess": {"spacing_mm": MM},
        "inference": {"window": (16, 16, 20)},
    }
    data = {"kind": "scans"} if kind == "scans" else {"kind": "synthetic", "sources": [source]}
    values = {"model": model, "licence": "CC0", "data": data, "patch": (8, 8, 8), "phases": 2, "steps_per_epoch": 5}
    return TrainConfig.model_validate(values)


def blocks() -> NDArray[np.uint8]:
    """L1 above L2, 6 x 6 x 5 voxels each."""
    labels = np.zeros((14, 14, 20), np.uint8)
    labels[4:10, 4:10, 11:16] = 20
    labels[4:10, 4:10, 4:9] = 21
    return labels


def prepare(folder: Path) -> Path:
    scans = []
    for name in SCANS:
        place = folder / "cases" / name.replace("/", "-")
        place.mkdir(parents=True)
        labels = blocks() * (name != "sub-3")
        np.save(place / "labels.npy", labels)
        np.save(place / "ct.npy", np.where(labels > 0, 600, 40).astype(np.int16))
        scan = PreparedScan(
            case=name,
            subject=name[:5],
            folder=Path("cases") / place.name,
            shape=labels.shape,
            spacing_mm=MM,
            affine_rows=((MM, 0, 0, 0), (0, MM, 0, 0), (0, 0, MM, 0), (0, 0, 0, 1)),
            levels=("L1", "L2"),
            sha256_ct=SHA,
            sha256_labels=SHA,
        )
        (place / "case.json").write_text("{}")
        scans.append(scan)
    split = Split(mode="random", seed=0, catalog_sha256=SHA, folds=(Fold(train=(), validation=SCANS),), test=())
    prepared = PreparedSet(
        root=folder,
        preprocess=config().model.preprocess,
        catalog_sha256=SHA,
        split=split,
        cases=tuple(scans),
        left_out={},
    )
    (folder / "prepared.json").write_text(prepared.model_dump_json(exclude={"root"}))
    return folder


def make_run(root: Path, settings: TrainConfig, history: tuple[EpochRow, ...], data: Path) -> RunFolder:
    run = RunFolder(root)
    run.root.mkdir()
    run.config.write_text(settings.model_dump_json())
    facts = {"data": str(data), "init_from": None, "catalog_sha256": SHA, "versions": {"vertebral": "0.1.0"}}
    run.write_facts(facts)
    for one in history:
        run.append(one)
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = make_run(tmp_path / "run", config(), HISTORY, prepare(tmp_path / "data"))
    torch.manual_seed(0)
    network = config().model.network
    save_model(made.model, config().model, build_network(network).state_dict(), {"licence": "CC0"})
    cases = [
        {
            "case": case,
            "subject": case[:5],
            "dice_spine": spine,
            "dice_levels": levels,
            "levels": {"L1": first, "L2": second},
        }
        for case, (spine, levels, first, second) in SCORES.items()
    ]
    path = made.validation(2, 1)
    path.parent.mkdir()
    path.write_text(json.dumps({"phase": 2, "epoch": 1, "cases": cases}))
    return made


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> list[comparison.Compared]:
    """Put empty files in the place of pictures; the overlays that were asked for are noted."""
    seen: list[comparison.Compared] = []

    def curves(rows: Any, best: Any, folder: Path) -> dict[str, Path]:
        (folder / "learning_curves.png").touch()
        return {"png": folder / "learning_curves.png"}

    def overlay(compared: comparison.Compared, title: str, subtitle: str, path: Path) -> None:
        seen.append(compared)
        path.touch()

    monkeypatch.setattr("vertebral.training.report.draw_curves", curves)
    monkeypatch.setattr(comparison, "draw_comparison", overlay)
    return seen


def says(classes: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every prediction be `classes`."""
    monkeypatch.setattr(worst_cases, "predict_classes", lambda *_: classes)


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["report", *(str(word) for word in words)])


def test_epochs_are_counted_through_the_phases() -> None:
    assert running_epochs(HISTORY) == [1, 2, 3, 4, 5]
    assert running_epochs([row(1, 2, None, None), row(2, 1, None, None)]) == [2, 3]


def test_the_best_epoch_is_the_first_of_the_best_ones() -> None:
    assert best_epoch(HISTORY, "dice") == HISTORY[3]
    assert best_epoch(HISTORY, "loss") == HISTORY[4]
    unknown = [row(1, 1, None, None), row(1, 2, float("nan"), float("nan"))]
    assert best_epoch(unknown, "dice") is best_epoch(unknown, "loss") is None


def test_a_report_is_complete(run: RunFolder, tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    files = write_report(run.root, device="cpu", progress=lambda *words: said.append(words))
    folder = run.root / "report"
    names = [
        "learning_curves.png",
        "learning_curves.svg",
        "validation.csv",
        "validation.md",
        "worst_1_sub-2.png",
        "worst_2_sub-1_a.png",
        "report.md",
    ]
    assert list(files.values()) == [folder / name for name in names]
    assert {path.name for path in folder.iterdir()} == set(names)
    assert said == [(0, 2, "drawing sub-2"), (1, 2, "drawing sub-1/a"), (2, 2, "overlays drawn")]
    text = files["report"].read_text(encoding="utf-8")
    assert DISCLAIMER in text
    assert "phase 2, epoch 1: Dice of the levels 0.5500, Dice of the spine 0.6500" in text
    assert "5 done of 2 x 50" in text and "0.05 h" in text and "2.5 GB" in text
    assert all(f"]({name})" in text for name in names if name.endswith(".png"))
    assert str(tmp_path) not in text and "prepared scans in data, fold 0" in text
    with Image.open(files["learning_curves_png"]) as picture:
        assert picture.size[0] == 1340  # 170 mm, the text of an A4 page, at 200 dpi


@pytest.mark.usefixtures("undrawn")
def test_the_tables_hold_means_over_what_is_known(run: RunFolder) -> None:
    files = write_report(run.root, worst=0)
    with files["validation_csv"].open(newline="", encoding="utf-8") as stream:
        rows = {line["case"]: line for line in csv.DictReader(stream)}
    assert list(rows) == [*SCANS, "mean", "median"]
    assert rows["sub-2"] == {
        "case": "sub-2",
        "subject": "sub-2",
        "dice_spine": "0.7000",
        "dice_levels": "0.5000",
        "L1": "0.5000",
        "L2": "",
    }
    means = {name: rows["mean"][name] for name in ("dice_spine", "dice_levels", "L1", "L2")}
    assert means == {"dice_spine": "0.8000", "dice_levels": "0.5500", "L1": "0.6500", "L2": "0.4000"}
    table = files["validation_md"].read_text(encoding="utf-8").splitlines()
    assert table[2] == "| sub-2 | sub-2 | 0.700 | 0.500 |"
    assert table[5] == "| **mean** |  | 0.800 | 0.550 |"
    assert "| L1 | 2 | 0.650 | 0.650 | 0.500 | sub-2 |" in table


def test_the_worst_scans_come_first_and_unknown_ones_never(run: RunFolder) -> None:
    rows = read_scores(run.validation(2, 1))
    assert [one.case for one in worst_first(rows, 3)] == ["sub-2", "sub-1/a"]
    assert [one.case for one in worst_first(rows, None)] == ["sub-2", "sub-1/a", "sub-3"]
    assert worst_first(rows, 0) == []


def near(path: Path, rgb: tuple[int, int, int]) -> int:
    """Pixels of about this colour."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), int)
    return int((np.abs(pixels - rgb).max(axis=2) < 45).sum())


@pytest.fixture
def scan(run: RunFolder) -> PreparedScan:
    return open_prepared(run.root.parent / "data").scans["sub-2"]


def test_each_kind_of_error_has_its_colour(
    run: RunFolder, scan: PreparedScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed, extra, wrong = (86, 180, 233), (213, 94, 0), (240, 228, 66)
    model, cpu = load_model(run.model), torch.device("cpu")
    right = np.select([blocks() == 20, blocks() == 21], [1, 2], 0).astype(np.uint8)
    faulty = right.copy()
    faulty[:, :, 4:6] = 0
    faulty[4:10, 4:10, 17] = 1
    faulty[4:10, 4:10, 11:13] = 2
    for name, classes in (("right", right), ("faulty", faulty)):
        says(classes, monkeypatch)
        comparison.draw_comparison(worst_cases.compare(scan, model, cpu), name, "", tmp_path / f"{name}.png")
    pixels = {
        name: [near(tmp_path / f"{name}.png", rgb) for rgb in (missed, extra, wrong)] for name in ("right", "faulty")
    }
    grown = [after - before for before, after in zip(pixels["right"], pixels["faulty"], strict=True)]
    # A voxel is 20 pixels wide. Two slices show it, 6 voxels side by side, in 2, 1 and 2 layers.
    assert np.allclose(grown, [24 * 400, 12 * 400, 24 * 400], rtol=0.25)


def test_a_scan_is_cut_to_its_labels_and_compared_in_verse_ids(
    run: RunFolder, scan: PreparedScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "_MARGIN_MM", 8.0)
    says(np.full(blocks().shape, 2, np.uint8) * (blocks() > 0), monkeypatch)
    compared = worst_cases.compare(scan, load_model(run.model), torch.device("cpu"))
    # Two voxels of 4 mm around voxels 4 to 9 along R and A, 4 to 15 along S.
    assert compared.ct.array.shape == (10, 10, 16)
    assert compared.ct.affine[:3, 3].tolist() == [8, 8, 8]
    assert np.array_equal(compared.reference.array, blocks()[2:12, 2:12, 2:18])
    assert set(np.unique(compared.prediction.array)) == {0, 21}


def test_a_network_of_one_class_is_compared_as_a_whole(
    run: RunFolder, undrawn: list[comparison.Compared], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(levels=("spine",))
    save_model(run.model, settings.model, build_network(settings.model.network).state_dict(), {})
    says((blocks() > 0).astype(np.uint8), monkeypatch)
    write_report(run.root, worst=1)
    assert np.array_equal(undrawn[0].reference.array, 100 * (blocks() > 0))
    assert np.array_equal(undrawn[0].prediction.array, undrawn[0].reference.array)


def test_a_scan_without_labels_is_drawn_too(
    run: RunFolder, scan: PreparedScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(scan.folder / "labels.npy", blocks() * 0)
    says(blocks() * 0, monkeypatch)
    compared = worst_cases.compare(scan, load_model(run.model), torch.device("cpu"))
    assert compared.ct.array.shape == blocks().shape
    comparison.draw_comparison(compared, "nothing", "", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


@pytest.mark.usefixtures("undrawn")
def test_a_new_report_replaces_the_old_one_only(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(blocks() * 0, monkeypatch)
    out = tmp_path / "elsewhere"
    write_report(run.root, out, worst=2)
    for name in ("notes.txt", "worst_of_all.png"):
        (out / name).write_text("mine")
    files = write_report(run.root, out, worst=1)
    assert {path.name for path in out.iterdir()} == {path.name for path in files.values()} | {
        "notes.txt",
        "worst_of_all.png",
    }
    assert not (run.root / "report").exists()


def test_a_synthetic_run_has_the_loss_alone_and_says_so(tmp_path: Path) -> None:
    history = tuple(row(1, epoch, None, None, memory_gb=None) for epoch in (1, 2))
    run = make_run(tmp_path / "run", config(kind="synthetic"), history, tmp_path / "gone")
    files = write_report(run.root)
    assert [path.name for path in files.values()] == ["learning_curves.png", "learning_curves.svg", "report.md"]
    text = files["report"].read_text(encoding="utf-8")
    assert "Training loss only" in text and "painted from label maps in gone" in text and "GPU memory" not in text
    assert b"Dice" not in files["learning_curves_svg"].read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_what_is_no_run_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished epoch; give the folder"):
        write_report(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="is a file"):
        write_report(run.root, tmp_path / "file")
    with pytest.raises(InputError, match="cannot be created"):
        write_report(run.root, tmp_path / "file" / "out")
    run.facts.unlink()
    with pytest.raises(ModelError, match=r"run\.json: missing or damaged"):
        write_report(run.root)


@pytest.mark.parametrize(
    "text", [None, "{", '{"cases": [3]}', '{"cases": [{"case": 1, "subject": 2, "levels": {"Q1": 1}}]}']
)
def test_damaged_scores_are_refused(text: str | None, run: RunFolder) -> None:
    path = run.validation(2, 1)
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ModelError, match=r"phase-2-epoch-001\.json: scores of the best epoch missing or damaged"):
        write_report(run.root)


@pytest.mark.usefixtures("undrawn")
def test_data_that_has_gone_is_named_with_the_way_out(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "data" / "prepared.json"
    path.write_text(path.read_text().replace('"case":"sub-2"', '"case":"other"'))
    with pytest.raises(InputError, match="scan sub-2 is missing"):
        write_report(run.root)
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"data folder is missing; restore it, or .* --worst 0"):
        write_report(run.root)
    assert "report" in write_report(run.root, worst=0)


@pytest.mark.usefixtures("undrawn")
def test_the_command_prints_paths_and_tells_of_its_progress(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    says(blocks() * 0, monkeypatch)
    result = invoke(run.root, "--worst", 1)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == str(run.root / "report" / "report.md")
    assert "drawing sub-2" in result.stderr
    result = invoke(run.root, "--worst", 0, "--json")
    assert json.loads(result.stdout)["validation_csv"] == str(run.root / "report" / "validation.csv")
    assert invoke(run.root, "--worst", 0, "--quiet").output == ""


def test_the_command_refuses_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, part in (((tmp_path,), "no finished epoch"), ((tmp_path, "--device", "tpu"), "--device tpu")):
        result = invoke(*words)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert part in result.stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'vertebral[train]'" in invoke(tmp_path).stderr
