"""`vertebral app`: upload a CT in the browser, follow its run, view it, correct levels, download the files."""

import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from vertebral.core.about import DISCLAIMER
from vertebral.core.errors import VertebralError
from vertebral.io.result_folder import MANIFEST, open_complete_result
from vertebral.stages.report.html import csp_source
from vertebral.web.correction import correct_levels, parse_pins, replace_folder
from vertebral.web.job_runner import JobRunner
from vertebral.web.jobs import ENDED, Job, JobStore
from vertebral.web.local_server import listen, protected_app, serve
from vertebral.web.served_result import ServedResult, prepare_result, result_routes
from vertebral.web.uploads import check_upload, receive_file, require_space, stored_name

_STATIC = Path(__file__).parent / "static"
_MAX_JSON_BYTES = 100_000


@dataclass(frozen=True)
class AppOptions:
    """Options of `vertebral app`; `data` is the folder of the jobs, `run_options` are for `vertebral run`."""

    data: Path
    max_upload_gb: float = 4.0
    keep_days: float = 30.0
    run_options: tuple[str, ...] = ()


def start_app(options: AppOptions, port: int, open_browser: bool, say: Callable[[str], None]) -> None:
    """Serve the app until Ctrl-C, which ends a run in progress and marks its job as interrupted."""
    jobs = JobStore(options.data)
    address = listen(port)
    runner = JobRunner(jobs, options.run_options, options.keep_days)
    runner.start()
    try:
        serve(App(jobs, runner, options).asgi(address.token), address, open_browser, say)
    finally:
        runner.close()


