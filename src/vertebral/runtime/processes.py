"""Processes that work beside others: forked copies, the user's Ctrl-C, and each other's threads."""

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
    """Leave Ctrl-C to the process that the user started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def threads_for(jobs: int = 1) -> int:
    """How many threads each of `jobs` processes may use so that together they fill the processors and no more.

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
    """Have processes that start meanwhile, and their libraries, use `threads`: most read it when they are imported."""
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


class Beside:
    """What is done beside the process that asks for it, as far as `count` processors allow.

    On Linux by forked copies, which see all that this process holds, so that only results travel; they may do what
    needs no threads of others (numpy, SciPy, VTK, files, but no network). Elsewhere by threads, for `start` only. With
    one processor all is done here, when it is asked for. Leaving the block ends the copies that still work.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._forks = count > 1 and sys.platform == "linux"
        self._threads = ThreadPoolExecutor(count) if count > 1 and not self._forks else None
        self._copies: list[_Copy[Any]] = []

    def __enter__(self) -> "Beside":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for copy in self._copies:
            copy.end()
        if self._threads is not None:
            self._threads.shutdown()

    def start(self, work: Callable[[], T]) -> Callable[[], T]:
        """Start `work`; what is returned waits for its result, and raises what it raised. To be asked for once."""
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
        """Return `work` of each of `items`, in their order; `progress(share)` follows what is done here."""
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
        self._process = context.Process(target=_do, args=(work, sender), daemon=True)
        with warnings.catch_warnings():
            # From Python 3.12 on: that threads hold locks which nobody frees in a copy; it takes none of theirs.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            self._process.start()
        sender.close()

    def result(self) -> T:
        """Wait for the result. A copy that was killed, or whose result does not travel, has its work done here."""
        try:
            failed, value = self._receiver.recv()
        except EOFError:
            return self._work()
        finally:
            self.end()
        if failed:
            raise value
        return value  # type: ignore[no-any-return]  # what comes through a pipe has no type

    def end(self) -> None:
        """End the process, if it still works."""
        self._receiver.close()
        self._process.kill()
        self._process.join()


def _do(work: Callable[[], Any], sender: Connection) -> None:
    """Send back whether `work` failed, and its result or error; nothing where that does not travel."""
    ignore_interrupts()
    gc.freeze()  # collecting garbage would write to all pages that are shared so far
    try:
        found = (False, work())
    except Exception as error:
        found = (True, error)
    with suppress(Exception):
        sender.send(found)
