"""Prepare scans for training, from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vertebral.cli.console import AsJson, Quiet, counted, errors, interruptible, print_json
from vertebral.cli.train import config_file
from vertebral.core.errors import OutputExistsError, ReadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertebral.data.verse.catalogue import Catalogue
    from vertebral.data.verse.prepared_set import PreparedSet


def prepare(
    dataset: Annotated[Path, typer.Argument(help="A data folder, or the catalogue that `data index` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the prepared scans; created if it does not exist.")],
    config: Annotated[
        str, typer.Option(help="Training config with spacing and window: a YAML file or the name of a shipped one.")
    ] = "resunet",
    split: Annotated[
        Path | None, typer.Option(help="The split that `data split` wrote; by default a new one is made.")
    ] = None,
    mode: Annotated[str, typer.Option(help="For a new split: random, challenge or folds.")] = "random",
    validation: Annotated[float, typer.Option(help="For a new split: share of the subjects for validation.")] = 0.2,
    folds: Annotated[int, typer.Option(help="For a new split: number of folds.")] = 5,
    seed: Annotated[int, typer.Option(help="For a new split: seed of the random draw.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Scans at a time; default one per processor, at most 8.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Resample, clip and store the scans of a data folder for `train`. Run it again to resume."""
    with errors(as_json), interruptible():
        from vertebral.core.config import load_config
        from vertebral.data.verse.prepare import prepare_dataset
        from vertebral.data.verse.split import load_split, make_split, write_split
        from vertebral.training.config import TrainConfig

        if out.exists() and not out.is_dir():
            raise OutputExistsError(f"{out}: is a file; give a folder as --out")
        preprocess = load_config(TrainConfig, config_file(config)).model.preprocess
        with counted(quiet or as_json) as show:
            catalogue = _catalogue(dataset, jobs, show)
            if split is None:
                chosen = make_split(catalogue, mode, validation, folds, seed)  # type: ignore[arg-type]  # checked there
                out.mkdir(parents=True, exist_ok=True)
                write_split(chosen, out / "split.json")
            else:
                chosen = load_split(split, catalogue)
            made = prepare_dataset(
                catalogue,
                chosen,
                preprocess,
                out,
                jobs,
                lambda done, total, case: show(done, total, f"prepared {case}"),
            )
    if as_json:
        unused = [str(folder) for folder in made.unused]
        print_json({"out": str(out), "scans": len(made.cases), "left_out": made.left_out, "unused": unused})
    elif not quiet:
        _print(made)


def _catalogue(dataset: Path, jobs: int | None, show: "Callable[[int, int, str], None]") -> "Catalogue":
    """Read the catalogue of a data folder; make it if there is none."""
    from vertebral.data.verse.catalogue import load_catalogue
    from vertebral.data.verse.index import index_dataset

    if not dataset.exists():
        raise ReadError(f"{dataset}: no such folder or catalogue: check the path")
    path = dataset / "catalog.json" if dataset.is_dir() else dataset
    if dataset.is_dir() and not path.exists():
        return index_dataset(dataset, path, jobs, progress=lambda done, total: show(done, total, "indexed"))
    return load_catalogue(path)


def _print(made: "PreparedSet") -> None:
    if made.left_out:
        print(f"left out: {len(made.left_out)}")
        for case, reason in made.left_out.items():
            print(f"  {case}: {reason}")
    if made.unused:
        print(f"{made.root / 'cases'}: {len(made.unused)} folders are from other settings and can be deleted")
    print(f"scans: {len(made.cases)}")
    print(made.root)
