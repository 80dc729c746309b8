"""`vertebral evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebral.cli.console import AsJson, Overwrite, Quiet, counted, errors, interruptible, print_json
from vertebral.core.errors import ConfigError, VertebralError

if TYPE_CHECKING:
    from vertebral.evaluation.case import ScoredCase
    from vertebral.evaluation.summary import EvaluatedModel

Jobs = Annotated[
    int | None, typer.Option(min=1, help="Cases at once (default: as many as processors and memory allow).")
]
Worst = Annotated[int, typer.Option(min=0, help="How many of the worst cases to show as pictures.")]
Subject = Annotated[
    str | None, typer.Option(help="Regular expression that finds the patient in a case name (default: sub-...).")
]
IgnoreOutside = Annotated[
    bool,
    typer.Option(
        "--ignore-outside-reference",
        help="Leave out predicted vertebrae above or below all reference vertebrae: VerSe does not label "
        "vertebrae that are only partly visible.",
    ),
]


def evaluate(
    pred: Annotated[Path, typer.Option(help="Predicted label map, or a folder of them, searched recursively.")],
    ref: Annotated[Path, typer.Option(help="Reference label map, or a folder of them; files are paired by name.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for report and tables; optional for two files.")
    ] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Predictions of another model, compared patient by patient. Repeatable.")
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--name", help="Name of the model, then of each --compare. Repeatable.")
    ] = None,
    pred_scheme: Annotated[
        str,
        typer.Option(help="Label scheme of the predictions, as for `vertebral relabel`: verse, totalsegmentator, ..."),
    ] = "verse",
    ref_scheme: Annotated[str, typer.Option(help="Label scheme of the references.")] = "verse",
    resample: Annotated[
        str | None,
        typer.Option(
            help="nearest: resample predictions on another grid to that of the reference; otherwise they are refused."
        ),
    ] = None,
    ignore_outside_reference: IgnoreOutside = False,
    both_empty: Annotated[
        str, typer.Option(help="Dice if neither map has a vertebra: skip (no score) or one.")
    ] = "skip",
    ct: Annotated[
        Path | None, typer.Option(help="CT, or folder of CTs, for the pictures (default: the folder of --ref).")
    ] = None,
    min_dice: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="For two files: exit code 1 if the mean Dice of complete vertebrae is lower."),
    ] = None,
    min_right: Annotated[
        int | None,
        typer.Option(
            min=0, help="For two files: exit code 1 if fewer complete vertebrae are right (Dice of 0.5 or more)."
        ),
    ] = None,
    subject: Subject = None,
    jobs: Jobs = None,
    worst: Worst = 3,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score label maps against references: overlap, surfaces, names and instances, with intervals over patients.

    With --out, writes evaluation.json, cases.csv, levels.csv, report.html, report.md and table.tex. A case that cannot
    be scored is listed with its error, and the exit code is then 1.
    """
    with errors(as_json), interruptible():
        from vertebral.evaluation.settings import Settings

        _check(pred, ref, out, resample, both_empty)
        if out is not None and (min_dice is not None or min_right is not None):
            raise ConfigError("--min-dice and --min-right work only for two files without a report; omit --out")
        settings = Settings(
            pred_scheme, ref_scheme, resample is not None, ignore_outside_reference, both_empty == "one"
        )
        if out is None:
            from vertebral.evaluation.evaluate import evaluate as score

            scored = score(pred, ref, settings)
            _show_case(scored, as_json)
            _require(scored, min_dice, min_right)
            return
        from vertebral.workflows.evaluate_folder import EvaluationRequest, evaluate_folders

        places = [pred, *(compare or [])]
        if names and len(names) > len(places):
            raise ConfigError(f"--name: {len(names)} names for {len(places)} models; give one per model")
        titles = [*(names or []), *[None] * (len(places) - len(names or []))]
        predictions = tuple(zip(titles, places, strict=True))
        request = EvaluationRequest(predictions, ref, ct, subject, jobs, worst, overwrite)
        with counted(quiet or as_json) as show:
            models, collected, files = evaluate_folders(request, settings, out, show)
    finish(models, collected, files, quiet, as_json)


