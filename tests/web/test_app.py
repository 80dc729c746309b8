import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from chromium import wait_until
from results import Made, write_result
from vertebral.web import job_runner
from vertebral.web.app import App, AppOptions
from vertebral.web.job_runner import JobRunner
from vertebral.web.jobs import JobStore

# Stands in for a run: takes the result that lies beside the jobs.
COPY = """
import json, pathlib, shutil, sys
out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])
source = pathlib.Path(sys.argv[2])
if source.stat().st_size < 100:
    print(json.dumps({'error': f'{source}: not a readable NIfTI file'})); sys.exit(2)
shutil.copytree(out.parents[2] / 'ready' / 'result', out)
"""


@dataclass(frozen=True)
class Running:
    server: Any
    jobs: JobStore
    ct: bytes

    def state(self, job_id: str) -> str:
        jobs = json.loads(self.server.ask("api/jobs").body)
        return next((job["state"] for job in jobs if job["id"] == job_id), "gone")

    def give(self, body: bytes, name: str = "a.nii.gz") -> str:
        job_id = str(json.loads(self.server.ask("api/jobs", "POST").body)["id"])
        answer = self.server.ask(f"api/jobs/{job_id}/files/0", "PUT", body, x_file_name=name)
        assert answer.status == 200, answer.body
        assert self.server.ask(f"api/jobs/{job_id}/start", "POST").status == 200
        return job_id


@pytest.fixture(scope="module")
def running(made: Made, tmp_path_factory: pytest.TempPathFactory, serving: Callable[..., Any]) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("app")
    _, ct = write_result(made, root / "ready")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(job_runner, "_COMMAND", (sys.executable, "-c", COPY, "run"))
    options = AppOptions(root / "jobs", max_upload_gb=0.001, keep_days=1)
    jobs = JobStore(options.data)
    runner = JobRunner(jobs, (), options.keep_days)
    runner.start()
    yield Running(serving(lambda token: App(jobs, runner, options).asgi(token)), jobs, ct.read_bytes())
    runner.close()
    monkeypatch.undo()


def test_from_upload_to_download(running: Running) -> None:
    job_id = running.give(running.ct)
    wait_until(lambda: running.state(job_id) == "done", "the run")
    page = running.server.ask(f"jobs/{job_id}/")
    assert page.status == 200 and b'"correct_at":"correct"' in page.body
    assert running.server.ask(f"jobs/{job_id}/volumes/ct.nii").status == 200
    assert running.server.ask(f"jobs/{job_id}/files/case_L1.stl").status == 200
    assert running.server.ask(f"jobs/{job_id}/files/..%2f..%2fjob.json").status == 404
    archive = running.server.ask(f"jobs/{job_id}/all.zip")
    assert archive.headers["content-disposition"] == 'attachment; filename="vertebral.zip"'
    names = zipfile.ZipFile(io.BytesIO(archive.body)).namelist()
    assert {"manifest.json", "report.html", "case_spine.glb"} <= set(names)


def test_a_level_is_corrected_and_the_correction_undone(running: Running) -> None:
    job_id = running.give(running.ct)
    wait_until(lambda: running.state(job_id) == "done", "the run")

    def levels() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(running.server.ask(f"jobs/{job_id}/files/manifest.json").body)["levels"]
        return rows

    pin = {"level": "L3", "point_mm": levels()[1]["centroid_ras_mm"]}
    answer = running.server.ask(f"jobs/{job_id}/correct", "POST", json.dumps({"pins": [pin]}).encode())
    assert answer.status == 200, answer.body
    assert [row["level"] for row in levels()] == ["L2", "L3", "L4"]
    assert b'"pins":[{"level":"L3"' in running.server.ask(f"jobs/{job_id}/").body
    far = {"level": "L3", "point_mm": [0, 0, 9999]}
    answer = running.server.ask(f"jobs/{job_id}/correct", "POST", json.dumps({"pins": [far]}).encode())
    assert answer.status == 400 and "no vertebra within 20 mm" in json.loads(answer.body)["error"]
    assert [row["level"] for row in levels()] == ["L2", "L3", "L4"]
    assert running.server.ask(f"jobs/{job_id}/correct", "POST", b'{"pins": []}').status == 200
    assert [row["level"] for row in levels()] == ["T12", "L1", "L2"]


