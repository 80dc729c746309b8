"""Scores from the command line."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vertebral.cli.console import (
    AsJson,
    errors,
    print_json,
)


def evaluate(
    pred: Annotated[Path, typer.Option(help="Predicted label map with VerSe ids.")],
    ref: Annotated[Path, typer.Option(help="Reference label map with VerSe ids, on the same grid.")],
    as_json: AsJson = False,
) -> None:
    """Score one label map against a reference: Dice and HD95 of the spine and of each vertebra."""
    with errors(as_json):
        from vertebral.evaluation.evaluate import evaluate as score

        result = score(pred, ref)
    if as_json:
        print_json(result)
    else:
        _print_scores(result)


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
