"""A cohort of phantoms through `vertebral benchmark run`: a model without fault, and one whose names are one off."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from blocks import save_blocks
from cli_result import assert_one_line
from vertebral.cli import app
from vertebral.core.anatomy import Level, parse_levels
from vertebral.core.config import PreprocessConfig
from vertebral.core.records import Evidence, Prepared
from vertebral.data.patches.network_input import class_of_verse_id
from vertebral.data.phantom import Phantom, make_phantom
from vertebral.io.write import write_image, write_labels
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.networks import UNetConfig, build_network
from vertebral.models.weights import save_model
from vertebral.stages.preprocess import prepare_labels
from vertebral.workflows import benchmark
from vertebral.workflows import run as workflow
from vertebral.workflows import write_result as writer

SPACING_MM = 4.0
LEVELS = ("T10", "T11", "T12", "L1", "L2", "L3")
SHOWN = parse_levels("T11,T12,L1,L2")


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["benchmark", "run", *map(str, words)])


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(SHOWN, SPACING_MM, seed) for seed in (1, 2)]


@pytest.fixture
def cohort(tmp_path: Path, phantoms: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch) -> Path:
    """images/ and labels/ of two phantoms, the models `right` and `shifted`, and a network that knows the truth."""
    for folder in ("images", "labels"):
        (tmp_path / "validation" / folder).mkdir(parents=True)
    for n, phantom in enumerate(phantoms):
        write_image(phantom.ct, tmp_path / "validation" / "images" / f"sub-{n}_ct.nii.gz")
        write_labels(phantom.labels, tmp_path / "validation" / "labels" / f"sub-{n}_seg-vert_msk.nii.gz")
    for name, window in (("right", 32), ("shifted", 64)):
        config = ModelConfig(
            name=name,
            network=UNetConfig(kind="unet", levels=LEVELS, channels=(2, 4), strides=(2,), residual_units=0),
            preprocess=PreprocessConfig(spacing_mm=SPACING_MM),
            inference=InferenceConfig(window=(32, 32, window)),
        )
        torch.manual_seed(0)
        save_model(tmp_path / name, config, build_network(config.network).state_dict(), {"licence": "CC0-1.0"})
    monkeypatch.setattr(workflow, "infer", knowing(phantoms))
    monkeypatch.setattr(workflow, "reconstruct", lambda spine, **_: ())  # meshes have tests of their own
    monkeypatch.setattr(writer, "preview", lambda *arguments: arguments[3].write_bytes(b"png"))
    return tmp_path


def knowing(phantoms: Sequence[Phantom]) -> Any:
    def infer(
        prepared: Prepared, network: Any, config: Any, levels: tuple[Level, ...], *rest: Any, **more: Any
    ) -> Evidence:
        truths = [prepare_labels(phantom.labels, SPACING_MM) for phantom in phantoms]
        truth = next(of for of in truths if of.grid.matches(prepared.volume.grid))
        classes = class_of_verse_id(tuple(level.name for level in levels)).numpy()
        first = classes[truth.array] + ((truth.array > 0) & (config.window[2] == 64))
        nothing = np.zeros(first.shape, np.uint8)
        return Evidence(first.astype(np.uint8), nothing, nothing + 255, nothing, levels, prepared.volume.grid)

    return infer


def test_a_cohort_of_phantoms(cohort: Path) -> None:
    words = [cohort / "validation", "--model", cohort / "right", "--model", cohort / "shifted", "--out", cohort / "out"]
    result = invoke(*words, "--in-process", "--jobs", 1, "--worst", 1)
    assert result.exit_code == 0, result.output
    stored = json.loads((cohort / "out" / "evaluation.json").read_text())
    right, shifted = stored["models"]
    assert (right["name"], right["scans"], right["patients"]) == ("right", 2, 2)
    assert right["metrics"]["dice_levels"]["mean"] > 0.95 and right["metrics"]["all_right"]["mean"] == 1
    assert right["metrics"]["seconds"]["mean"] > 0 and right["metrics"]["memory_gb"]["mean"] > 0
    assert shifted["metrics"]["dice_spine"]["mean"] > 0.95 and shifted["metrics"]["all_right"]["mean"] == 0
    assert shifted["metrics"]["pq"]["mean"] > 0.9 and set(shifted["shifts"]) == {"+1"}
    assert right["calibration"]["answers"] == 8
    assert stored["comparisons"][0]["metrics"]["all_right"]["mean"] == -1
    assert stored["facts"]["data"] == "2 scans of validation" and str(cohort) not in json.dumps(stored["facts"])
    page = (cohort / "out" / "report.html").read_text()
    assert page.count("<svg") == 4 and "data:image/png" in page


def test_what_was_predicted_is_kept(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    real = benchmark.run
    monkeypatch.setattr(benchmark, "run", lambda ct, out, config: done.append(ct.name) or real(ct, out, config))
    words = [cohort / "validation", "--model", cohort / "right", "--out", cohort / "out", "--in-process", "--quiet"]
    words += ["--jobs", 1, "--worst", 0]
    assert invoke(*words, "--limit", 1).exit_code == 0
    assert done == ["sub-0_ct.nii.gz"]
    assert_one_line(invoke(*words), "--overwrite")
    assert invoke(*words, "--overwrite").exit_code == 0
    assert done == ["sub-0_ct.nii.gz", "sub-1_ct.nii.gz"]
    assert invoke(*words, "--overwrite", "--no-refine").exit_code == 0
    assert len(done) == 4


def test_a_broken_scan_is_a_row_with_its_error(cohort: Path) -> None:
    (cohort / "validation" / "images" / "sub-1_ct.nii.gz").write_bytes(b"broken")
    words = [cohort / "validation", "--model", cohort / "right", "--in-process", "--jobs", 1, "--worst", 0]
    result = invoke(*words, "--out", cohort / "out", "--json")
    assert result.exit_code == 1
    (model,) = json.loads(result.stdout)["models"]
    assert model["scans"] == 1 and model["failed"][0]["error"].startswith("sub-1_ct.nii.gz: ")


def test_each_scan_in_a_process_of_its_own(cohort: Path) -> None:
    """Nothing is replaced there: an untrained network finds nothing that it may keep, or something wrong."""
    words = [cohort / "validation", "--model", cohort / "right", "--out", cohort / "out", "--limit", 1]
    result = invoke(*words, "--jobs", 1, "--worst", 0, "--json")
    assert result.exit_code == 0, result.output
    (model,) = json.loads(result.stdout)["models"]
    assert (model["scans"], model["failed"]) == (1, []) and model["metrics"]["dice_levels"]["mean"] < 0.5
    manifest = json.loads((cohort / "out" / "predictions" / "right" / "sub-0" / "manifest.json").read_text())
    assert manifest["peak_memory_gb"] > 0 and manifest["options"]["model"] == str(cohort / "right")


def test_what_cannot_be_run_at_all(cohort: Path) -> None:
    out = ["--out", cohort / "out", "--quiet"]
    assert_one_line(invoke(cohort / "none", *out), "none: no such file or folder")
    assert_one_line(invoke(cohort / "validation", *out, "--subset", "some"), "--subset some", "training")
    assert_one_line(invoke(cohort / "validation", *out, "--subset", "test"), "contains no CT of subset test")
    assert_one_line(invoke(cohort / "validation", *out, "--model", cohort / "none"), "none")
    assert_one_line(invoke(cohort / "validation", *out, "--device", "tpu"), "--device tpu")
    duplicates = ["--model", cohort / "right", "--model", cohort / "validation" / ".." / "right"]
    assert_one_line(invoke(cohort / "validation", *out, *duplicates), "two models have the same name")
    save_blocks(cohort / "maps" / "a.nii.gz", L1=(3, 6))
    assert_one_line(invoke(cohort / "maps", *out), "contains no CT with a reference label map")
    assert not (cohort / "out").exists()
