"""The results of an evaluation as files: everything as JSON, a table of cases and a table of structures."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vertebral.core.about import DISCLAIMER, __version__
from vertebral.core.errors import OutputExistsError
from vertebral.evaluation.case import to_json
from vertebral.evaluation.settings import Settings, policies
from vertebral.evaluation.summary import METRICS, EvaluatedModel, compare, summarise
from vertebral.io.tables import write_csv
from vertebral.io.write import write_json

RESULTS = "evaluation.json"
CASES, LEVELS = "cases.csv", "levels.csv"


def refuse_results(out: Path, overwrite: bool) -> None:
    """Raise OutputExistsError if `out` is a file, or contains an evaluation and `overwrite` is False."""
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out}: is a file, not a folder; give a folder as --out")
    if (out / RESULTS).exists() and not overwrite:
        raise OutputExistsError(f"{out / RESULTS}: already exists; add --overwrite or choose another --out")


def collect(models: Sequence[EvaluatedModel], settings: Settings, facts: dict[str, str]) -> dict[str, Any]:
    """Collect all results of an evaluation; the other models are compared with the first."""
    first, *others = models
    return {
        "disclaimer": DISCLAIMER,
        "version": __version__,
        "facts": facts,
        "settings": asdict(settings),
        "policies": policies(settings),
        "models": [summarise(model) for model in models],
        "comparisons": [
            {
                "first": first.name,
                "second": other.name,
                "metrics": {name: asdict(gap) if gap else None for name, gap in compare(first, other).items()},
            }
            for other in others
        ],
        "cases": {model.name: [to_json(score) for score in model.scores] for model in models},
    }


def write_results(models: Sequence[EvaluatedModel], collected: dict[str, Any], out: Path) -> dict[str, Path]:
    """Write `cases.csv`, `levels.csv` and, last, `evaluation.json` into the existing folder `out`."""
    files = {"cases": out / CASES, "levels": out / LEVELS, "results": out / RESULTS}
    write_csv(_case_rows(models), files["cases"])
    write_csv(_level_rows(models), files["levels"])
    write_json(collected, files["results"])
    return files


def _case_rows(models: Sequence[EvaluatedModel]) -> list[dict[str, Any]]:
    """Return one row per case; a failed case has only its error."""
    rows: list[dict[str, Any]] = []
    for model in models:
        for case in model.scores:
            figures = {name: metric.of(case) for name, metric in METRICS.items()}
            about = {"model": model.name, "case": case.case, "subject": case.subject, "error": None}
            shifts = case.naming.shifts if case.naming else {}
            rows.append(
                about
                | figures
                | {
                    "shifts": " ".join(f"{by}:{count}" for by, count in shifts.items()),
                    "extra": " ".join(case.extra),
                    "ignored": " ".join(case.ignored),
                    "notes": "; ".join(case.notes),
                }
            )
        blank = dict.fromkeys((*METRICS, "shifts", "extra", "ignored", "notes"))
        rows += [{"model": model.name, **asdict(failed), **blank} for failed in model.failed]
    return rows


def _level_rows(models: Sequence[EvaluatedModel]) -> list[dict[str, Any]]:
    return [
        {"model": model.name, "case": case.case, "subject": case.subject, "structure": kind}
        | {"any_level_dice": None, "cut": None, "distance_mm": None, "hit": None}
        | vars(row)
        for model in models
        for case in model.scores
        for kind, rows in (("spine", (case.spine,)), ("region", case.regions), ("level", case.levels))
        for row in rows
    ]
