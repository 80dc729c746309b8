"""`vertebral view`: show one result in the browser."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request

from vertebral.io.result_folder import open_complete_result
from vertebral.runtime.stage_timer import Progress, no_progress
from vertebral.web.local_server import listen, protected_app, serve
from vertebral.web.served_result import ServedResult, prepare_result, result_routes


def view(
    folder: Path,
    ct: Path | None,
    port: int,
    open_browser: bool,
    say: Callable[[str], None],
    progress: Progress = no_progress,
) -> None:
    """Serve the result in `folder` until Ctrl-C; `say` receives the address. Raises InputError if it is no result."""
    result = open_complete_result(folder)
    address = listen(port)
    with tempfile.TemporaryDirectory(prefix="vertebral-view-") as temporary:
        served = prepare_result(result, ct, Path(temporary), progress)
        serve(view_app(served, address.token), address, open_browser, say)


def view_app(served: ServedResult, token: str) -> Starlette:
    """Return the application that serves one result below the secret `token`."""

    async def find(request: Request) -> ServedResult:
        return served

    return protected_app(result_routes(find), token)
