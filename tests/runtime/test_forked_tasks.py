"""Tasks in forked copies of the process that asks for them."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from vertebral.core.errors import RenderError
from vertebral.runtime.forked_tasks import ForkedTasks

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="copies are forked on Linux only")


@pytest.fixture(params=["one", "copies", "threads"])
def count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many processors: work is done at once, by forked copies, or by threads as on other systems."""
    if request.param == "threads":
        monkeypatch.setattr(sys, "platform", "darwin")
    return 1 if request.param == "one" else 3


def test_results_and_errors_come_back(count: int) -> None:
    big = b"x" * 3_000_000

    def fail() -> None:
        raise RenderError("no screen")

    with ForkedTasks(count) as tasks:
        failed, found = tasks.start(fail), tasks.start(lambda: (big, 2))
        assert found() == (big, 2)
        with pytest.raises(RenderError, match="no screen"):
            failed()


@pytest.mark.parametrize("items", [0, 1, 2, 3, 7])
def test_map_keeps_the_order(items: int, count: int) -> None:
    shares: list[float] = []
    with ForkedTasks(count) as tasks:
        assert tasks.map(lambda n: n * n, list(range(items)), shares.append) == [n * n for n in range(items)]
    assert shares == sorted(shares)
    assert all(0 <= share < 1 for share in shares)


@linux_only
def test_copies_are_other_processes() -> None:
    with ForkedTasks(2) as tasks:
        assert len({*tasks.map(lambda _: os.getpid(), [1, 2]), tasks.start(os.getpid)()}) == 3


@linux_only
def test_the_work_of_a_killed_copy_is_done_here() -> None:
    here = os.getpid()

    def work() -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    with ForkedTasks(2) as tasks:
        assert tasks.start(work)() == here


@linux_only
def test_work_whose_result_does_not_travel_is_done_here(capfd: pytest.CaptureFixture[str]) -> None:
    with ForkedTasks(2) as tasks:
        assert tasks.start(lambda: lambda: 3)()() == 3


@linux_only
def test_leaving_the_block_ends_copies(tmp_path: Path) -> None:
    def work() -> None:
        time.sleep(60)
        (tmp_path / "late").touch()

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), ForkedTasks(2) as tasks:
        tasks.start(work)
        raise KeyboardInterrupt
    assert time.monotonic() - start < 30
    assert not (tmp_path / "late").exists()


@linux_only
def test_a_copy_that_does_not_answer_is_ended_and_its_task_done_here() -> None:
    here = os.getpid()

    def task() -> int:
        if os.getpid() != here:
            time.sleep(60)
        return os.getpid()

    start = time.monotonic()
    with ForkedTasks(2, deadline_s=0.2) as tasks:
        assert tasks.start(task)() == here
    assert time.monotonic() - start < 30
    assert len(tasks.warnings) == 1 and "did not answer within 0.2 s" in tasks.warnings[0]
