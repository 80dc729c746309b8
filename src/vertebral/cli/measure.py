"""`vertebral measure`: measurements of a labelled spine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebral.cli.console import AsJson, OutFolder, Overwrite, Quiet, errors, interruptible, print_json, stages
from vertebral.core.about import DISCLAIMER
from vertebral.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from vertebral.core.measurements import Measurements

FORMATS = ("csv", "json", "parquet")
_SHOWN = {
    "volume_ml": "volume (ml)",
    "height_anterior_mm": "ant. (mm)",
    "height_middle_mm": "mid. (mm)",
    "height_posterior_mm": "post. (mm)",
    "wedge_sagittal_deg": "wedge (deg)",
    "genant_grade": "Genant",
    "core_mean_hu": "core (HU)",
}


def measure(
    source: Annotated[Path, typer.Argument(help="A result of `vertebral run`, or a label map with VerSe ids.")],
    out: OutFolder,
    ct: Annotated[Path | None, typer.Option(help="The CT, for bone density; any input of `vertebral run`.")] = None,
    formats: Annotated[str, typer.Option("--format", help="csv, json, parquet; separate by commas.")] = "csv,json",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure vertebrae, discs and curves of a labelled spine.

    Each value has a quality, or the reason why it is missing.
    """
    with errors(as_json), interruptible():
        from vertebral.io.result_folder import refuse_files

        chosen = _formats(formats)
        labels_path = _label_map(source)
        stem = _stem(labels_path)
        names = _file_names(stem, chosen)
        refuse_files([out / name for name in names], overwrite)
        with stages(quiet or as_json) as progress:
            progress("read", 0.0)
            from vertebral.io.ct.read import read_labels, read_scan
            from vertebral.stages.measure import measure as measure_spine

            labels = read_labels(labels_path)
            scan = read_scan(ct).volume if ct is not None else None
            progress("read", 1.0)
            measured = measure_spine(labels, scan, lambda share: progress("measure", share))
        files = _write(measured, out, stem, chosen)
    if as_json:
        from vertebral.core.measurements import nested

        print_json({"out": str(out), "files": [path.name for path in files], **nested(measured)})
    elif not quiet:
        _print_summary(measured, files)


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    unknown = [name for name in chosen if name not in FORMATS]
    if unknown:
        raise ConfigError(f"--format {text}: use one or more of {', '.join(FORMATS)}, separated by commas")
    if "parquet" in chosen:
        from vertebral.io.tables import require_parquet

        require_parquet()
    return chosen


def _label_map(source: Path) -> Path:
    """Return `source` itself, or the label map of the result in the folder `source`."""
    from vertebral.io.result_folder import open_result

    if not source.exists():
        raise InputError(f"{source}: no such file or folder: check the path")
    return open_result(source).labels_path if source.is_dir() else source


def _stem(path: Path) -> str:
    from vertebral.io.ct.image_header import stem_of

    return stem_of(path).removesuffix("_seg-vert_msk")


def _file_names(stem: str, formats: tuple[str, ...]) -> list[str]:
    tables = ("vertebrae", "gaps", "regions", "curves")
    flat = [f"{stem}_measure-{table}.{suffix}" for suffix in formats if suffix != "json" for table in tables]
    return [*flat, *([f"{stem}_measure.json"] if "json" in formats else [])]


def _write(measured: "Measurements", out: Path, stem: str, formats: tuple[str, ...]) -> list[Path]:
    from vertebral.core.measurements import flat_rows, nested
    from vertebral.io.tables import write_csv, write_parquet
    from vertebral.io.write import write_json

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); choose another --out") from error
    files = []
    for suffix, write in (("csv", write_csv), ("parquet", write_parquet)):
        if suffix in formats:
            for table, rows in measured.tables.items():
                files.append(out / f"{stem}_measure-{table}.{suffix}")
                write(flat_rows(rows), files[-1])
    if "json" in formats:
        files.append(out / f"{stem}_measure.json")
        write_json({"disclaimer": DISCLAIMER, **nested(measured)}, files[-1])
    return files


def _print_summary(measured: "Measurements", files: list[Path]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("level", *_SHOWN.values(), "quality")
    for row in measured.vertebrae:
        table.add_row(row.name, *(_shown(row.value(column)) for column in _SHOWN), row.quality)
    console.print(table)
    for row in (*measured.regions, *measured.curves):
        values = [f"{name.rpartition('_')[0]} {_shown(figure.value)}" for name, figure in row.figures.items()]
        if row.quality != "none":
            console.print(f"{row.name}: {', '.join(values)} ({row.quality})", highlight=False)
    for warning in measured.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    print(DISCLAIMER)
    for path in files:
        print(path)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.1f}"
