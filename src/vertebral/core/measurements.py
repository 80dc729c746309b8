"""The hand-over of `measure`: rows of figures, each with its quality or the reason why it is missing.

The tables made from it, the report and a structured report need no more than this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vertebral.core.anatomy import Level

Quality = Literal["good", "check", "none"]


@dataclass(frozen=True)
class Figure:
    """One measured value; its unit is in the name under which a row keeps it.

    `good`: nothing speaks against it. `check`: measured, and `reason` says what speaks against it. `none`: `value` is
    None and `reason` says why.
    """

    value: float | str | None
    quality: Quality
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """All figures of one vertebra, gap, curve or region called `name`; `levels` are those that it is about."""

    name: str
    levels: tuple[Level, ...]
    figures: Mapping[str, Figure]

    def value(self, column: str) -> float | str | None:
        """Return the bare value of a column; raises KeyError for an unknown one."""
        return self.figures[column].value

    @property
    def quality(self) -> Quality:
        """The worst quality among the figures that were measured; `none` where none was."""
        found = {figure.quality for figure in self.figures.values()}
        return "check" if "check" in found else "good" if "good" in found else "none"


@dataclass(frozen=True)
class Measurements:
    """A measured spine, from head to tail.

    `vertebrae` has one row a level, `gaps` one for each pair of neighbours, `regions` one for each named angle or
    length (lordosis, kyphosis, arc length), `curves` one for each coronal curve, the largest first.
    """

    vertebrae: tuple[Row, ...]
    gaps: tuple[Row, ...]
    regions: tuple[Row, ...]
    curves: tuple[Row, ...]
    warnings: tuple[str, ...] = ()

    @property
    def tables(self) -> dict[str, tuple[Row, ...]]:
        """The four tables by name."""
        return {"vertebrae": self.vertebrae, "gaps": self.gaps, "regions": self.regions, "curves": self.curves}


def good(value: float | str) -> Figure:
    """Return a figure against which nothing speaks."""
    return Figure(value, "good")


def missing(reason: str) -> Figure:
    """Return a figure that could not, or must not, be measured."""
    return Figure(None, "none", reason)


def flagged(value: float | str, reasons: tuple[str, ...] | list[str]) -> Figure:
    """Return a figure that is `good` where there are no `reasons` and `check` otherwise."""
    return Figure(value, "check", "; ".join(dict.fromkeys(reasons))) if reasons else good(value)


def flat_rows(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """Return one flat record for each row: `name`, `quality`, then each column and `<column>_quality`.

    Numbers are rounded to 4 decimals. The quality reads `good`, `check: <reason>` or `none: <reason>`.
    """
    return [
        {"name": row.name, "quality": row.quality}
        | {
            key: item
            for column, figure in row.figures.items()
            for key, item in ((column, _rounded(figure.value)), (f"{column}_quality", _spoken(figure)))
        }
        for row in rows
    ]


def nested(measurements: Measurements) -> dict[str, Any]:
    """Return all tables for json: each figure as {value, quality, reason}; the reason only where there is one."""
    tables = {
        table: [
            {
                "name": row.name,
                "levels": [level.name for level in row.levels],
                "quality": row.quality,
                "figures": {column: _figure_record(figure) for column, figure in row.figures.items()},
            }
            for row in rows
        ]
        for table, rows in measurements.tables.items()
    }
    return {**tables, "warnings": list(measurements.warnings)}


def _figure_record(figure: Figure) -> dict[str, Any]:
    record = {"value": _rounded(figure.value), "quality": figure.quality}
    return record | {"reason": figure.reason} if figure.reason else record


def _rounded(value: float | str | None) -> float | str | None:
    return round(float(value), 4) if isinstance(value, int | float) else value


def _spoken(figure: Figure) -> str:
    return f"{figure.quality}: {figure.reason}" if figure.reason else figure.quality
