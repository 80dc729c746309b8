import os
import signal
from pathlib import Path

import pytest

from vertebral.runtime.worker_pool import ProcessDied, map_in_processes, run_in_process, threads_for


def square(n: int) -> int:
    return n * n


def die_of_three(n: int) -> int:
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def die_once(place: Path) -> str:
    try:
        place.touch(exist_ok=False)
    except FileExistsError:
        return "done"
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def fail(n: int) -> int:
    raise ValueError(f"no {n}")


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_has_its_result(jobs: int) -> None:
    assert dict(map_in_processes(square, [1, 2, 3], jobs)) == {0: 1, 1: 4, 2: 9}


def test_an_item_that_kills_its_process_costs_no_other() -> None:
    assert dict(map_in_processes(die_of_three, [1, 3, 5], 2)) == {0: 1, 1: ProcessDied(), 2: 5}


def test_an_item_whose_process_died_is_tried_again(tmp_path: Path) -> None:
    assert dict(map_in_processes(die_once, [tmp_path / "a", tmp_path / "a"], 2)) == {0: "done", 1: "done"}


def test_errors_come_back() -> None:
    with pytest.raises(ValueError, match="no 1"):
        dict(map_in_processes(fail, [1, 1], 2))
    with pytest.raises(ValueError, match="no 7"):
        run_in_process(fail, 7)


def test_threads_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_for(jobs) for jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [threads_for(jobs) for jobs in (1, 8)] == [2, 1]
