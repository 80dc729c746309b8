"""Results and runs in the browser, from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from vertebral.cli.console import Device, Quiet, check_device, errors, interruptible, stages
from vertebral.core.errors import ConfigError

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0 takes any free one.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the address and open no browser.")]


def view(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="A folder that `vertebral run` wrote.")],
    ct: Annotated[Path | None, typer.Option(help="The CT that it was made from: shown at full resolution.")] = None,
    port: Port = 0,
    no_browser: NoBrowser = False,
    quiet: Quiet = False,
) -> None:
    """Look at a result in the browser; it is served on this computer only, until Ctrl-C."""
    with errors(as_json=False), interruptible():
        _require_server()
        from vertebral.web.view import view as show

        with stages(quiet) as progress:
            show(result, ct, port, not no_browser, lambda url: print(url, flush=True), progress)


def app(
    data: Annotated[Path, typer.Option("--data", help="Folder for uploads and results; made where it is missing.")],
    model: Annotated[str, typer.Option(help="A shipped model's name, or a model folder.")] = "default",
    device: Device = "auto",
    refine: Annotated[bool, typer.Option(help="Refine each vertebra, if the model can; without it is faster.")] = True,
    max_upload_gb: Annotated[float, typer.Option(min=0.001, help="Largest CT that is taken.")] = 4.0,
    keep_days: Annotated[float, typer.Option(min=0, help="Uploads and results are deleted after so many days.")] = 30.0,
    port: Port = 0,
    no_browser: NoBrowser = False,
) -> None:
    """Run CTs from the browser: drop one, see it run, look, put levels right, download; on this computer only."""
    with errors(as_json=False), interruptible():
        check_device(device)
        _require_server()
        from vertebral.web.app import AppOptions, start_app

        run_options = ("--model", model, "--device", device, "--refine" if refine else "--no-refine")
        options = AppOptions(data, max_upload_gb, keep_days, run_options)
        start_app(options, port, not no_browser, lambda url: print(url, flush=True))


def _require_server() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"this needs {error.name}: pip install 'vertebral[app]'") from None
