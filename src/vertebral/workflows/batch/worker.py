"""A worker process of a batch: one scan after another, networks loaded once, the next scan read ahead."""

import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch

from vertebral.core.errors import OutputExistsError, ReadError, VertebralError
from vertebral.core.records import Scan
from vertebral.io.ct.read import read_scan, read_sha256
from vertebral.io.result_folder import find_result, remove_leftovers
from vertebral.models.load import Models, load_models, weights_of
from vertebral.workflows.batch.scans import BatchScan
from vertebral.workflows.config import RunConfig
from vertebral.workflows.memory_estimate import need_of
from vertebral.workflows.run import run

Status = Literal["done", "skipped", "failed"]
Earlier = dict[str, Any]


@dataclass(frozen=True)
class BatchRow:
    """The outcome of one scan; `vertebrae`, `to_review` and `warnings` are counts from its manifest."""

    name: str
    source: str
    status: Status
    vertebrae: int | None = None
    to_review: int | None = None
    warnings: int | None = None
    seconds: float | None = None
    peak_memory_gb: float | None = None
    error: str | None = None


def failed(scan: BatchScan, error: str, seconds: float | None = None) -> BatchRow:
    """Return the row of a scan that failed."""
    return BatchRow(scan.name, str(scan.path), "failed", seconds=seconds, error=" ".join(error.split()))


def run_worker(connection: Connection, out: Path, config: RunConfig, threads: int) -> None:
    """Receive one `BatchScan` after another from `connection` and send back its `BatchRow`, until None or end of file.

    A scan that arrives early is read while the one before it runs. SIGTERM ends the process cleanly.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(threads)
    load = cache(lambda: load_models(config))
    todo: deque[tuple[BatchScan, Future[Scan | Earlier]]] = deque()
    ended = False
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt), ThreadPoolExecutor(1) as reader:
        while todo or not ended:
            while not ended and (not todo or connection.poll()):
                scan: BatchScan | None = connection.recv()
                if scan is None:
                    ended = True
                else:
                    todo.append((scan, reader.submit(_fetch, scan, out / scan.name, config)))
            if todo:
                current, fetched = todo.popleft()
                connection.send(_row(current, out / current.name, config, load, fetched))


def _fetch(scan: BatchScan, out: Path, config: RunConfig) -> Scan | Earlier:
    """Read the scan, or return the manifest of the result in `out` if that is complete and made from the same.

    Raises OutputExistsError if `out` contains another result.
    """
    earlier = None if config.overwrite else find_result(out)
    if earlier is None:
        return read_scan(scan.path, config.series, config.max_memory_gb, need_of(config))
    options = config.model_dump(mode="json")
    if earlier.missing_files:
        raise OutputExistsError(
            f"{out / earlier.missing_files[0]}: missing from an earlier result; add --overwrite to run the scan again"
        )
    if not earlier.is_made_from(read_sha256(scan.path, config.series), options, weights_of(config)):
        raise OutputExistsError(
            f"{out}: contains results of another scan, model or options; add --overwrite, or choose another --out"
        )
    return earlier.manifest


def _row(
    scan: BatchScan, out: Path, config: RunConfig, load: Callable[[], Models], fetched: Future[Scan | Earlier]
) -> BatchRow:
    """Run one scan; any error becomes the error of its row, so that the other scans go on."""
    start = time.perf_counter()
    try:
        try:
            found = fetched.result()
        except (ReadError, MemoryError):  # there may have been too little memory to read ahead
            found = _fetch(scan, out, config)
        if isinstance(found, dict):
            return _summary(scan, "skipped", found)
        remove_leftovers(out)
        manifest = run(found, out, config, load())
        return _summary(scan, "done", manifest, round(time.perf_counter() - start, 2))
    except VertebralError as error:
        reason = str(error)
    except MemoryError:
        reason = "out of memory: use fewer --jobs, crop the scan or run on a larger machine"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    return failed(scan, reason, round(time.perf_counter() - start, 2))


def _summary(scan: BatchScan, status: Status, manifest: dict[str, Any], seconds: float | None = None) -> BatchRow:
    levels = manifest["levels"]
    return BatchRow(
        scan.name,
        str(scan.path),
        status,
        vertebrae=len(levels),
        to_review=sum(bool(level["needs_review"]) for level in levels),
        warnings=len(manifest["warnings"]),
        seconds=seconds,
        peak_memory_gb=manifest["peak_memory_gb"] if status == "done" else None,
    )
