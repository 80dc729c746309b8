"""`vertebral view`: one result in the browser."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request

from vertebral.stages.report.result import open_result
from vertebral.web.serving import guarded, listen, serve
from vertebral.web.shown import Shown, make_shown, result_routes


def view(
    folder: Path,
    ct: Path | None,
    port: int,
    open_browser: bool,
    say: Callable[[str], None],
    progress: Callable[[str, float], None] = lambda name, share: None,
) -> None:
    """Serve the result in `folder` until Ctrl-C; `say` gets the address. Raises InputError for what is no result."""
    result = open_result(folder)
    address = listen(port)
    with tempfile.TemporaryDirectory(prefix="vertebral-view-") as temporary:
        shown = make_shown(result, ct, Path(temporary), progress)
        serve(view_app(shown, address.token), address, open_browser, say)


def view_app(shown: Shown, token: str) -> Starlette:
    """The application that serves one result below the secret `token`."""

    async def find(request: Request) -> Shown:
        return shown

    return guarded(result_routes(find), token)
