"""Worker processes: forked tasks, Ctrl-C, and the number of threads each process may use."""

import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VTK_SMP_MAX_THREADS")


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process: the parent that the user started handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def threads_for(jobs: int = 1) -> int:
    """Return how many threads each of `jobs` processes may use so that together they do not exceed the processors.

    `OMP_NUM_THREADS` is an upper bound.
    """
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        processors = os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, processors // jobs)
    return min(share, int(limit)) if limit.isdigit() and int(limit) > 0 else share


@contextmanager
def threads_in_environment(threads: int) -> Iterator[None]:
    """Limit processes started in this block to `threads`: most libraries read these variables when imported."""
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


class ForkedTasks:
    """Runs tasks in forked copies of this process, up to `count` at a time.

    A forked copy sees all memory of this process, so that only results are sent between processes. Tasks must not rely
    on threads started before the fork: numpy, SciPy, VTK and files are safe, networks are not. On other systems than
    Linux, `start` uses threads and `map` runs in this process. With a `count` of 1 a task runs in this process when its
    result is requested. Leaving the block ends the copies that are still running.
    """

    def __init__(self, count: int) -> None:
        self._count = count
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

    def start(self, work: Callable[[], T]) -> Callable[[], T]:
        """Start `work`; return a function that waits for its result, or raises its error. Call that once."""
        if self._forks:
            copy = _Copy(work)
            self._copies.append(copy)
            return copy.result
        if self._threads is not None:
            return self._threads.submit(work).result
        return work

    def map(
        self, work: Callable[[Item], T], items: Sequence[Item], progress: Callable[[float], None] = lambda share: None
    ) -> list[T]:
        """Return `work(item)` for each of `items`, in their order; `progress(share)` follows this process's share."""
        count = max(1, min(self._count, len(items))) if self._forks else 1
        others = [self.start(lambda n=n: [work(item) for item in items[n::count]]) for n in range(1, count)]  # type: ignore[misc]  # mypy cannot type a lambda's default
        own = []
        for n, item in enumerate(items[::count]):
            progress(n * count / len(items))
            own.append(work(item))
        groups = [own, *(other() for other in others)]
        return [groups[n % count][n // count] for n in range(len(items))]


class _Copy(Generic[T]):
    """A forked copy of this process that does `work`."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        context = get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(work, sender), daemon=True)
        with warnings.catch_warnings():
            # Python 3.12 warns that locks held by other threads stay locked in a copy; the tasks take none of those.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            self._process.start()
        sender.close()

    def result(self) -> T:
        """Wait for the result. If the copy was killed, or could not send its result, do the work in this process."""
        try:
            failed, value = self._receiver.recv()
        except EOFError:
            return self._work()
        finally:
            self.end()
        if failed:
            raise value
        return value  # type: ignore[no-any-return]  # a pipe does not carry types

    def end(self) -> None:
        """End the process if it is still running."""
        self._receiver.close()
        self._process.kill()
        self._process.join()


def _run(work: Callable[[], Any], sender: Connection) -> None:
    """Send back whether `work` failed, with its result or error; send nothing if that cannot be pickled."""
    ignore_interrupts()
    gc.freeze()  # garbage collection would write to, and so copy, all shared pages
    try:
        found = (False, work())
    except Exception as error:
        found = (True, error)
    with suppress(Exception):
        sender.send(found)
