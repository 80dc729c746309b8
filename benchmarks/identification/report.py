"""The results as files: every corrupted map, totals by kind and strength, a table and a chart."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.identification.run import CURVES, Outcome

from vertebral.core.errors import OutputExistsError, RenderError
from vertebral.evaluation.calibration import expected_calibration_error
from vertebral.io.write import atomic_write, write_json

NAMES = {"table": "identify.md", "rows": "identify.csv", "summary": "identify.json", "curve": "identify.png"}
# Okabe and Ito 2008: colours that people with red-green colour blindness can tell apart.
_LINES = (
    ("all_right", "vertebral", "#0072B2", "o"),
    ("given_all_right", "vertebral, given the true instances", "#009E73", "D"),
    ("vote_all_right", "majority vote in each true instance", "#D55E00", "s"),
    ("count_all_right", "counting downwards from the top", "#666666", "^"),
)


def refuse_results(folder: Path, overwrite: bool) -> None:
    """Raise OutputExistsError if the folder contains results and `overwrite` is False."""
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder}: is a file, not a folder; give a folder as --out")
    taken = [name for name in NAMES.values() if (folder / name).exists()]
    if taken and not overwrite:
        raise OutputExistsError(f"{folder / taken[0]}: already exists; add --overwrite or choose another --out")


def summarise(rows: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the shares by kind and strength, in the order in which they first appear.

    `all_right` and its rivals are shares of scans, `id_rate` and its rivals of expected vertebrae; `given_` is the
    result when the true instances are given. `recall` is the share of expected vertebrae that were found, `precision`
    the share of named instances that match a vertebra, whatever their names.
    """
    order = list(dict.fromkeys((row.kind, row.strength) for row in rows))
    ordered = sorted(rows, key=lambda row: order.index((row.kind, row.strength)))
    return [_sums(kind, strength, list(group)) for (kind, strength), group in groupby(ordered, _key)]


def _key(row: Outcome) -> tuple[str, float]:
    return row.kind, row.strength


def _sums(kind: str, strength: float, rows: list[Outcome]) -> dict[str, Any]:
    scores = [row.score for row in rows]
    expected = max(1, sum(score.expected for score in scores))
    shifts = sum((Counter(score.shifts) for score in scores), Counter())
    answers = [pair for score in scores for pair in score.probabilities]
    return {
        "kind": kind,
        "strength": strength,
        "scans": len(rows),
        "vertebrae": expected,
        "all_right": sum(score.all_right for score in scores) / len(rows),
        "given_all_right": sum(row.given.all_right for row in rows) / len(rows),
        "vote_all_right": sum(score.vote_all_right for score in scores) / len(rows),
        "count_all_right": sum(score.count_all_right for score in scores) / len(rows),
        "id_rate": sum(score.right for score in scores) / expected,
        "given_id_rate": sum(row.given.right for row in rows) / expected,
        "vote_id_rate": sum(score.vote_right for score in scores) / expected,
        "count_id_rate": sum(score.count_right for score in scores) / expected,
        "recall": sum(score.found for score in scores) / expected,
        "precision": sum(score.true for score in scores) / max(1, sum(score.named for score in scores)),
        "shifts": {f"{by:+d}": shifts[by] for by in sorted(shifts)},
        "expected_calibration_error": expected_calibration_error(answers),
        "seconds_per_spine": sum(row.instances_seconds + row.identify_seconds for row in rows) / len(rows),
    }


def write_report(rows: Sequence[Outcome], folder: Path) -> dict[str, Path]:
    """Write table, rows, totals and chart to `folder`; return their paths. Raises RenderError without matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / file for name, file in NAMES.items()}
    sums = summarise(rows)
    with atomic_write(files["rows"]) as path, path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(_HEADER)
        table.writerows(map(_cells, rows))
    with atomic_write(files["table"]) as path:
        path.write_text(markdown(sums), encoding="utf-8")
    with atomic_write(files["curve"]) as path:
        _draw(sums, path)
    write_json({"groups": sums, "rows": [asdict(row) for row in rows]}, files["summary"])
    return files


_HEADER = [
    "case",
    "kind",
    "strength",
    "repeat",
    "expected",
    "right",
    "all_right",
    "found",
    "named",
    "true",
    "given_right",
    "given_all_right",
    "vote_right",
    "vote_all_right",
    "count_right",
    "count_all_right",
    "shifts",
    "instances_seconds",
    "identify_seconds",
]


_RATES = ("id_rate", "given_id_rate", "vote_id_rate", "count_id_rate", "recall", "precision")


def _cells(row: Outcome) -> list[Any]:
    score = asdict(row.score)
    score["shifts"] = " ".join(f"{by:+d}:{count}" for by, count in sorted(row.score.shifts.items()))
    score |= {"given_right": row.given.right, "given_all_right": row.given.all_right}
    return [score[name] if name in score else getattr(row, name) for name in _HEADER]


def markdown(sums: Sequence[dict[str, Any]]) -> str:
    """Return the totals as a Markdown table."""
    lines = [
        "| corruption | strength | scans | all levels right | true instances | vote | count "
        "| id rate | true instances | vote | count | recall | precision | ECE | off by (count) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sums:
        off = ", ".join(f"{by}: {count}" for by, count in row["shifts"].items() if by != "+0")
        shares = [
            f"{100 * row[name]:.1f} %" for name in ("all_right", "given_all_right", "vote_all_right", "count_all_right")
        ]
        shares += [f"{row[name]:.3f}" for name in _RATES]
        cells = [row["kind"], f"{row['strength']:g}", str(row["scans"]), *shares]
        cells += [f"{row['expected_calibration_error']:.3f}", off or "none"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _draw(sums: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw one panel per curve: the share of scans with every level right against the strength."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RenderError("the chart needs matplotlib: pip install 'vertebral[train]'") from error

    figure = Figure(figsize=(6.7, 3.2), layout="constrained")
    panels = figure.subplots(1, len(CURVES), sharey=True)
    for panel, kind in zip(panels, CURVES, strict=True):
        rows = [row for row in sums if row["kind"] in (kind, "as it is")]
        for name, label, colour, marker in _LINES:
            values = [100 * row[name] for row in rows]
            panel.plot([row["strength"] for row in rows], values, color=colour, marker=marker, ms=4, label=label)
        panel.set_title(kind, loc="left", fontsize=10)
        panel.set_xlabel("strength of the corruption")
        panel.set_ylim(-3, 103)
        panel.grid(color="#E3E3E3", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("scans with every level right (%)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8
    )
    figure.savefig(path, format="png", dpi=150)
