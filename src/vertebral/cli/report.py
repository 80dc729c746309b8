"""The report of a training run from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from vertebral.cli.console import AsJson, Device, Quiet, check_device, counted, errors, print_files
from vertebral.errors import ConfigError


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `train --out` made.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the report; RUN/report if not given.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst validation scans to draw.")] = 3,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Draw a training run: learning curves, validation scores, and overlays of its worst validation scans."""
    with errors(as_json):
        check_device(device)
        try:
            import matplotlib  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigError(f"a report needs {error.name}: pip install 'vertebral[train]'") from None
        from vertebral.training.report import write_report

        with counted(quiet or as_json) as progress:
            files = write_report(run, out, worst, device, progress)
    print_files(files, quiet, as_json)
