"""`vertebral view` and `vertebral app`: results and runs in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from vertebral.cli.console import Device, Quiet, check_device, errors, interruptible, stages
from vertebral.core.errors import ConfigError

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free one.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the address without opening a browser.")]


def view(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="A result of `vertebral run`.")],
    ct: Annotated[Path | None, typer.Option(help="Its CT, to show it at full resolution.")] = None,
    port: Port = 0,
    no_browser: NoBrowser = False,
    quiet: Quiet = False,
) -> None:
    """View a result in the browser, on this computer only, until Ctrl-C."""
    with errors(as_json=False), interruptible():
        _require_server()
        from vertebral.web.view import view as show

        with stages(quiet) as progress:
            show(result, ct, port, not no_browser, lambda url: print(url, flush=True), progress)


def app(
    data: Annotated[Path, typer.Option("--data", help="Folder for uploads and results; created if missing.")],
    model: Annotated[str, typer.Option(help="Name or folder of a model.")] = "default",
    device: Device = "auto",
    refine: Annotated[bool, typer.Option(help="Refine each vertebra if the model has a refiner; slower.")] = True,
    max_upload_gb: Annotated[float, typer.Option(min=0.001, help="Largest upload, in GB.")] = 4.0,
    keep_days: Annotated[float, typer.Option(min=0, help="Days after which uploads and results are deleted.")] = 30.0,
    port: Port = 0,
    no_browser: NoBrowser = False,
) -> None:
    """Run CTs from the browser, on this computer only: upload, follow the run, view, correct levels, download."""
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
        raise ConfigError(f"the browser view needs {error.name}: pip install 'vertebral[app]'") from None