def finish(
    models: "list[EvaluatedModel]", collected: dict[str, Any], files: dict[str, Path], quiet: bool, as_json: bool
) -> None:
    """Print the results; exit with code 1 if a case could not be scored."""
    if as_json:
        shown = {key: value for key, value in collected.items() if key != "cases"}
        print_json(shown | {"files": {name: str(path) for name, path in files.items()}})
    elif not quiet:
        _print_models(models, collected)
        for path in files.values():
            print(path)
    if any(model.failed for model in models):
        raise typer.Exit(1)


def _check(pred: Path, ref: Path, out: Path | None, resample: str | None, both_empty: str) -> None:
    if resample not in (None, "nearest"):
        raise ConfigError(f"--resample {resample}: use nearest, or omit it")
    if both_empty not in ("skip", "one"):
        raise ConfigError(f"--both-empty {both_empty}: use skip or one")
    if out is None and (pred.is_dir() or ref.is_dir()):
        raise ConfigError(f"{pred if pred.is_dir() else ref}: is a folder; add --out for the report")


def _require(scored: "ScoredCase", min_dice: float | None, min_right: int | None) -> None:
    """Raise VertebralError if a score is below the floor that was set for it."""
    from vertebral.evaluation.summary import headline

    figures = headline(scored)
    dice, right = figures["mean_dice"] or 0.0, figures["complete_with_dice_of_half"]
    if min_right is not None and right < min_right:
        raise VertebralError(f"only {right} complete vertebrae are right, fewer than --min-right {min_right}")
    if min_dice is not None and dice < min_dice:
        raise VertebralError(f"the mean Dice of complete vertebrae is {dice:.3f}, below --min-dice {min_dice:g}")


def _show_case(scored: "ScoredCase", as_json: bool) -> None:
    from vertebral.evaluation.case import to_json
    from vertebral.evaluation.summary import headline

    figures = headline(scored)
    if as_json:
        print_json(to_json(scored) | figures)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("level", "Dice", "HD95 (mm)", "Dice, any level", "reference")
    for row in (scored.spine, *scored.levels):
        best = f"{row.any_level_dice:.3f}" if hasattr(row, "any_level_dice") else ""
        cut = "cut by the image border" if getattr(row, "cut", False) else ""
        table.add_row(row.name, _shown(row.dice, 3), _shown(row.hd95_mm, 1), best, cut)
    console = Console()
    console.print(table)
    if scored.extra:
        console.print(f"predicted, but not in the reference: {', '.join(scored.extra)}", highlight=False)
    if scored.ignored:
        console.print(f"predicted outside the reference, left out: {', '.join(scored.ignored)}", highlight=False)
    for note in scored.notes:
        console.print(note, highlight=False)
    console.print(
        f"complete vertebrae: {figures['complete']}, of which {figures['complete_with_dice_of_half']} have Dice >= 0.5 "
        f"under the right level; mean Dice {_shown(figures['mean_dice'], 3)}, "
        f"mean HD95 {_shown(figures['mean_hd95_mm'], 1)} mm",
        highlight=False,
    )


def _print_models(models: "list[EvaluatedModel]", collected: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from vertebral.evaluation.page.tables import overview

    console = Console()
    head, rows = overview(collected)
    table = Table("mean over patients", *(row[0] for row in rows))
    for title, *cells in zip(head[1:], *(row[1:] for row in rows), strict=True):
        table.add_row(title, *cells)
    console.print(table)
    for model in models:
        for row in model.failed:
            console.print(f"[red]not scored[/red] ({model.name}): {row.case}: {row.error}", soft_wrap=True)
        if model.spare:
            console.print(f"{model.name}: {len(model.spare)} predictions have no reference", highlight=False)


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
