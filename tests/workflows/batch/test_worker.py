"""One worker, in this process: the pipe is filled before it starts."""

import json
import signal
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vertebral.core.errors import ModelError, ReadError, VertebralError
from vertebral.workflows.batch import worker
from vertebral.workflows.batch.scans import BatchScan
from vertebral.workflows.batch.worker import BatchRow, run_worker
from vertebral.workflows.config import RunConfig


def manifest(sha256: str, config: RunConfig, weights: str = "w") -> dict[str, Any]:
    return {
        "input": {"sha256": sha256},
        "options": config.model_dump(mode="json"),
        "model": {"sha256": weights},
        "refiner": None,
        "levels": [{"needs_review": ["low"]}, {"needs_review": []}],
        "warnings": ["one"],
        "peak_memory_gb": 1.5,
        "outputs": [{"file": "a_seg-vert_msk.nii.gz", "sha256": ""}],
    }


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the worker does: a scan's text is its hash; `bad` cannot be read and `broken` breaks on the way."""
    made: list[str] = []

    def read_scan(path: Path, series: str | None, max_memory_gb: float | None, need_gb: object) -> Any:
        made.append(f"read {path.stem}")
        if path.stem == "bad":
            raise ReadError(f"{path}: no CT")
        return SimpleNamespace(sha256=path.read_text())

    def run(scan: Any, out: Path, config: RunConfig, models: Any) -> dict[str, Any]:
        made.append(f"run {out.name}")
        assert not list(out.glob(".partial-*"))
        if out.name == "broken":
            raise RuntimeError("two\nlines")
        out.mkdir(parents=True, exist_ok=True)
        made_of_it = manifest(scan.sha256, config)
        (out / "a_seg-vert_msk.nii.gz").touch()
        (out / "manifest.json").write_text(json.dumps(made_of_it))
        return made_of_it

    def load_models(config: RunConfig) -> Any:
        made.append("load")
        if config.model == "none":
            raise ModelError("model 'none': not there")
        return SimpleNamespace(coarse=SimpleNamespace(sha256=config.model), refiner=None)

    monkeypatch.setattr(worker, "read_scan", read_scan)
    monkeypatch.setattr(worker, "read_sha256", lambda path, series: path.read_text())
    monkeypatch.setattr(worker, "run", run)
    monkeypatch.setattr(worker, "weights_of", lambda config: [config.model, None])
    monkeypatch.setattr(worker, "load_models", load_models)
    monkeypatch.setattr(worker, "need_of", lambda config: None)
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    threads = torch.get_num_threads()
    yield made
    torch.set_num_threads(threads)
    for number, handler in handlers:
        signal.signal(number, handler)


def work(folder: Path, *names: str, **options: Any) -> list[BatchRow]:
    ours, theirs = Pipe()
    for name in names:
        path = folder / f"{name}.nii"
        if not path.exists():
            path.write_text(f"hash of {name}")
        ours.send(BatchScan(name, path))
    ours.send(None)
    run_worker(theirs, folder / "out", RunConfig(model="w").model_copy(update=options), 1)
    return [ours.recv() for _ in names]


def test_networks_are_loaded_once_and_the_next_scan_is_read_early(calls: list[str], tmp_path: Path) -> None:
    rows = work(tmp_path, "a", "b")
    assert [(row.name, row.status, row.vertebrae, row.to_review, row.warnings) for row in rows] == [
        ("a", "done", 2, 1, 1),
        ("b", "done", 2, 1, 1),
    ]
    assert rows[0].seconds is not None and rows[0].peak_memory_gb == 1.5 and rows[0].error is None
    assert calls.count("load") == 1 and calls.count("read a") == 1 and calls.count("read b") == 1


def test_a_broken_scan_is_a_row(calls: list[str], tmp_path: Path) -> None:
    rows = work(tmp_path, "bad", "broken", "a")
    assert [row.status for row in rows] == ["failed", "failed", "done"]
    assert rows[0].error is not None and rows[0].error.endswith("bad.nii: no CT")
    assert rows[1].error == "RuntimeError: two lines"
    assert calls.count("read bad") == 2  # it may have failed for want of room beside the scan before


def test_what_is_done_is_skipped(calls: list[str], tmp_path: Path) -> None:
    work(tmp_path, "a", "broken")
    calls.clear()
    rows = work(tmp_path, "a", "broken", device="cpu", max_memory_gb=4)
    assert [row.status for row in rows] == ["skipped", "failed"]
    assert rows[0].vertebrae == 2 and rows[0].seconds is None
    assert "read a" not in calls and "run a" not in calls


@pytest.mark.parametrize(
    ("options", "remedy"),
    [({"refine": False}, "model or options"), ({"model": "other"}, "model or options")],
)
def test_other_results_are_not_replaced_in_silence(
    options: dict[str, Any], remedy: str, calls: list[str], tmp_path: Path
) -> None:
    work(tmp_path, "a")
    (row,) = work(tmp_path, "a", **options)
    assert row.status == "failed" and row.error is not None and remedy in row.error and "--overwrite" in row.error
    (row,) = work(tmp_path, "a", overwrite=True, **options)
    assert row.status == "done"


def test_another_scan_under_the_same_name_is_refused(calls: list[str], tmp_path: Path) -> None:
    work(tmp_path, "a")
    (tmp_path / "a.nii").write_text("another hash")
    (row,) = work(tmp_path, "a")
    assert row.status == "failed" and "another scan" in (row.error or "")


@pytest.mark.parametrize("text", ["no json", "{}", '{"input": 3}'])
def test_a_strange_manifest_is_not_taken_for_a_result(text: str, calls: list[str], tmp_path: Path) -> None:
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "manifest.json").write_text(text)
    (row,) = work(tmp_path, "a")
    assert row.status in ("done", "failed")
    (row,) = work(tmp_path, "a", overwrite=True)
    assert row.status == "done"


def test_what_a_killed_run_left_goes(calls: list[str], tmp_path: Path) -> None:
    left = tmp_path / "out" / "a" / ".partial-x"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    (row,) = work(tmp_path, "a")
    assert row.status == "done" and not left.exists()


def test_a_model_that_is_not_there_fails_every_scan(calls: list[str], tmp_path: Path) -> None:
    rows = work(tmp_path, "a", "b", model="none")
    assert [row.error for row in rows] == ["model 'none': not there"] * 2


def test_errors_have_one_line() -> None:
    assert worker.failed(BatchScan("a", Path("a.nii")), str(VertebralError("x\n y"))).error == "x y"
