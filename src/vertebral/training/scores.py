"""The validation scores of one epoch of a run: reading them back, and tables of them."""

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from vertebral.core.anatomy import level_named, sort_levels
from vertebral.core.errors import ConfigError, ModelError
from vertebral.io.write import atomic_write
from vertebral.training.run_folder import EpochRow

_MEASURES = ("loss", "dice_spine", "dice_levels")
_TITLES = {"loss": "loss", "dice_spine": "Dice of the spine", "dice_levels": "Dice of the levels"}


@dataclass(frozen=True)
class CaseRow:
    """One scan; `values` are loss, dice_spine and dice_levels as far as they are known."""

    case: str
    subject: str
    values: dict[str, float]
    levels: dict[str, float]


def best_epoch(rows: Sequence[EpochRow], monitor: str) -> EpochRow | None:
    """The row with the highest Dice of the levels or, for monitor `loss`, the lowest loss; None if none has one."""
    sign = 1 if monitor == "dice" else -1
    scored = [(row, row.dice_levels if monitor == "dice" else row.loss_validation) for row in rows]
    known = [(row, sign * value) for row, value in scored if value is not None and value == value]
    return max(known, key=lambda pair: pair[1])[0] if known else None


def read_scores(path: Path) -> list[CaseRow]:
    """Read the scores of an epoch. Raises ModelError if the file is missing or damaged."""
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        rows = [
            CaseRow(str(c["case"]), str(c["subject"]), _known(c, _MEASURES), _known(c["levels"], c["levels"]))
            for c in cases
        ]
        sort_levels(level_named(name) for row in rows for name in row.levels)
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise ModelError(f"{path}: scores of the best epoch missing or damaged ({error}); restore the file") from None
    return rows


def write_csv(rows: Sequence[CaseRow], path: Path) -> None:
    """Write one row per scan and one each for mean and median; one column per measure and per level."""
    measures, names = _measures(rows), level_names(rows)
    table = [[row.case, row.subject, *_cells(row.values, measures), *_cells(row.levels, names)] for row in rows]
    for title, summary in (("mean", mean), ("median", median)):
        of_measures = _summaries([row.values for row in rows], measures, summary)
        of_levels = _summaries([row.levels for row in rows], names, summary)
        table.append([title, "", *_cells(of_measures, measures), *_cells(of_levels, names)])
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["case", "subject", *measures, *names], *table])


def case_table(rows: Sequence[CaseRow]) -> str:
    """Markdown: one row per scan, the worst first, then mean and median."""
    measures = _measures(rows)
    table = [
        [_plain(row.case), _plain(row.subject), *_cells(row.values, measures, 3)] for row in worst_first(rows, None)
    ]
    for title, summary in (("mean", mean), ("median", median)):
        values = _summaries([row.values for row in rows], measures, summary)
        table.append([f"**{title}**", "", *_cells(values, measures, 3)])
    return _markdown(["scan", "subject", *(_TITLES[name] for name in measures)], table)


def level_table(rows: Sequence[CaseRow]) -> str:
    """Markdown: one row per level, from head to tail."""
    table = []
    for name in level_names(rows):
        found = {row.case: row.levels[name] for row in rows if name in row.levels}
        lowest = min(found, key=lambda case: found[case])
        numbers = [f"{value:.3f}" for value in (mean(found.values()), median(found.values()), found[lowest])]
        table.append([name, str(len(found)), *numbers, _plain(lowest)])
    return _markdown(["level", "scans", "mean Dice", "median", "lowest", "of scan"], table)


def worst_first(rows: Sequence[CaseRow], count: int | None) -> list[CaseRow]:
    """Scans by ascending Dice of the levels, at most `count`; without a `count`, those that have none follow."""
    scored = [row for row in rows if "dice_levels" in row.values]
    ordered = sorted(scored, key=lambda row: (row.values["dice_levels"], row.case))
    rest = [row for row in rows if "dice_levels" not in row.values]
    return [*ordered, *rest] if count is None else ordered[:count]


def level_names(rows: Iterable[CaseRow]) -> list[str]:
    """Levels with a Dice, from head to tail."""
    return [level.name for level in sort_levels({level_named(name) for row in rows for name in row.levels})]


def _measures(rows: Sequence[CaseRow]) -> list[str]:
    return [name for name in _MEASURES if any(name in row.values for row in rows)]


def _known(values: dict[str, Any], names: Iterable[str]) -> dict[str, float]:
    return {name: float(values[name]) for name in names if values.get(name) is not None}


def _summaries(
    rows: Sequence[dict[str, float]], names: list[str], summary: Callable[[list[float]], float]
) -> dict[str, float]:
    """`summary` of each name over the rows that have it."""
    columns = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: summary(values) for name, values in columns.items() if values}


def _cells(values: dict[str, float], names: list[str], digits: int = 4) -> list[str]:
    return [f"{values[name]:.{digits}f}" if name in values else "" for name in names]


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
