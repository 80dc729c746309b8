"""Runs jobs one at a time, each in its own process, so that ending the process cancels the job."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from vertebral.web.jobs import Job, JobStore
from vertebral.web.uploads import without_path

_COMMAND = (sys.executable, "-m", "vertebral", "run")
_ENDS_WITHIN_S = 10.0
_PURGE_EVERY_S = 3600.0


class JobRunner:
    """A thread that runs the queued jobs one after another; `options` are passed to `vertebral run`."""

    def __init__(self, jobs: JobStore, options: Sequence[str], keep_days: float) -> None:
        self.jobs, self.options, self.keep_days = jobs, tuple(options), keep_days
        self._wake, self._stop = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._child: tuple[str, subprocess.Popen[str]] | None = None
        self._cancelled: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the run in progress, whose job becomes interrupted, and stop the thread."""
        self._stop.set()
        self._wake.set()
        self._end_child(None)
        self._thread.join(_ENDS_WITHIN_S + 5)

    def queue(self, job_id: str) -> None:
        """Queue a job."""
        with self._lock:
            self._cancelled.discard(job_id)
        self.jobs.update(job_id, state="queued", stage="", share=0.0, error="", ended_s=None)
        self._wake.set()

    def cancel(self, job_id: str) -> None:
        """Cancel a queued or running job; on return it is neither."""
        with self._lock:
            self._cancelled.add(job_id)
        self._end_child(job_id)
        job = self.jobs.get(job_id)
        if job is not None and job.state in ("queued", "running"):
            self.jobs.update(job_id, state="cancelled", ended_s=time.time())

    def _work(self) -> None:
        purged_s = 0.0
        while not self._stop.is_set():
            if time.monotonic() - purged_s > _PURGE_EVERY_S or not purged_s:
                self.jobs.purge(self.keep_days)
                purged_s = time.monotonic()
            job = self.jobs.next_queued()
            if job is None:
                self._wake.wait(60)
                self._wake.clear()
                continue
            with contextlib.suppress(KeyError):  # deleted meanwhile
                self._run(job)

    def _run(self, job: Job) -> None:
        source, out = self.jobs.input_path(job.id), self.jobs.result_folder(job.id)
        printed = self.jobs.scratch_folder(job.id) / "printed.json"
        command = [*_COMMAND, str(source), "--out", str(out), "--json", "--progress-json", "--overwrite", *self.options]
        shutil.rmtree(self.jobs.corrected_folder(job.id), ignore_errors=True)
        self.jobs.update(job.id, state="running", pins=())
        with printed.open("w", encoding="utf-8") as stdout:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        with self._lock:
            self._child = (job.id, child)
        if self._stop.is_set() or job.id in self._cancelled:
            self._end_child(job.id)
        assert child.stderr is not None
        with child.stderr:
            for line in child.stderr:
                _update_progress(self.jobs, job.id, line)
        code = child.wait()
        with self._lock:
            self._child = None
            cancelled = job.id in self._cancelled
        self._finish(job.id, code, cancelled, printed, source)

    def _finish(self, job_id: str, code: int, cancelled: bool, printed: Path, source: Path) -> None:
        if code == 0:
            self.jobs.update(job_id, state="done", stage="", share=1.0, ended_s=time.time())
        elif cancelled or self._stop.is_set():
            state = "cancelled" if cancelled else "interrupted"
            self.jobs.update(job_id, state=state, ended_s=time.time())
        else:
            self.jobs.update(job_id, state="failed", error=_reason(code, printed, source), ended_s=time.time())

    def _end_child(self, job_id: str | None) -> None:
        """End the run of `job_id`, or any run if None: SIGTERM first, so that it can clean up, then SIGKILL."""
        with self._lock:
            child = self._child
        if child is None or (job_id is not None and child[0] != job_id):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child[1].pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child[1].wait(_ENDS_WITHIN_S)
                return


def _update_progress(jobs: JobStore, job_id: str, line: str) -> None:
    """Parse a line of progress; other lines, such as warnings of a library, are ignored."""
    try:
        progress = json.loads(line)
        jobs.progress(job_id, str(progress["stage"]), float(progress["share"]))
    except (ValueError, KeyError, TypeError):
        return


def _reason(code: int, printed: Path, source: Path) -> str:
    """Return the error message of a failed run, without the path of the upload, which the user never saw."""
    try:
        error = str(json.loads(printed.read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        ended = f"signal {-code}, perhaps because memory ran out" if code < 0 else f"exit code {code}"
        return f"the run ended unexpectedly ({ended}): try again, or use `vertebral run`"
    return without_path(error, source)
