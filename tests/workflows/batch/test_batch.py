"""Real processes, a tiny network that finds nothing."""

import csv
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from vertebral.cli import app
from vertebral.core.anatomy import parse_levels
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ConfigError, InputError, ModelError
from vertebral.data.phantom import make_phantom
from vertebral.io.write import write_image
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.networks import UNetConfig, build_network
from vertebral.models.weights import save_model
from vertebral.workflows.batch import counts, run_scans
from vertebral.workflows.config import RunConfig

CONFIG = ModelConfig(
    name="tiny",
    network=UNetConfig(kind="unet", levels=("T12", "L1"), channels=(2, 4), strides=(2,), residual_units=0),
    preprocess=PreprocessConfig(spacing_mm=4.0),
    inference=InferenceConfig(window=(32, 32, 32)),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    network = build_network(CONFIG.network)
    with torch.no_grad():
        network.head.bias[0] = 1000
    save_model(folder, CONFIG, network.state_dict(), {"licence": "CC0-1.0"})
    return str(folder)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    part = make_phantom(parse_levels("T12,L1"), 4.0).ct.cropped((slice(28, 52), slice(4, 36), slice(0, 20)))
    for name in "abc":
        write_image(part, folder / f"{name}_ct.nii.gz")
    return folder


def test_a_killed_process_costs_one_scan(
    scans: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERTEBRAL_CACHE", str(tmp_path / "cache"))
    out, config = tmp_path / "out", RunConfig(model=model, backend="torch")

    def kill(done: int, total: int, name: str) -> None:
        if done == 1:
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGKILL)

    rows = run_scans(scans, out, config, 1, kill)
    assert [(row.name, row.status) for row in rows] == [("a", "done"), ("b", "failed"), ("c", "done")]
    assert rows[1].error is not None and "killed (signal 9)" in rows[1].error
    assert counts(rows) == {"done": 2, "skipped": 0, "failed": 1}
    with (out / "scans.csv").open(encoding="utf-8") as stream:
        assert [row["status"] for row in csv.DictReader(stream)] == ["done", "failed", "done"]
    journal = [json.loads(line) for line in (out / "scans.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(row["name"] for row in journal) == ["a", "b", "c"]
    assert multiprocessing.active_children() == []
    words = ["run", str(scans), "--out", str(out), "--model", model, "--backend", "torch", "--jobs", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "1 done, 2 skipped, 0 failed" in result.stdout
    assert (out / "b" / "manifest.json").is_file()


def test_refusals_before_any_work(scans: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing-of-the-kind"):
        run_scans(scans, tmp_path / "out", RunConfig(model="nothing-of-the-kind"))
    with pytest.raises(ConfigError, match="give a folder of scans"):
        run_scans(scans / "a_ct.nii.gz", tmp_path / "out", RunConfig(model=model))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        run_scans(scans, tmp_path / "file", RunConfig(model=model))
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_what_failed(scans: Path, model: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'none_ct.nii.gz'}\n")
    words = ["run", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out"), "--model", model]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["counts"] == {"done": 0, "skipped": 0, "failed": 1}
    assert "no such file or folder" in found["scans"][0]["error"]
