"""Many scans: each done once, in processes that keep their networks; a broken scan is a row, not the end."""

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
from vertebral.runtime.processes import threads_for, threads_in_environment
from vertebral.workflows.batch.scans import Source, find_scans
from vertebral.workflows.batch.worker import Row, failed, serve
from vertebral.workflows.config import RunConfig

Progress = Callable[[int, int, str], None]
TABLE, JOURNAL = "scans.csv", "scans.jsonl"

_SECONDS_TO_TIDY_UP = 10.0


@dataclass
class _Worker:
    """A process, this end of its pipe, and the scans that it was given and did not answer yet."""

    process: BaseProcess
    pipe: connection.Connection
    given: deque[Source] = field(default_factory=deque)


def run_scans(
    place: Path,
    out: Path,
    config: RunConfig,
    jobs: int = 1,
    progress: Progress = lambda done, total, text: None,
) -> list[Row]:
    """Run every scan of a folder or a list (see `find_scans`), each into a folder of its own in `out`.

    `jobs` processes work at once; each keeps its networks and has its share of the processors. What is there already
    of the same bytes, options and weights is skipped, unless `config.overwrite`. A row goes to `scans.jsonl` in `out`
    as soon as its scan ends, and all of them, in the order of the scans, to `scans.csv`; they are returned too. A scan
    that fails, even by killing its process, is a row with its error. `progress(done, total, name)` follows.

    Raises ConfigError where there is no scan, ModelError for an unknown model, and InputError where `out` cannot be
    written to, before any work.
    """
    sources = find_scans(place, out)
    _require_model(config)
    try:
        out.mkdir(parents=True, exist_ok=True)
        journal = (out / JOURNAL).open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); choose another --out") from error
    rows: dict[str, Row] = {}
    with journal:
        for row in _in_processes(sources, out, config, min(jobs, len(sources))):
            rows[row.name] = row
            journal.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
            journal.flush()
            progress(len(rows), len(sources), row.name)
    ordered = [rows[source.name] for source in sources]
    write_csv([asdict(row) for row in ordered], out / TABLE)
    return ordered


def counts(rows: list[Row]) -> dict[str, int]:
    """How many scans were done, skipped and failed."""
    found = Counter(row.status for row in rows)
    return {status: found[status] for status in ("done", "skipped", "failed")}


def _require_model(config: RunConfig) -> None:
    """Refuse a model that is not there once, and not for every scan."""
    place, _ = find_model(config.model)
    if place.is_dir() and config.refine:
        find_refiner(config.model, read_card(place).config)


def _in_processes(sources: list[Source], out: Path, config: RunConfig, jobs: int) -> Iterator[Row]:
    """Yield rows as scans end. The next scan is given out early, to be read ahead, while there are enough for all."""
    waiting = deque(sources)
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
                    row: Row = worker.pipe.recv()
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
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, out, config, threads), daemon=True)
    with threads_in_environment(threads):
        process.start()
    theirs.close()
    return _Worker(process, pipe)


def _send(worker: _Worker, source: Source | None) -> None:
    """Give a scan to a worker; one that is dead will show when its row is waited for."""
    with suppress(OSError):
        worker.pipe.send(source)


def _death(worker: _Worker) -> Row:
    """The row of the scan that a dead worker was at; the one it had read ahead stays among `given`."""
    worker.process.join(_SECONDS_TO_TIDY_UP)
    code = worker.process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    reason = f"its process was killed ({how}), perhaps for want of memory: use fewer --jobs, or crop the scan"
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
