"""The charts of the report as SVG: scores of each level, shifts of names, calibration of confidences."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vertebral.core.anatomy import sort_levels
from vertebral.evaluation.calibration import reliability
from vertebral.evaluation.summary import EvaluatedModel, level_values, levels_in

# Okabe and Ito 2008: colours that people with red-green colour blindness can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def level_boxes(models: Sequence[EvaluatedModel], field: str, title: str, top: float | None) -> str:
    """Draw a box plot over patients for each level, complete vertebrae only. Every patient is a dot."""
    known = {level for model in models for level in levels_in(model.scores)}
    names = sort_levels(level for level in known if any(level_values(model.scores, level, "dice") for model in models))
    figure, axes = _figure(max(4.6, 1.2 + 0.36 * len(names)), 2.8)
    width = 0.8 / len(models)
    for n, model in enumerate(models):
        values = [list(level_values(model.scores, level, field).values()) for level in names]
        places = np.arange(len(names)) + (n - (len(models) - 1) / 2) * width
        _boxes(axes, values, places, 0.8 * width, COLOURS[n % len(COLOURS)], model.name)
    axes.set_xticks(np.arange(len(names)), [level.name for level in names], rotation=0 if len(names) < 15 else 60)
    axes.set_ylabel(title)
    highest = top or axes.get_ylim()[1]
    axes.set_ylim(-0.02 * highest, highest)
    axes.set_xlim(-0.6, len(names) - 0.4)
    _legend(axes, models)
    return _svg(figure)


def shift_bars(models: Sequence[EvaluatedModel], summaries: Sequence[dict[str, Any]]) -> str:
    """Draw the number of predicted vertebrae by how many levels their name is too far down (+) or up (-)."""
    steps = sorted({int(by) for summary in summaries for by in summary["shifts"]} | {-1, 0, 1})
    figure, axes = _figure(4.2, 2.6)
    width = 0.8 / len(models)
    for n, (model, summary) in enumerate(zip(models, summaries, strict=True)):
        counts = [summary["shifts"].get(f"{step:+d}", 0) for step in steps]
        places = np.arange(len(steps)) + (n - (len(models) - 1) / 2) * width
        bars = axes.bar(places, counts, 0.9 * width, color=COLOURS[n % len(COLOURS)], label=model.name)
        axes.bar_label(bars, [str(count) if count else "" for count in counts], fontsize=7)
    axes.set_xticks(np.arange(len(steps)), [f"{step:+d}" if step else "right" for step in steps])
    axes.set_xlabel("shift of the name (levels; positive: too far down)")
    axes.set_ylabel("predicted vertebrae")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.12)
    _legend(axes, models)
    return _svg(figure)


def calibration(models: Sequence[EvaluatedModel]) -> str | None:
    """Draw the share of right names against their confidence, in tenths; None without confidences in a manifest."""
    known = [(n, model, _answers(model)) for n, model in enumerate(models) if _answers(model)]
    if not known:
        return None
    figure, axes = _figure(3.4, 3.2)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
    for n, model, answers in known:
        rows = reliability(answers)
        colour = COLOURS[n % len(COLOURS)]
        confidence, accuracy = [row.confidence for row in rows], [row.accuracy for row in rows]
        axes.plot(confidence, accuracy, color=colour, marker="o", markersize=4, label=model.name)
        for row in rows:
            at_top = row.accuracy > 0.9
            offset = (0, -10 if at_top else 6)
            axes.annotate(
                str(row.count), (row.confidence, row.accuracy), xytext=offset, textcoords="offset points", fontsize=7
            )
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="confidence", ylabel="share of right names")
    _legend(axes, models)
    return _svg(figure)


def _answers(model: EvaluatedModel) -> list[tuple[float, bool]]:
    return [answer for case in model.scores for answer in case.answers]


def _boxes(axes: Axes, values: list[list[float]], places: Any, width: float, colour: str, name: str) -> None:
    shown = [(own, place) for own, place in zip(values, places, strict=True) if own]
    if not shown:
        return
    axes.boxplot(
        [own for own, _ in shown],
        positions=[place for _, place in shown],
        widths=width,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": colour, "alpha": 0.25, "edgecolor": colour},
        medianprops={"color": colour, "linewidth": 1.6},
        whiskerprops={"color": colour},
        capprops={"color": colour},
        manage_ticks=False,
    )
    rng = np.random.default_rng(0)
    for own, place in shown:
        across = place + rng.uniform(-0.25, 0.25, len(own)) * width
        axes.plot(across, own, linestyle="", marker="o", markersize=2.5, color=colour, alpha=0.7)
    axes.plot([], [], marker="s", linestyle="", color=colour, label=name)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    with mpl.rc_context({"font.size": 8.5}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
    axes.grid(axis="y", color="#E3E3E3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(axes: Axes, models: Sequence[EvaluatedModel]) -> None:
    if len(models) > 1:
        axes.legend(frameon=False, fontsize=7.5)


def _svg(figure: Figure) -> str:
    """Return the SVG for HTML: without the XML header, identical on every run."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "vertebral", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
