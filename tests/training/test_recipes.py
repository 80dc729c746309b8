"""The report's three recipes from the command line, on phantoms in VerSe's layout: prepare, train, report, run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from vertebral.cli import app
from vertebral.cli.train import config_file
from vertebral.core.anatomy import parse_levels
from vertebral.core.config import load_config
from vertebral.core.volume import Volume
from vertebral.data.phantom import make_phantom
from vertebral.io.write import write_image
from vertebral.training.config import TrainConfig
from vertebral.training.run_folder import RunFolder
from vertebral.training.variants import as_binary, smoke
from vertebral.workflows import run as workflow
from vertebral.workflows import write_result as writer

RECIPES = ("unet", "resunet", "swinunetr")


def command(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def small_phantom(seed: int) -> tuple[Volume, Volume]:
    """L1 and L2 in a box of 60 mm, from the air behind the back to the front of the bodies."""
    phantom = make_phantom(parse_levels("L1-L2"), 3.0, seed=seed)
    centre = np.argwhere(phantom.labels.array > 0).mean(0).astype(int)
    box = slice(centre[0] - 10, centre[0] + 10), slice(0, centre[1] + 10), slice(0, phantom.ct.array.shape[2])
    return phantom.ct.cropped(box), phantom.labels.cropped(box)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, write_verse_case: Callable[..., None]) -> Path:
    root = tmp_path_factory.mktemp("data")
    for number in range(1, 5):
        subject = f"sub-verse{500 + number}"
        write_verse_case(root / "verse" / "dataset-01training", subject, f"{subject}_dir-iso", *small_phantom(number))
    command(
        "data", "prepare", root / "verse", "--config", "resunet", "--out", root / "prepared", "--jobs", 1, "--quiet"
    )
    return root / "prepared"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_from_scans_to_a_model_that_runs(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    words = ("train", "--config", name, "--data", prepared, "--out", run.root, "--smoke", "--device", "cpu", "--quiet")
    # Processors without bfloat16 emulate it, minutes long.
    command(*words, "--set", "precision=32-true")
    rows = run.rows()
    assert [(row.phase, row.epoch, row.step) for row in rows] == [(1, 1, 2), (2, 1, 4)]
    assert all(np.isfinite([row.loss, row.loss_validation, row.dice_spine]).all() for row in rows)
    assert str(run.root / "report" / "report.md") in command("report", run.root, "--worst", "1", "--device", "cpu")
    monkeypatch.setattr(writer, "preview", lambda *a: a[3].write_bytes(b"png"))
    # What a network finds after four steps is noise, and its surface takes minutes.
    monkeypatch.setattr(workflow, "reconstruct", lambda spine, **_: ())
    ct, _ = small_phantom(9)
    write_image(ct, tmp_path / "case_ct.nii.gz")
    words = (
        "run",
        tmp_path / "case_ct.nii.gz",
        "--model",
        run.best,
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
        "-q",
    )
    command(*words, "--backend", "torch")
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_smoke_changes_sizes_and_nothing_else(name: str) -> None:
    config = load_config(TrainConfig, config_file(name))
    small = smoke(config)
    assert TrainConfig.model_validate(small.model_dump()) == small
    assert (small.loss, small.optimizer, small.validation, small.data, small.phases) == (
        *(config.loss, config.optimizer, config.validation, config.data, config.phases),
    )
    assert small.model.preprocess == config.model.preprocess
    assert small.model.network.levels == config.model.network.levels


def test_binary_changes_levels_and_name() -> None:
    config = load_config(TrainConfig, config_file("unet"))
    binary = as_binary(config)
    assert binary.model.network.levels == ("spine",) and binary.model.name == "unet-binary"
    assert TrainConfig.model_validate(binary.model_dump()) == binary
