"""One result as served to a browser: its page, its volumes at full resolution, and the files of its manifest."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_labels
from vertebral.io.embedded import write_nifti
from vertebral.io.result_folder import MANIFEST, StoredResult
from vertebral.runtime.stage_timer import Progress, no_progress
from vertebral.stages.measure import measure
from vertebral.stages.report.contents import Contents
from vertebral.stages.report.html import page_html
from vertebral.stages.report.result import contents_of, read_ct_of, stored_contents
from vertebral.stages.report.volumes import CT, LABELS, around_spine, page_volumes

# A browser keeps several copies of a volume, so arms and table are cropped away; no voxel is changed.
_MARGIN_MM = 60.0
_VOLUMES = {CT: "ct.nii", LABELS: "labels.nii"}


@dataclass(frozen=True)
class ServedResult:
    """`volumes` maps names on the page to NIfTI files (none without a CT); `extra` are further facts for the page."""

    result: StoredResult
    contents: Contents
    volumes: Mapping[str, Path]
    extra: Mapping[str, Any] = field(default_factory=dict)


def prepare_result(
    result: StoredResult, ct: Path | None, folder: Path, progress: Progress = no_progress
) -> ServedResult:
    """Prepare a result: take the page from its `report.html`, or make it; write the volumes to `folder`.

    Raises InputError if `ct` is not the CT that the result was made from.
    """
    progress("read", 0.0)
    scan = read_ct_of(result, ct) if ct is not None else None
    labels = read_labels(result.labels_path)
    progress("read", 1.0)
    contents = stored_contents(result)
    if contents is None:
        measurements = measure(labels, scan, lambda share: progress("measure", share))
        contents = contents_of(result, measurements, page_volumes(scan, labels))
    volumes = _written(scan, labels, folder) if scan is not None else {}
    return ServedResult(result, contents, volumes)


def _written(ct: Volume, labels: Volume, folder: Path) -> dict[str, Path]:
    ct, labels = ct.to_ras(), labels.to_ras()
    box = around_spine(labels, _MARGIN_MM)
    ct, labels = ct.cropped(box), labels.cropped(box)
    kept = ct.array if ct.array.dtype == np.int16 else ct.array.astype(np.float32)
    files = {name: folder / file for name, file in _VOLUMES.items()}
    write_nifti(Volume(kept, ct.affine), files[CT])
    write_nifti(labels, files[LABELS], are_labels=True)
    return files


def result_routes(find: Callable[[Request], Awaitable[ServedResult]]) -> list[Route]:
    """Return the routes of a page, its volumes and its files; `find` returns the result that a request refers to."""

    async def page(request: Request) -> Response:
        served = await find(request)
        urls = {name: f"volumes/{path.name}" for name, path in served.volumes.items()}
        return HTMLResponse(page_html(served.contents, urls, {"files_at": "files/", **served.extra}))

    async def volume(request: Request) -> Response:
        served = await find(request)
        files = {path.name: path for path in served.volumes.values()}
        return _file(files, request.path_params["name"], "application/octet-stream")

    async def file(request: Request) -> Response:
        served = await find(request)
        files = {name: served.result.folder / name for name in (*served.result.hashes, MANIFEST)}
        return _file(files, request.path_params["name"], None)

    return [Route("/", page), Route("/volumes/{name}", volume), Route("/files/{name}", file)]


def _file(files: Mapping[str, Path], name: str, media_type: str | None) -> Response:
    """Return the file listed as `name`, never a symbolic link; a download (no media type) is never run as a page."""
    path = files.get(name)
    if path is None or path.is_symlink() or not path.is_file():
        raise HTTPException(404)
    if media_type is not None:
        return FileResponse(path, media_type=media_type)
    headers = {"content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'none'"}
    return FileResponse(path, filename=name, media_type="application/octet-stream", headers=headers)
