"""Processes that share the work on many items, and how many threads each may use."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")
Item = TypeVar("Item")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VTK_SMP_MAX_THREADS")


@dataclass(frozen=True)
class ProcessDied:
    """Returned instead of a result: the process died before it answered, mostly because memory ran out."""

    reason: str = "its process was killed, perhaps because memory ran out"


def map_in_processes(
    work: Callable[[Item], T], items: Sequence[Item], jobs: int, threads: int | None = None
) -> Iterator[tuple[int, T | ProcessDied]]:
    """Yield (index, result) as results come, from `jobs` fresh processes, or from this one if `jobs` is 1.

    `threads` bounds the threads of each process. If a process dies, the items without a result are done again, each in
    a process of its own; an item whose process dies again yields ProcessDied. Raises what `work` raises.
    """
    if jobs <= 1:
        yield from ((n, work(item)) for n, item in enumerate(items))
        return
    left = dict(enumerate(items))
    try:
        for n, result in _pooled(work, left, jobs, threads):
            del left[n]
            yield n, result
    except BrokenProcessPool:
        for n, item in left.items():
            yield n, run_in_process(work, item, threads)


def run_in_process(work: Callable[[Item], T], item: Item, threads: int | None = None) -> T | ProcessDied:
    """Return `work(item)` from a process of its own, or ProcessDied. Raises what `work` raises."""
    try:
        return next(_pooled(work, {0: item}, 1, threads))[1]
    except BrokenProcessPool:
        return ProcessDied()


def _pooled(
    work: Callable[[Item], T], items: dict[int, Item], jobs: int, threads: int | None
) -> Iterator[tuple[int, T]]:
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), ignore_interrupts)
    try:
        with threads_in_environment(threads) if threads is not None else nullcontext():
            futures = {pool.submit(work, item): n for n, item in items.items()}
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process: the parent that the user started handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def threads_for(jobs: int = 1) -> int:
    """Return how many threads each of `jobs` processes may use so that together they just fill the processors.

    `OMP_NUM_THREADS` bounds it.
    """
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        processors = os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, processors // jobs)
    return min(share, int(asked)) if asked.isdigit() and int(asked) > 0 else share


@contextmanager
def threads_in_environment(threads: int) -> Iterator[None]:
    """Limit processes started in this block, and their libraries, to `threads`: most read this when imported."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
