"""Jobs on disk: each has a folder with its upload, its result, and a record that survives a restart."""

import json
import re
import secrets
import shutil
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vertebral.core.errors import InputError
from vertebral.io.write import write_json

State = Literal["uploading", "queued", "running", "done", "failed", "cancelled", "interrupted"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled", "interrupted")
_ID = re.compile(r"[0-9a-f]{16}")
_RECORD = "job.json"
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Job:
    """One CT. Neither its folder nor this record contains file or patient names; `created_s` is Unix time."""

    id: str
    created_s: float
    state: State = "uploading"
    stage: str = ""
    share: float = 0.0
    error: str = ""
    pins: tuple[dict[str, Any], ...] = ()
    ended_s: float | None = None


class JobStore:
    """All jobs in a folder. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Load earlier jobs: queued ones stay queued, running ones become interrupted.

        Raises InputError if the folder cannot be written to.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written to ({error.strerror}); choose another --data") from error
        self.folder = folder
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        for record in sorted(folder.glob(f"*/{_RECORD}")):
            job = _read(record)
            if job is None:
                continue  # not one of our jobs: leave it
            if job.state == "uploading":
                shutil.rmtree(record.parent)
                continue
            self._jobs[job.id] = job
            if job.state == "running":
                self.update(job.id, state="interrupted", ended_s=time.time())

    def all(self) -> list[Job]:
        """Return all jobs, newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: -job.created_s)

    def get(self, job_id: str) -> Job | None:
        """Return the job, or None if there is none with this id."""
        with self._lock:
            return self._jobs.get(job_id)

    def create(self) -> Job:
        """Create an empty job to upload to."""
        job = Job(secrets.token_hex(8), time.time())
        with self._lock:
            self.input_folder(job.id).mkdir(parents=True)
            self._store(job)
        return job

    def update(self, job_id: str, **changes: Any) -> Job:
        """Change a job and its record. Raises KeyError if it was deleted."""
        with self._lock:
            job = replace(self._jobs[job_id], **changes)
            self._store(job)
        return job

    def progress(self, job_id: str, stage: str, share: float) -> None:
        """Update the progress of a run, in memory only."""
        with self._lock:
            if job_id in self._jobs:
                self._jobs[job_id] = replace(self._jobs[job_id], stage=stage, share=share)

    def delete(self, job_id: str) -> None:
        """Delete a job with its upload and results."""
        with self._lock:
            self._jobs.pop(job_id, None)
            shutil.rmtree(self.folder / job_id, ignore_errors=True)

    def next_queued(self) -> Job | None:
        """Return the job that has waited longest."""
        with self._lock:
            return next((job for job in reversed(self.all()) if job.state == "queued"), None)

    def purge(self, keep_days: float) -> None:
        """Delete jobs that ended, or whose upload began and never finished, more than `keep_days` ago."""
        limit = time.time() - keep_days * _DAY_S
        for job in self.all():
            if (job.ended_s or job.created_s) < limit and job.state in (*ENDED, "uploading"):
                self.delete(job.id)

    def input_folder(self, job_id: str) -> Path:
        """Folder of the upload. Results are named after it, or after its only file."""
        return self.folder / job_id / "scan"

    def input_path(self, job_id: str) -> Path:
        """Input of the run: the only file of the upload, or the folder of several."""
        files = list(self.input_folder(job_id).iterdir())
        return files[0] if len(files) == 1 else self.input_folder(job_id)

    def result_folder(self, job_id: str) -> Path:
        """Folder that the run writes."""
        return self.folder / job_id / "result"

    def corrected_folder(self, job_id: str) -> Path:
        """Folder of the result with corrected levels."""
        return self.folder / job_id / "corrected"

    def scratch_folder(self, job_id: str) -> Path:
        """Folder of temporary files that can be made again."""
        folder = self.folder / job_id / "scratch"
        folder.mkdir(exist_ok=True)
        return folder

    def _store(self, job: Job) -> None:
        write_json(asdict(job), self.folder / job.id / _RECORD)
        self._jobs[job.id] = job


def _read(record: Path) -> Job | None:
    try:
        fields = json.loads(record.read_text(encoding="utf-8"))
        job = Job(**{**fields, "pins": tuple(fields["pins"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return job if _ID.fullmatch(job.id) and job.id == record.parent.name else None
