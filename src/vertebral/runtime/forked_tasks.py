"""Runs tasks in forked copies of this process, which share its memory."""

import gc
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, TypeVar

from vertebral.runtime.worker_pool import ignore_interrupts

T = TypeVar("T")
Item = TypeVar("Item")

# Ten times the longest task measured, on one busy processor.
DEADLINE_S = 600.0


class ForkedTasks:
    """Runs tasks in forked copies of this process, up to `count` at a time; with a count of 1, in this process.

    A copy sees all memory of this process, so only results are sent between processes. Tasks must not rely on threads
    started before the fork: numpy, SciPy, VTK and files are safe, networks are not. Only Linux forks; elsewhere `start`
    uses threads, and `map` runs in this process. A copy that does not answer within `deadline_s` of being waited for is
    ended, its task is done in this process, and `warnings` says so. Leaving the block ends copies that still run.
    """

    def __init__(self, count: int = 1, deadline_s: float = DEADLINE_S) -> None:
        self.count = count
        self.warnings: list[str] = []
        self._deadline_s = deadline_s
        self._forks = count > 1 and sys.platform == "linux"
        self._threads = ThreadPoolExecutor(count) if count > 1 and not self._forks else None
        self._copies: list[_Copy[Any]] = []

    def __enter__(self) -> "ForkedTasks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for copy in self._copies:
            copy.end()
        if self._threads is not None:
            self._threads.shutdown()

    def start(self, task: Callable[[], T]) -> Callable[[], T]:
        """Start `task`; return a function that waits for its result, or raises its error. Call that once."""
        if self._forks:
            copy = _Copy(task, self._deadline_s, self.warnings)
            self._copies.append(copy)
            return copy.result
        if self._threads is not None:
            return self._threads.submit(task).result
        return task

    def map(
        self, task: Callable[[Item], T], items: Sequence[Item], progress: Callable[[float], None] = lambda share: None
    ) -> list[T]:
        """Return `task` of each of `items`, in order; `progress(share)` follows the share of this process."""
        count = max(1, min(self.count, len(items))) if self._forks else 1
        others = [self.start(lambda n=n: [task(item) for item in items[n::count]]) for n in range(1, count)]  # type: ignore[misc]  # mypy cannot type a lambda's default
        own = []
        for n, item in enumerate(items[::count]):
            progress(n * count / len(items))
            own.append(task(item))
        groups = [own, *(other() for other in others)]
        return [groups[n % count][n // count] for n in range(len(items))]


class _Copy(Generic[T]):
    """A forked copy of this process that does one task."""

    def __init__(self, task: Callable[[], T], deadline_s: float, notes: list[str]) -> None:
        self._task, self._deadline_s, self._notes = task, deadline_s, notes
        context = get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_do, args=(task, sender), daemon=True)
        with warnings.catch_warnings():
            # Python 3.12 warns that threads of this process hold locks that nobody frees in a copy; it takes none.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            self._process.start()
        sender.close()

    def result(self) -> T:
        """Wait for the result. If the copy was killed, is too slow, or cannot send its result, do the task here."""
        try:
            if not self._receiver.poll(self._deadline_s):
                self._notes.append(
                    f"a process of this run did not answer within {self._deadline_s:g} s; it was ended and its work "
                    "done again: the results are complete, but the run took longer"
                )
                raise EOFError
            failed, value = self._receiver.recv()
        except EOFError:
            self.end()
            return self._task()
        finally:
            self.end()
        if failed:
            raise value
        return value  # type: ignore[no-any-return]  # what comes through a pipe has no type

    def end(self) -> None:
        """End the process if it is still at work."""
        self._receiver.close()
        self._process.kill()
        self._process.join()


def _do(task: Callable[[], Any], sender: Connection) -> None:
    """Send whether `task` failed, and its result or error; send nothing if that cannot be pickled."""
    ignore_interrupts()
    gc.freeze()  # collecting garbage would write to all pages that are shared so far
    try:
        found = (False, task())
    except Exception as error:
        found = (True, error)
    with suppress(Exception):
        sender.send(found)