def test_a_bad_upload_fails_with_a_reason(running: Running) -> None:
    job_id = str(json.loads(running.server.ask("api/jobs", "POST").body)["id"])
    assert running.server.ask(f"api/jobs/{job_id}/files/0", "PUT", b"no image", x_file_name="a.nii").status == 200
    answer = running.server.ask(f"api/jobs/{job_id}/start", "POST")
    assert answer.status == 400
    assert json.loads(answer.body)["error"].startswith("not a NIfTI") and str(running.jobs.folder) not in str(
        answer.body
    )
    assert running.state(job_id) == "uploading"


def test_a_failed_run_gives_its_reason(running: Running) -> None:
    job_id = running.give(running.ct, name="a.nii.gz")
    wait_until(lambda: running.state(job_id) == "done", "the run")
    running.jobs.input_path(job_id).write_bytes(b"broken meanwhile")
    assert running.server.ask(f"api/jobs/{job_id}/restart", "POST").status == 200
    wait_until(lambda: running.state(job_id) == "failed", "the failure")
    (job,) = [job for job in json.loads(running.server.ask("api/jobs").body) if job["id"] == job_id]
    assert job["error"] == "not a readable NIfTI file"
    assert running.server.ask(f"jobs/{job_id}/").status == 409


def test_uploads_are_limited(running: Running) -> None:
    job_id = json.loads(running.server.ask("api/jobs", "POST").body)["id"]
    answer = running.server.ask(f"api/jobs/{job_id}/files/0", "PUT", bytes(1_000_001))
    assert answer.status == 400 and "larger than 0.001 GB" in json.loads(answer.body)["error"]
    for number in range(1, 12):
        running.server.ask(f"api/jobs/{job_id}/files/{number}", "PUT", bytes(100_000))
    answer = running.server.ask(f"api/jobs/{job_id}/start", "POST")  # many small ones are no way around it
    assert answer.status == 400 and "--max-upload-gb" in json.loads(answer.body)["error"]
    assert running.server.ask(f"api/jobs/{job_id}", "DELETE").status == 200
    assert not (running.jobs.folder / job_id).exists()


def test_deleting_leaves_nothing(running: Running) -> None:
    job_id = running.give(running.ct)
    wait_until(lambda: running.state(job_id) == "done", "the run")
    running.server.ask(f"jobs/{job_id}/")
    assert running.server.ask(f"api/jobs/{job_id}", "DELETE").status == 200
    assert running.state(job_id) == "gone" and not (running.jobs.folder / job_id).exists()
    assert running.server.ask(f"jobs/{job_id}/").status == 404
    assert running.server.ask(f"api/jobs/{job_id}", "DELETE").status == 404


def test_no_name_is_kept(running: Running) -> None:
    job_id = running.give(running.ct, name="Doe%5EJane.nii.gz")
    wait_until(lambda: running.state(job_id) == "done", "the run")
    shutil.rmtree(running.jobs.result_folder(job_id))
    kept = list((running.jobs.folder / job_id).rglob("*"))
    assert not any("Doe" in path.name or (path.is_file() and b"Doe" in path.read_bytes()) for path in kept)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("api/jobs/0000000000000000/start", "POST", 404),
        ("api/jobs/..%2f..", "DELETE", 405),
        ("api/jobs/%2e%2e", "DELETE", 404),
        ("jobs/0000000000000000/", "GET", 404),
        ("jobs/%2e%2e/files/job.json", "GET", 404),
        ("api/jobs", "DELETE", 405),
        ("api/nothing", "GET", 404),
    ],
)
def test_strange_requests_are_refused(path: str, method: str, status: int, running: Running) -> None:
    assert running.server.ask(path, method).status == status


def test_the_home_page_allows_its_own_script_only(running: Running) -> None:
    text = running.server.ask("").body.decode()
    assert "script-src &#39;sha256-" in text and "unsafe" not in text.partition("</head>")[0].partition("<style>")[0]
    assert 'data-upload-gb="0.001"' in text
    assert running.server.ask_raw("/api/jobs").status == 404
    assert running.server.ask("api/jobs", host="evil.example").status == 400
