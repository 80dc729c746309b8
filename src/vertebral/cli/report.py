"""The report of a training run, or the page of a result, from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from vertebral.cli.console import AsJson, Device, Overwrite, Quiet, check_device, counted, errors, print_files, stages
from vertebral.core.errors import ConfigError


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="A folder that `train --out` or `run --out` made."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; by default FOLDER/report, or FOLDER for a page.")
    ] = None,
    ct: Annotated[Path | None, typer.Option(help="For a page: the CT of the result, to show slices of it.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst validation scans to draw.")] = 3,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Report a training run (curves, scores, worst scans), or renew the page of a result (report.html)."""
    with errors(as_json):
        check_device(device)
        if (run / "manifest.json").is_file():
            files = {"report": _page(run, out, ct, overwrite, quiet or as_json)}
        else:
            files = _training_report(run, out, worst, device, quiet or as_json)
    print_files(files, quiet, as_json)


def _page(folder: Path, out: Path | None, ct: Path | None, overwrite: bool, silent: bool) -> Path:
    from vertebral.io.ct.read import read_labels
    from vertebral.io.result_folder import REPORT, open_complete_result, refuse_files, update_file
    from vertebral.stages.measure import measure
    from vertebral.stages.report import page_volumes
    from vertebral.stages.report.html import write_page
    from vertebral.stages.report.result import contents_of, read_ct_of

    path = (out or folder) / REPORT
    refuse_files([path], overwrite)
    with stages(silent) as progress:
        progress("read", 0.0)
        result = open_complete_result(folder)
        scan = read_ct_of(result, ct) if ct is not None else None
        labels = read_labels(result.labels_path)
        progress("read", 1.0)
        measurements = measure(labels, scan, lambda share: progress("measure", share))
        made = contents_of(result, measurements, page_volumes(scan, labels))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_page(made, path)
        if path.parent == folder:
            update_file(result, REPORT)
    return path


def _training_report(run: Path, out: Path | None, worst: int, device: str, silent: bool) -> dict[str, Path]:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"a report needs {error.name}: pip install 'vertebral[train]'") from None
    from vertebral.training.report import write_report

    with counted(silent) as progress:
        return write_report(run, out, worst, device, progress)
