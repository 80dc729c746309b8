"""`vertebral run --jobs`: many CTs."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vertebral.cli.console import counted, print_json
from vertebral.core.about import DISCLAIMER

if TYPE_CHECKING:
    from vertebral.workflows.batch.worker import BatchRow
    from vertebral.workflows.config import RunConfig

_MAX_ROWS = 100
_COLOURS = {"done": "green", "skipped": "", "failed": "red"}


@dataclass(frozen=True)
class Printing:
    """What to print: errors only, one JSON document, or tables."""

    quiet: bool
    as_json: bool


def run_many(place: Path, out: Path, config: "RunConfig", jobs: int, printing: Printing) -> None:
    """Run all scans of `place` and print their outcome. Raises typer.Exit with code 1 if a scan failed."""
    from vertebral.workflows.batch import TABLE, counts, run_scans

    with counted(printing.quiet or printing.as_json) as show:
        rows = run_scans(place, out, config, jobs, show)
    found = counts(rows)
    if printing.as_json:
        print_json({"out": str(out), "counts": found, "scans": [asdict(row) for row in rows]})
    elif not printing.quiet:
        _print_rows(rows)
        print(f"{', '.join(f'{count} {status}' for status, count in found.items())}. {DISCLAIMER}")
        print(out / TABLE)
    if found["failed"]:
        raise typer.Exit(1)


def _print_rows(rows: "list[BatchRow]") -> None:
    """Print a table of all scans, or only of those that failed if there are very many."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = rows if len(rows) <= _MAX_ROWS else [row for row in rows if row.status == "failed"]
    console, table = Console(), Table("scan", "", "vertebrae", "to review", "warnings", "seconds", "GB")
    for row in shown:
        status = f"[{_COLOURS[row.status]}]{row.status}[/]" if _COLOURS[row.status] else row.status
        numbers = (row.vertebrae, row.to_review, row.warnings, row.seconds, row.peak_memory_gb)
        table.add_row(escape(row.name), status, *map(_text, numbers))
    if shown:
        console.print(table)
    for row in shown:
        if row.error:
            console.print(f"[red]{escape(row.name)}:[/red] {escape(row.error)}", soft_wrap=True)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
