"""Benchmarks from the command line."""

from pathlib import Path
from typing import Annotated, Any

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
    print_json,
)
from vertebral.cli.evaluate import IgnoreOutside, Jobs, Subject, Worst, finish
from vertebral.core.errors import ConfigError

benchmark_app = typer.Typer(help="Measure how well a stage works, on data that you give.", no_args_is_help=True)


@benchmark_app.command(epilog="Example: vertebral benchmark identify labels/validation --out levels --n 3")
def identify(
    labels: Annotated[list[Path], typer.Argument(help="Label maps with VerSe ids that are right, or folders of them.")],
    out: OutFolder,
    n: Annotated[int, typer.Option("--n", min=1, help="How often each map is corrupted in each way.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other corruptions.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Corrupt label maps as models do, name the vertebrae again and count how often every level is right.

    Beside it stand two rivals that are given the true parts: the majority of the labels in each, and counting down from
    the topmost one. Writes identify.csv, .json, .md and .png.
    """
    with errors(as_json), interruptible():
        from vertebral.evaluation.identification.benchmark import run_benchmark
        from vertebral.evaluation.identification.report import refuse_results, summarise, write_report

        refuse_results(out, overwrite)
        with counted(quiet or as_json) as show:
            rows = run_benchmark(labels, n, seed, show)
        files = write_report(rows, out)
        sums = summarise(rows)
    if as_json:
        print_json({"groups": sums, "files": {name: str(path) for name, path in files.items()}})
    elif not quiet:
        _print_sums(sums)


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
        typer.Option("--model", help="A model's name or folder. Repeatable: others are compared with the first."),
    ] = None,
    subset: Annotated[str | None, typer.Option(help="training, validation or test scans only.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first scans only.")] = None,
    subject: Subject = None,
    device: Device = "auto",
    refine: Annotated[bool, typer.Option(help="Refine each vertebra, if the model can.")] = True,
    ignore_outside_reference: IgnoreOutside = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="All scans in one process: quicker, but memory is not that of a scan.")
    ] = False,
    jobs: Jobs = None,
    worst: Worst = 3,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run models over labelled scans, score and compare them; writes what `vertebral evaluate` writes.

    Predictions are kept in predictions/ and made again only where CT, model or options changed.
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


def _print_sums(sums: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "corruption", "strength", "scans", "all right", "true parts", "vote", "count", "id rate", "recall", "precision"
    )
    for row in sums:
        shares = [
            f"{100 * row[name]:.0f} %" for name in ("all_right", "given_all_right", "vote_all_right", "count_all_right")
        ]
        rates = [f"{row[name]:.3f}" for name in ("id_rate", "recall", "precision")]
        table.add_row(row["kind"], f"{row['strength']:g}", str(row["scans"]), *shares, *rates)
    Console().print(table)
