"""What `measure` returns: rows of figures, each with its quality or the reason why it is missing.

Tables, the page and the DICOM structured report are made from these records alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vertebral.core.anatomy import Level

Quality = Literal["good", "check", "none"]


@dataclass(frozen=True)
class Figure:
    """One measured value; its unit is part of the column's name.

    `quality` is `good`, or `check` for a value with caveats, which `reason` gives, or `none`: then `value` is None and
    `reason` says why.
    """

    value: float | str | None
    quality: Quality
    reason: str = ""


@dataclass(frozen=True)
class MeasurementRow:
    """All figures by column of one vertebra, gap, curve or region called `name`; `levels` are the levels it covers."""

    name: str
    levels: tuple[Level, ...]
    figures: Mapping[str, Figure]

    def value(self, column: str) -> float | str | None:
        """Return the value of a column. Raises KeyError for an unknown column."""
        return self.figures[column].value

    @property
    def quality(self) -> Quality:
        """The worst quality among the figures that were measured; `none` if none was."""
        found = {figure.quality for figure in self.figures.values()}
        return "check" if "check" in found else "good" if "good" in found else "none"


@dataclass(frozen=True)
class Measurements:
    """A measured spine, from head to tail.

    `vertebrae` has one row per level, `gaps` one per pair of neighbours (the disc space), `regions` one per named angle
    or length (lordosis, kyphosis, arc length), `curves` one per coronal curve, the largest first.
    """

    vertebrae: tuple[MeasurementRow, ...]
    gaps: tuple[MeasurementRow, ...]
    regions: tuple[MeasurementRow, ...]
    curves: tuple[MeasurementRow, ...]
    warnings: tuple[str, ...] = ()

    @property
    def tables(self) -> dict[str, tuple[MeasurementRow, ...]]:
        """The four tables by name."""
        return {"vertebrae": self.vertebrae, "gaps": self.gaps, "regions": self.regions, "curves": self.curves}


def good(value: float | str) -> Figure:
    """Return a figure without caveats."""
    return Figure(value, "good")


def missing(reason: str) -> Figure:
    """Return a figure that could not be measured, or must not be."""
    return Figure(None, "none", reason)


def flagged(value: float | str, caveats: tuple[str, ...] | list[str]) -> Figure:
    """Return a figure that is `good` without `caveats` and `check` with them; each is named once."""
    return Figure(value, "check", "; ".join(dict.fromkeys(caveats))) if caveats else good(value)


def flat_rows(rows: tuple[MeasurementRow, ...]) -> list[dict[str, Any]]:
    """Return one flat record per row: `name`, `quality`, then each column and `<column>_quality`.

    Numbers are rounded to 4 decimals. The quality is `good`, `check: <reason>` or `none: <reason>`.
    """
    return [
        {"name": row.name, "quality": row.quality}
        | {
            key: item
            for column, figure in row.figures.items()
            for key, item in ((column, _rounded(figure.value)), (f"{column}_quality", _quality_text(figure)))
        }
        for row in rows
    ]


def nested(measurements: Measurements) -> dict[str, Any]:
    """Return all tables for JSON: each figure as {value, quality, reason}; without a reason if there is none."""
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


def _quality_text(figure: Figure) -> str:
    return f"{figure.quality}: {figure.reason}" if figure.reason else figure.quality