class App:
    """The request handlers of the app; they share the jobs and the thread that runs them."""

    def __init__(self, jobs: JobStore, runner: JobRunner, options: AppOptions) -> None:
        self.jobs, self.runner, self.options = jobs, runner, options
        self._latest: tuple[str, Path, ServedResult] | None = None
        self._lock = threading.Lock()

    def asgi(self, token: str) -> Starlette:
        """Return the ASGI application, with all routes below the secret `token`."""
        api = [
            Route("/jobs", self.list_jobs, methods=["GET"]),
            Route("/jobs", self.create, methods=["POST"]),
            Route("/jobs/{id}", self.delete, methods=["DELETE"]),
            Route("/jobs/{id}/files/{number:int}", self.upload, methods=["PUT"]),
            Route("/jobs/{id}/{action}", self.act, methods=["POST"]),
        ]
        one = [
            *result_routes(self.find),
            Route("/all.zip", self.zipped),
            Route("/correct", self.correct, methods=["POST"]),
        ]
        routes = [Route("/", self.home), Mount("/api", routes=api), Mount("/jobs/{id}", routes=one)]
        return protected_app(routes, token, {VertebralError: _library_error, HTTPException: _http_error})

    async def home(self, request: Request) -> Response:
        """Return the start page of the app."""
        return HTMLResponse(_home_html(self.options))

    async def list_jobs(self, request: Request) -> Response:
        """Return the state of all jobs."""
        return JSONResponse([_record(job, self.options.keep_days) for job in self.jobs.all()])

    async def create(self, request: Request) -> Response:
        """Create a job to upload files to."""
        return JSONResponse({"id": self.jobs.create().id}, status_code=201)

    async def upload(self, request: Request) -> Response:
        """Receive one file of a job. Only the suffix of its name, sent in a header, is used."""
        job = self._job(request, "uploading")
        folder = self.jobs.input_folder(job.id)
        try:
            size = int(request.headers["content-length"])
        except (KeyError, ValueError):
            raise HTTPException(411, "the request has no Content-Length: try another browser") from None
        name = stored_name(request.path_params["number"], unquote(request.headers.get("x-file-name", "")))
        if request.path_params["number"] == 0 or request.path_params["number"] % 50 == 0 or size > 10_000_000:
            await run_in_threadpool(require_space, folder, size, int(self.options.max_upload_gb * 1e9))
        await receive_file(request.stream(), folder / name, size)
        return JSONResponse({})

    async def act(self, request: Request) -> Response:
        """Start, restart or cancel a job."""
        action = request.path_params["action"]
        if action == "start":
            job = self._job(request, "uploading")
            await run_in_threadpool(
                require_space, self.jobs.input_folder(job.id), 0, int(self.options.max_upload_gb * 1e9)
            )
            await run_in_threadpool(check_upload, self.jobs.input_path(job.id))
            self.runner.queue(job.id)
        elif action == "restart":
            self.runner.queue(self._job(request, *ENDED).id)
        elif action == "cancel":
            await run_in_threadpool(self.runner.cancel, self._job(request).id)
        else:
            raise HTTPException(404)
        return JSONResponse({})

    async def delete(self, request: Request) -> Response:
        """Delete a job and all its files; a run in progress is ended first."""
        job = self._job(request)
        await run_in_threadpool(self.runner.cancel, job.id)
        self._forget(job.id)
        await run_in_threadpool(self.jobs.delete, job.id)
        return JSONResponse({})

    async def find(self, request: Request) -> ServedResult:
        """Return the result of a job; the one requested last is cached."""
        return await run_in_threadpool(self._find, self._job(request, "done"))

    def _find(self, job: Job) -> ServedResult:
        corrected = self.jobs.corrected_folder(job.id)
        folder = corrected if job.pins and corrected.is_dir() else self.jobs.result_folder(job.id)
        with self._lock:
            if self._latest is None or self._latest[:2] != (job.id, folder):
                scratch = self.jobs.scratch_folder(job.id)
                served = prepare_result(open_complete_result(folder), self.jobs.input_path(job.id), scratch)
                extra = {
                    "jobs_at": "../../",
                    "zip_at": "all.zip",
                    "correct_at": "correct",
                    "pins": list(job.pins),
                }
                self._latest = (job.id, folder, ServedResult(served.result, served.contents, served.volumes, extra))
            return self._latest[2]

    def _forget(self, job_id: str) -> None:
        with self._lock:
            if self._latest is not None and self._latest[0] == job_id:
                self._latest = None

    async def zipped(self, request: Request) -> Response:
        """Return all files of a result as one zip."""
        job = self._job(request, "done")
        served = await run_in_threadpool(self._find, job)
        path = await run_in_threadpool(_zip, served, self.jobs.scratch_folder(job.id))
        return FileResponse(path, filename="vertebral.zip", media_type="application/zip")

    async def correct(self, request: Request) -> Response:
        """Correct levels. The request holds all levels set by hand; an empty list restores the original result."""
        job = self._job(request, "done")
        if int(request.headers.get("content-length", "0")) > _MAX_JSON_BYTES:
            raise HTTPException(413)
        pins, records = parse_pins(await request.body())
        if pins:
            await run_in_threadpool(self._correct, job, pins)
        self.jobs.update(job.id, pins=records)
        self._forget(job.id)
        return JSONResponse({})

    def _correct(self, job: Job, pins: Sequence[object]) -> None:
        result = open_complete_result(self.jobs.result_folder(job.id))
        with tempfile.TemporaryDirectory(dir=self.jobs.folder / job.id) as folder:
            correct_levels(result, self.jobs.input_path(job.id), pins, Path(folder) / "made")  # type: ignore[arg-type]
            replace_folder(Path(folder) / "made", self.jobs.corrected_folder(job.id))

    def _job(self, request: Request, *states: str) -> Job:
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "this job no longer exists: it was deleted")
        if states and job.state not in states:
            raise HTTPException(409, f"not possible while the job is {job.state}")
        return job


def _record(job: Job, keep_days: float) -> dict[str, object]:
    delete_s = (job.ended_s or time.time()) + keep_days * 86_400
    keys = ("id", "created_s", "state", "stage", "share", "error")
    return {**{key: getattr(job, key) for key in keys}, "kept_until_s": delete_s, "corrected": bool(job.pins)}


def _zip(served: ServedResult, folder: Path) -> Path:
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in (*served.result.hashes, MANIFEST):
            if (served.result.folder / name).is_file():
                archive.write(served.result.folder / name, name)
    return path


async def _library_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


def _home_html(options: AppOptions) -> str:
    script, style = ((_STATIC / name).read_text(encoding="utf-8") for name in ("app.js", "app.css"))
    policy = (
        f"default-src 'none'; script-src '{csp_source(script)}'; style-src '{csp_source(style)}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=PackageLoader("vertebral.web", "static"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("app.html.j2").render(
        policy=policy,
        disclaimer=DISCLAIMER,
        limits={"upload_gb": options.max_upload_gb, "keep_days": options.keep_days},
        script=Markup(script),
        style=Markup(style),
    )
