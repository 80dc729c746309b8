"""Benchmarks from the command line."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vertebral.cli.console import AsJson, OutFolder, Overwrite, Quiet, counted, errors, interruptible, print_json

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
