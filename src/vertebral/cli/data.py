"""Training data from the command line: download, index and split."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebral.cli.console import AsJson, Overwrite, Quiet, errors, interruptible, print_json, stages

if TYPE_CHECKING:
    from vertebral.data.verse.download import Progress

_MOST_LISTED = 20

data_app = typer.Typer(
    help="Download public data, list the scans of a data folder, and split them for training.",
    epilog="Example: vertebral data download verse20 --out verse && vertebral data index verse",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@data_app.command(
    epilog="Examples: vertebral data download verse20 --out verse\n\n"
    "vertebral data download all --out verse --subset training,validation --jobs 3"
)
def download(
    release: Annotated[str, typer.Argument(help="verse19, verse20 or all.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the data; created if it does not exist.")],
    subset: Annotated[str, typer.Option(help="Subsets to download, separated by commas.")] = "training,validation,test",
    jobs: Annotated[int, typer.Option(min=1, help="Archives to download at once.")] = 2,
    base_url: Annotated[
        str | None, typer.Option(help="Download the zip files from this URL instead of VerSe's.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Download the public VerSe archives (CC BY-SA 4.0), check and unpack them. Run it again to resume."""
    with errors(as_json), interruptible():
        from vertebral.data.verse.download import BASE_URL, CREDITS, choose_archives
        from vertebral.data.verse.download import download as fetch

        chosen = choose_archives(release, [name.strip() for name in subset.split(",")])
        silent = quiet or as_json
        if not quiet:
            typer.echo(CREDITS, err=True)
        with _transfers(silent) as progress:
            found = fetch(chosen, out, BASE_URL if base_url is None else base_url, jobs, progress)
    if as_json:
        rows = [{"archive": f.archive, "folder": str(f.folder), "sha256": f.sha256} for f in found]
        print_json({"out": str(out), "archives": rows})
    elif not quiet:
        for item in found:
            print(f"{item.folder}{' (already complete)' if item.was_complete else ''}")


@data_app.command(epilog="Example: vertebral data index verse --out verse/catalog.json")
def index(
    folder: Annotated[Path, typer.Argument(help="Folder of one or several data sets.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The catalogue to write; default FOLDER/catalog.json.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Scans at a time; default one per processor.")] = None,
    subject: Annotated[
        str | None, typer.Option(help="Regular expression that finds the subject in the stem of a file.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """List the CTs of a folder with their label maps and problems: VerSe, images/labels or nnU-Net layout."""
    with errors(as_json), interruptible():
        from vertebral.data.verse.catalogue import summary
        from vertebral.data.verse.index import index_dataset

        out = folder / "catalog.json" if out is None else out
        with stages(quiet or as_json) as show:
            catalogue = index_dataset(
                folder, out, jobs, overwrite, subject, lambda done, total: show("indexing", done / total)
            )
        found = summary(catalogue)
    if as_json:
        print_json({"out": str(out), **found})
    elif not quiet:
        _print_summary(found)
        print(out)


@data_app.command(
    epilog="Examples: vertebral data split verse/catalog.json --seed 1\n\n"
    "vertebral data split verse/catalog.json --mode folds --folds 5 --out verse/folds.json"
)
def split(
    catalog: Annotated[Path, typer.Argument(help="The catalogue that `data index` wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The split to write; default split.json next to CATALOG.")
    ] = None,
    mode: Annotated[str, typer.Option(help="random, challenge (by the names of the folders) or folds.")] = "random",
    validation: Annotated[float, typer.Option(help="For random: fraction of subjects for validation.")] = 0.2,
    folds: Annotated[int, typer.Option(help="For folds: how many.")] = 5,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Split the usable scans of a catalogue into training, validation and test sets, by subject."""
    with errors(as_json):
        from vertebral.data.verse.catalogue import load_catalogue
        from vertebral.data.verse.split import describe, make_split, write_split
        from vertebral.io.result_folder import refuse_files

        out = catalog.with_name("split.json") if out is None else out
        refuse_files([out], overwrite)
        cases = load_catalogue(catalog)
        made = make_split(cases, mode, validation, folds, seed)  # type: ignore[arg-type]  # checked there
        write_split(made, out)
        rows = describe(made, cases)
        left_out = [item.model_dump() for item in made.left_out]
    if as_json:
        print_json({"out": str(out), "sets": rows, "left_out": left_out})
    elif not quiet:
        _print_table(rows)
        _print_sentences("left out", [(item["ct"], [item["why"]]) for item in left_out])
        print(out)


@contextmanager
def _transfers(silent: bool) -> "Iterator[Progress]":
    """Yield progress(name, action, done, total), shown on standard error as one bar of bytes for each action."""
    if silent:
        yield lambda name, action, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[tuple[str, str], Any] = {}

        def show(name: str, action: str, done: int, total: int) -> None:
            if (name, action) not in tasks:
                tasks[name, action] = bars.add_task(f"{name} {action}", total=total)
            bars.update(tasks[name, action], completed=done, total=total)

        yield show


def _print_summary(found: dict[str, Any]) -> None:
    _print_table([{"level": name, **counts} for name, counts in found["levels"].items()])
    sizes = ", ".join(f"{name} {count}" for name, count in found["subsets"].items())
    print(f"scans: {found['scans']} ({sizes}), usable: {found['usable']}; subjects: {found['subjects']}")
    for kind in ("problems", "warnings"):
        _print_sentences(kind, [(row["ct"], row[kind]) for row in found[kind]])
    if others := found["unmatched"]:
        _print_sentences("images that belong to no scan", [(path, []) for path in others])


def _print_sentences(title: str, rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    if not rows:
        return
    print(f"{title}: {len(rows)}")
    for name, sentences in rows[:_MOST_LISTED]:
        print("  " + ": ".join([name, "; ".join(sentences)] if sentences else [name]))
    if len(rows) > _MOST_LISTED:
        print(f"  and {len(rows) - _MOST_LISTED} more")


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
