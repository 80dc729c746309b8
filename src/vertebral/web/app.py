"""`vertebral app`: give it a CT in the browser, see it run, look, put levels right, take the files."""

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
from vertebral.io.manifest import MANIFEST
from vertebral.stages.report.html import csp_source
from vertebral.stages.report.result import open_result
from vertebral.web.correct import correct, parse_pins, replace_result
from vertebral.web.jobs import ENDED, Job, Jobs
from vertebral.web.runner import Runner
from vertebral.web.serving import guarded, listen, serve
from vertebral.web.shown import Shown, make_shown, result_routes
from vertebral.web.uploads import check_upload, require_room, stored_name, take

_STATIC = Path(__file__).parent / "static"
_MOST_JSON_BYTES = 100_000


@dataclass(frozen=True)
class AppOptions:
    """What `vertebral app` is told: where jobs live, limits, and what goes on to `vertebral run`."""

    data: Path
    max_upload_gb: float = 4.0
    keep_days: float = 30.0
    run_options: tuple[str, ...] = ()


def start_app(options: AppOptions, port: int, open_browser: bool, say: Callable[[str], None]) -> None:
    """Serve the app until Ctrl-C. A run in progress is then ended and marked as interrupted."""
    jobs = Jobs(options.data)
    address = listen(port)
    runner = Runner(jobs, options.run_options, options.keep_days)
    runner.start()
    try:
        serve(App(jobs, runner, options).asgi(address.token), address, open_browser, say)
    finally:
        runner.close()


class App:
    """The handlers of all requests, around the jobs and the thread that runs them."""

    def __init__(self, jobs: Jobs, runner: Runner, options: AppOptions) -> None:
        self.jobs, self.runner, self.options = jobs, runner, options
        self._shown: tuple[str, Path, Shown] | None = None
        self._lock = threading.Lock()

    def asgi(self, token: str) -> Starlette:
        """Return the application below the secret `token`."""
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
        return guarded(routes, token, exception_handlers={VertebralError: _told, HTTPException: _refused})

    async def home(self, request: Request) -> Response:
        """Give the app's own page."""
        return HTMLResponse(_home_html(self.options))

    async def list_jobs(self, request: Request) -> Response:
        """Tell where all jobs stand."""
        return JSONResponse([_record(job, self.options.keep_days) for job in self.jobs.all()])

    async def create(self, request: Request) -> Response:
        """Make a job to upload to."""
        return JSONResponse({"id": self.jobs.create().id}, status_code=201)

    async def upload(self, request: Request) -> Response:
        """Take one file of a job; its name comes in a header, for its suffix alone, and is not kept."""
        job = self._job(request, "uploading")
        folder = self.jobs.input_folder(job.id)
        try:
            size = int(request.headers["content-length"])
        except (KeyError, ValueError):
            raise HTTPException(411, "the size of the file is missing") from None
        name = stored_name(request.path_params["number"], unquote(request.headers.get("x-file-name", "")))
        if request.path_params["number"] == 0 or request.path_params["number"] % 50 == 0 or size > 10_000_000:
            await run_in_threadpool(require_room, folder, size, int(self.options.max_upload_gb * 1e9))
        await take(request.stream(), folder / name, size)
        return JSONResponse({})

    async def act(self, request: Request) -> Response:
        """Start, restart or cancel a job."""
        action = request.path_params["action"]
        if action == "start":
            job = self._job(request, "uploading")
            await run_in_threadpool(
                require_room, self.jobs.input_folder(job.id), 0, int(self.options.max_upload_gb * 1e9)
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
        """Delete a job with all of its files; one that runs is ended first."""
        job = self._job(request)
        await run_in_threadpool(self.runner.cancel, job.id)
        self._forget(job.id)
        await run_in_threadpool(self.jobs.delete, job.id)
        return JSONResponse({})

    async def find(self, request: Request) -> Shown:
        """The result of a job, for its page and files; the one looked at last stays ready."""
        return await run_in_threadpool(self._find, self._job(request, "done"))

    def _find(self, job: Job) -> Shown:
        corrected = self.jobs.corrected_folder(job.id)
        folder = corrected if job.pins and corrected.is_dir() else self.jobs.result_folder(job.id)
        with self._lock:
            if self._shown is None or self._shown[:2] != (job.id, folder):
                scratch = self.jobs.scratch_folder(job.id)
                shown = make_shown(open_result(folder), self.jobs.input_path(job.id), scratch)
                extra = {
                    "jobs_at": "../../",
                    "zip_at": "all.zip",
                    "correct_at": "correct",
                    "pins": list(job.pins),
                }
                self._shown = (job.id, folder, Shown(shown.result, shown.made, shown.volumes, extra))
            return self._shown[2]

    def _forget(self, job_id: str) -> None:
        with self._lock:
            if self._shown is not None and self._shown[0] == job_id:
                self._shown = None

    async def zipped(self, request: Request) -> Response:
        """Give all files of a result in one."""
        job = self._job(request, "done")
        shown = await run_in_threadpool(self._find, job)
        path = await run_in_threadpool(_zip, shown, self.jobs.scratch_folder(job.id))
        return FileResponse(path, filename="vertebral.zip", media_type="application/zip")

    async def correct(self, request: Request) -> Response:
        """Put levels right: the request holds all that were given by hand, none of them for the result as it was."""
        job = self._job(request, "done")
        if int(request.headers.get("content-length", "0")) > _MOST_JSON_BYTES:
            raise HTTPException(413)
        pins, records = parse_pins(await request.body())
        if pins:
            await run_in_threadpool(self._correct, job, pins)
        self.jobs.update(job.id, pins=records)
        self._forget(job.id)
        return JSONResponse({})

    def _correct(self, job: Job, pins: Sequence[object]) -> None:
        result = open_result(self.jobs.result_folder(job.id))
        with tempfile.TemporaryDirectory(dir=self.jobs.folder / job.id) as folder:
            correct(result, self.jobs.input_path(job.id), pins, Path(folder) / "made")  # type: ignore[arg-type]
            replace_result(Path(folder) / "made", self.jobs.corrected_folder(job.id))

    def _job(self, request: Request, *states: str) -> Job:
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "there is no such job: it was deleted")
        if states and job.state not in states:
            raise HTTPException(409, f"the job is {job.state}")
        return job


def _record(job: Job, keep_days: float) -> dict[str, object]:
    ends_s = (job.ended_s or time.time()) + keep_days * 86_400
    keys = ("id", "created_s", "state", "stage", "share", "error")
    return {**{key: getattr(job, key) for key in keys}, "kept_until_s": ends_s, "corrected": bool(job.pins)}


def _zip(shown: Shown, folder: Path) -> Path:
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in (*shown.result.files, MANIFEST):
            if (shown.result.folder / name).is_file():
                archive.write(shown.result.folder / name, name)
    return path


async def _told(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)


async def _refused(request: Request, error: Exception) -> Response:
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
