"""`vertebral benchmark`."""

from pathlib import Path
from typing import Annotated

import typer

from vertebral.cli.console import (
    AsJson,
    Device,
    OutFolder,
    Overwrite,
    Quiet,
    check_device,
    counted,
    errors,
    interruptible,
)
from vertebral.cli.evaluate import IgnoreOutside, Jobs, Subject, Worst, finish
from vertebral.core.errors import ConfigError

benchmark_app = typer.Typer(help="Measure how well models work on your data.", no_args_is_help=True)


@benchmark_app.command(
    epilog="Examples: vertebral benchmark run verse --subset validation --out results\n\n"
    "vertebral benchmark run verse/catalog.json --model runs/resunet --model runs/unet --out results"
)
def run(
    data: Annotated[
        Path,
        typer.Argument(help="A catalogue (`vertebral data index`), or a folder of CTs with reference label maps."),
    ],
    out: OutFolder,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="Name or folder of a model. Repeatable: the others are compared with the first."),
    ] = None,
    subset: Annotated[str | None, typer.Option(help="Use only one subset: training, validation or test.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N scans.")] = None,
    subject: Subject = None,
    device: Device = "auto",
    refine: Annotated[bool, typer.Option(help="Refine each vertebra if the model has a refiner.")] = True,
    ignore_outside_reference: IgnoreOutside = False,
    in_process: Annotated[
        bool,
        typer.Option(
            "--in-process", help="Run all scans in one process: faster, but the memory of each scan is not measured."
        ),
    ] = False,
    jobs: Jobs = None,
    worst: Worst = 3,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run models on labelled scans, score and compare them; writes the files of `vertebral evaluate`.

    Predictions are kept in predictions/ and repeated only if the CT, the model or the options changed.
    """
    with errors(as_json), interruptible():
        check_device(device)
        if subset not in (None, "training", "validation", "test"):
            raise ConfigError(f"--subset {subset}: use training, validation or test")
        with counted(quiet or as_json) as show:
            from vertebral.evaluation.settings import Settings
            from vertebral.workflows.benchmark import BenchmarkRequest, run_benchmark

            request = BenchmarkRequest(
                data,
                tuple(models or ("default",)),
                subset,
                limit,
                subject,
                device,
                refine,
                not in_process,
                jobs,
                worst,
                overwrite,
            )
            settings = Settings(ignore_outside_reference=ignore_outside_reference)
            scored, collected, files = run_benchmark(request, settings, out, show)
    finish(scored, collected, files, quiet, as_json)
