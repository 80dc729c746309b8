"""Run many scans, each once, in worker processes that keep their networks; a failed scan does not stop the others."""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from vertebral.core.errors import InputError
from vertebral.io.tables import write_csv
from vertebral.models.cards import find_model, find_refiner, read_card
from vertebral.runtime.worker_pool import threads_for, threads_in_environment
from vertebral.workflows.batch.scans import BatchScan, find_scans
from vertebral.workflows.batch.worker import BatchRow, failed, run_worker
from vertebral.workflows.config import RunConfig

Progress = Callable[[int, int, str], None]
TABLE, JOURNAL = "scans.csv", "scans.jsonl"

_SECONDS_TO_TIDY_UP = 10.0


@dataclass
class _Worker:
    """A process, our end of its pipe, and the scans it was given and has not answered yet."""

    process: BaseProcess
    pipe: connection.Connection
    given: deque[BatchScan] = field(default_factory=deque)


def run_scans(
    place: Path,
    out: Path,
    config: RunConfig,
    jobs: int = 1,
    progress: Progress = lambda done, total, text: None,
) -> list[BatchRow]:
    """Run every scan of a folder or a list (see `find_scans`), each into a folder of its own in `out`.

    `jobs` worker processes run at once; each keeps its networks and gets its share of the processors. A result of the
    same input, options and weights that already exists is skipped, unless `config.overwrite`. Each row is appended to
    `scans.jsonl` in `out` as soon as its scan ends; all rows, in the order of the scans, go to `scans.csv` and are
    returned. A scan that fails, even by killing its process, has a row with its error. `progress(done, total, name)`
    follows.

    Raises ConfigError if there is no scan, ModelError for an unknown model, and InputError if `out` cannot be written
    to, all before any work.
    """
    scans = find_scans(place, out)
    _require_model(config)
    try:
        out.mkdir(parents=True, exist_ok=True)
        journal = (out / JOURNAL).open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); choose another --out") from error
    rows: dict[str, BatchRow] = {}
    with journal:
        for row in _in_processes(scans, out, config, min(jobs, len(scans))):
            rows[row.name] = row
            journal.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
            journal.flush()
            progress(len(rows), len(scans), row.name)
    ordered = [rows[scan.name] for scan in scans]
    write_csv([asdict(row) for row in ordered], out / TABLE)
    return ordered


def counts(rows: list[BatchRow]) -> dict[str, int]:
    """Count the scans that were done, skipped and failed."""
    found = Counter(row.status for row in rows)
    return {status: found[status] for status in ("done", "skipped", "failed")}


def _require_model(config: RunConfig) -> None:
    """Refuse a missing model once, instead of once per scan."""
    place, _ = find_model(config.model)
    if place.is_dir() and config.refine:
        find_refiner(config.model, read_card(place).config)


def _in_processes(scans: list[BatchScan], out: Path, config: RunConfig, jobs: int) -> Iterator[BatchRow]:
    """Yield rows as scans end. A worker gets its next scan early, to read ahead, while enough scans are waiting."""
    waiting = deque(scans)
    threads = threads_for(jobs)
    workers = [_start(out, config, threads) for _ in range(jobs)]
    try:
        while True:
            for worker in workers:
                while waiting and len(worker.given) < (1 if len(waiting) < jobs else 2):
                    worker.given.append(waiting.popleft())
                    _send(worker, worker.given[-1])
            busy = {worker.pipe: n for n, worker in enumerate(workers) if worker.given}
            if not busy:
                break
            for pipe in connection.wait(list(busy)):
                n = busy[pipe]  # type: ignore[index]
                worker = workers[n]
                try:
                    row: BatchRow = worker.pipe.recv()
                    worker.given.popleft()
                except (EOFError, OSError):
                    row = _death(worker)
                    waiting.extendleft(reversed(worker.given))
                    workers[n] = _start(out, config, threads)
                yield row
        for worker in workers:
            _send(worker, None)
            worker.process.join()
    finally:
        _end(workers)


def _start(out: Path, config: RunConfig, threads: int) -> _Worker:
    context = get_context("spawn")
    pipe, other_end = context.Pipe()
    process = context.Process(target=run_worker, args=(other_end, out, config, threads), daemon=True)
    with threads_in_environment(threads):
        process.start()
    other_end.close()
    return _Worker(process, pipe)


def _send(worker: _Worker, scan: BatchScan | None) -> None:
    """Send a scan to a worker; a dead worker is noticed when its row is received."""
    with suppress(OSError):
        worker.pipe.send(scan)


def _death(worker: _Worker) -> BatchRow:
    """Return the row of the scan that a dead worker was running; the scan it had read ahead stays in `given`."""
    worker.process.join(_SECONDS_TO_TIDY_UP)
    code = worker.process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    reason = f"its process was killed ({how}), perhaps because memory ran out: use fewer --jobs, or crop the scan"
    return failed(worker.given.popleft(), reason)


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.process.is_alive():
            worker.process.terminate()
    for worker in workers:
        worker.process.join(_SECONDS_TO_TIDY_UP)
        if worker.process.is_alive():
            worker.process.kill()
        worker.pipe.close()
