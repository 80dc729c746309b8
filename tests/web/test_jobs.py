import json
import sys
import time
from pathlib import Path

import pytest

from chromium import wait_until
from vertebral.core.errors import InputError
from vertebral.web import job_runner
from vertebral.web.job_runner import JobRunner
from vertebral.web.jobs import JobStore
from vertebral.web.uploads import MAX_FILES, require_space, stored_name

GOOD = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1]); out.mkdir(exist_ok=True)
print('a warning of some library', file=sys.stderr)
print(json.dumps({'stage': 'infer', 'share': 0.5}), file=sys.stderr, flush=True)
(out / 'args').write_text(' '.join(sys.argv[1:]))
"""
BAD = "import json, sys; print(json.dumps({'error': sys.argv[2] + ': not a CT'})); sys.exit(2)"
SLOW = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
print(json.dumps({'stage': 'refine', 'share': 0.25}), file=sys.stderr, flush=True)
time.sleep(60)
"""
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def use(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(job_runner, "_COMMAND", (sys.executable, "-c", code, "run"))


def job_with_file(jobs: JobStore) -> str:
    job = jobs.create()
    (jobs.input_folder(job.id) / "scan.nii.gz").write_text("x")
    return job.id


def state_of(jobs: JobStore, job_id: str) -> str:
    job = jobs.get(job_id)
    return "gone" if job is None else job.state


@pytest.fixture
def jobs(folder: Path) -> JobStore:
    return JobStore(folder)


@pytest.fixture
def runner(jobs: JobStore) -> object:
    runner = JobRunner(jobs, ("--model", "m"), keep_days=1)
    runner.start()
    yield runner
    runner.close()


def test_a_job_runs_in_its_own_process(jobs: JobStore, runner: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, GOOD)
    job_id = job_with_file(jobs)
    runner.queue(job_id)
    wait_until(lambda: state_of(jobs, job_id) == "done", "the run")
    args = (jobs.result_folder(job_id) / "args").read_text()
    assert args.startswith(f"run {jobs.input_folder(job_id)}/scan.nii.gz --out") and args.endswith("--model m")
    assert json.loads((jobs.folder / job_id / "job.json").read_text())["state"] == "done"


def test_several_files_are_run_as_a_folder(jobs: JobStore) -> None:
    job_id = job_with_file(jobs)
    assert jobs.input_path(job_id).name == "scan.nii.gz"
    (jobs.input_folder(job_id) / "scan-000001.dcm").write_text("x")
    assert jobs.input_path(job_id) == jobs.input_folder(job_id)


def test_a_failure_is_told_without_the_path(jobs: JobStore, runner: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, BAD)
    job_id = job_with_file(jobs)
    runner.queue(job_id)
    wait_until(lambda: state_of(jobs, job_id) == "failed", "the failure")
    job = jobs.get(job_id)
    assert job is not None and job.error == "not a CT"
    use(monkeypatch, KILLED)
    runner.queue(job_id)
    wait_until(
        lambda: "signal 9, perhaps because memory ran out" in (jobs.get(job_id) or job).error, "the other failure"
    )


def test_cancel_ends_the_process(jobs: JobStore, runner: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SLOW)
    first, second = job_with_file(jobs), job_with_file(jobs)
    runner.queue(first)
    wait_until(lambda: getattr(jobs.get(first), "stage", "") == "refine", "the stage")
    job = jobs.get(first)
    assert job is not None and job.share == 0.25
    runner.queue(second)
    assert state_of(jobs, second) == "queued"  # one at a time
    runner.cancel(second)
    assert state_of(jobs, second) == "cancelled"
    start = time.monotonic()
    runner.cancel(first)
    assert time.monotonic() - start < 8
    wait_until(lambda: state_of(jobs, first) == "cancelled", "the cancel")
    use(monkeypatch, GOOD)
    runner.queue(second)
    wait_until(lambda: state_of(jobs, second) == "done", "the second try")


def test_jobs_survive_a_restart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SLOW)
    jobs = JobStore(folder)
    runner = JobRunner(jobs, (), keep_days=1)
    runner.start()
    running, waiting, half = job_with_file(jobs), job_with_file(jobs), jobs.create().id
    runner.queue(running)
    wait_until(lambda: getattr(jobs.get(running), "stage", "") == "refine", "the stage")
    runner.queue(waiting)
    runner.close()
    assert state_of(jobs, running) == "interrupted"
    use(monkeypatch, GOOD)
    again = JobStore(folder)
    assert (state_of(again, running), state_of(again, waiting), state_of(again, half)) == (
        "interrupted",
        "queued",
        "gone",
    )
    assert not (folder / half).exists()
    runner = JobRunner(again, (), keep_days=1)
    runner.start()
    wait_until(lambda: state_of(again, waiting) == "done", "the one that waited")
    runner.queue(running)
    wait_until(lambda: state_of(again, running) == "done", "the one that was interrupted")
    runner.close()


def test_a_crash_leaves_an_interrupted_job(folder: Path) -> None:
    jobs = JobStore(folder)
    job_id = job_with_file(jobs)
    jobs.update(job_id, state="running")
    (folder / "strange").mkdir()
    (folder / "strange" / "notes.txt").write_text("mine")
    (folder / "strange" / "job.json").write_text('{"id": "strange", "state": "uploading"}')
    assert state_of(JobStore(folder), job_id) == "interrupted"
    assert (folder / "strange" / "notes.txt").exists()


def test_old_jobs_go(jobs: JobStore) -> None:
    old, young, running = (job_with_file(jobs) for _ in range(3))
    long_ago = time.time() - 3 * 86_400
    jobs.update(old, state="done", ended_s=long_ago)
    jobs.update(young, state="done", ended_s=time.time())
    jobs.update(running, state="running", created_s=long_ago)
    jobs.purge(keep_days=2)
    assert {job.id for job in jobs.all()} == {young, running}
    assert not (jobs.folder / old).exists()


def test_the_folder_is_for_one_person(folder: Path, tmp_path: Path) -> None:
    JobStore(folder)
    assert folder.stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another --data"):
        JobStore(tmp_path / "file" / "jobs")


def test_names_of_uploads_are_not_kept(tmp_path: Path) -> None:
    assert stored_name(0, "Doe^Jane.nii.gz") == "scan.nii.gz"
    assert stored_name(7, "../../etc/passwd") == "scan-000007"
    assert stored_name(1, "IM0001.DCM") == "scan-000001.dcm"
    with pytest.raises(InputError, match="upload both in one zip"):
        stored_name(0, "a.mhd")
    with pytest.raises(InputError, match="more than 20000 files"):
        stored_name(MAX_FILES, "a")
    (tmp_path / "a").write_bytes(bytes(600))
    require_space(tmp_path, 400, 1000)
    with pytest.raises(InputError, match=r"larger than 1e-06 GB: raise --max-upload-gb"):
        require_space(tmp_path, 401, 1000)
