"""Learning curves of a run: losses, and Dice on the validation scans, over the epochs of all phases."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vertebral.training.run_folder import EpochRow

BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
"""Colours that can be told apart with red-green colour blindness (Okabe and Ito 2008)."""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "svg.hashsalt": "vertebral",
}
_WIDTH_IN, _PANEL_HEIGHT_IN = 6.7, 2.9
_MARKED_UP_TO = 40
_DPI = 200
# The names of the phases are written between a panel and its title.
_TITLE_PAD = 14


def draw_curves(rows: Sequence[EpochRow], best: EpochRow | None, folder: Path) -> dict[str, Path]:
    """Write `learning_curves.png` and `.svg` as wide as the text of an A4 page; return their paths.

    A run without validation has one panel, the training loss.
    """
    epochs = running_epochs(rows)
    has_dice = any(row.dice_spine is not None or row.dice_levels is not None for row in rows)
    panels = 2 if has_dice else 1
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH_IN, _PANEL_HEIGHT_IN * panels + 0.2), layout="constrained")
        axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
        _draw_loss(axes[0], epochs, rows)
        if has_dice:
            _draw_dice(axes[1], epochs, rows)
        for panel in axes:
            _mark_phases(panel, epochs, rows)
            if best is not None:
                _mark_best(panel, epochs[list(rows).index(best)], best)
            panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=2.4)
        axes[-1].set_xlabel("epoch" if rows[-1].phase == 1 else "epoch, all phases counted together")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[-1].set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        files = {kind: folder / f"learning_curves.{kind}" for kind in ("png", "svg")}
        figure.savefig(files["png"], dpi=_DPI)
        figure.savefig(files["svg"], metadata={"Date": None})
    return files


def running_epochs(rows: Sequence[EpochRow]) -> list[int]:
    """Number the epochs through all phases; a row's own number starts again in each phase."""
    before: dict[int, int] = {}
    total = 0
    for phase in sorted({row.phase for row in rows}):
        before[phase] = total
        total += max(row.epoch for row in rows if row.phase == phase)
    return [before[row.phase] + row.epoch for row in rows]


def _draw_loss(panel: Axes, epochs: list[int], rows: Sequence[EpochRow]) -> None:
    panel.set_title("Loss", pad=_TITLE_PAD)
    _line(panel, epochs, rows, lambda row: row.loss, "training", BLUE, "-")
    _line(panel, epochs, rows, lambda row: row.loss_validation, "validation", VERMILLION, "--")
    panel.set_ylabel("loss")


def _draw_dice(panel: Axes, epochs: list[int], rows: Sequence[EpochRow]) -> None:
    panel.set_title("Dice on the validation scans", pad=_TITLE_PAD)
    _line(panel, epochs, rows, lambda row: row.dice_spine, "spine", BLUE, "-")
    _line(panel, epochs, rows, lambda row: row.dice_levels, "levels, mean", VERMILLION, "--")
    panel.set_ylabel("Dice")
    panel.set_ylim(0, 1)


def _line(
    panel: Axes,
    epochs: list[int],
    rows: Sequence[EpochRow],
    value: Callable[[EpochRow], float | None],
    name: str,
    colour: str,
    style: str,
) -> None:
    """Join the epochs whose `value` is known; draw nothing if none is."""
    known = [(n, v) for n, row in zip(epochs, rows, strict=True) if (v := value(row)) is not None and np.isfinite(v)]
    if known:
        marker = "o" if len(known) <= _MARKED_UP_TO else ""
        panel.plot(*zip(*known, strict=True), style, color=colour, label=name, marker=marker, markersize=3)


def _mark_phases(panel: Axes, epochs: list[int], rows: Sequence[EpochRow]) -> None:
    phases = sorted({row.phase for row in rows})
    if len(phases) == 1:
        return
    for phase in phases:
        start = min(n for n, row in zip(epochs, rows, strict=True) if row.phase == phase) - 0.5
        if phase > phases[0]:
            panel.axvline(start, color=GREY, linewidth=0.8)
        panel.annotate(
            f"phase {phase}",
            (start, 1),
            xytext=(0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=8,
            color=GREY,
            annotation_clip=False,
        )


def _mark_best(panel: Axes, epoch: int, best: EpochRow) -> None:
    name = f"best epoch\n(phase {best.phase}, epoch {best.epoch})"
    panel.axvline(epoch, color=GREEN, linewidth=1.2, linestyle=":", label=name)
