"""Summarise the scores of cases: one value per patient, then means over patients."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vertebral.core.anatomy import BY_NAME, Level, sort_levels
from vertebral.evaluation.calibration import expected_calibration_error, reliability
from vertebral.evaluation.case import REGIONS, FailedCase, ScoredCase, VertebraScore
from vertebral.evaluation.pairing import CasePaths
from vertebral.evaluation.statistics import Difference, Estimate, by_patient, difference, estimate
from vertebral.stages.identify.priors import RARE


@dataclass(frozen=True)
class Metric:
    """One value of a case. `better` is 1 if higher is better, -1 if lower is, 0 if neither."""

    title: str
    unit: str
    better: int
    of: Callable[[ScoredCase], float | None]

    @property
    def digits(self) -> int:
        """Decimal places for tables."""
        return 2 if self.unit in ("mm", "GB") else 1 if self.unit == "s" else 3


@dataclass(frozen=True)
class EvaluatedModel:
    """The scores of one model or tool. `spare` are predictions without a reference; `paths` are for pictures."""

    name: str
    scores: tuple[ScoredCase, ...]
    failed: tuple[FailedCase, ...] = ()
    spare: tuple[str, ...] = ()
    paths: tuple[CasePaths, ...] = ()


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _over_levels(field: str, cut: bool = False) -> Callable[[ScoredCase], float | None]:
    """Average a field over the reference vertebrae of a case; vertebrae without a value are left out."""
    return lambda case: _mean(getattr(row, field) for row in case.levels if row.cut == cut)


def _hd95_with_missing(case: ScoredCase) -> float | None:
    return _mean(case.diagonal_mm if row.hd95_mm is None else row.hd95_mm for row in case.complete)


def _volume_error(case: ScoredCase) -> float | None:
    return _mean(None if row.volume_error is None else abs(row.volume_error) for row in case.complete)


def _found(case: ScoredCase) -> float | None:
    return _mean(float(row.dice is not None and row.dice >= 0.5) for row in case.complete)


def _named(field: str) -> Callable[[ScoredCase], float | None]:
    return lambda case: None if case.naming is None else _float(getattr(case.naming, field))


def _matched(field: str) -> Callable[[ScoredCase], float | None]:
    return lambda case: None if case.matching is None else _float(getattr(case.matching, field))


def _float(value: float | bool | None) -> float | None:
    return None if value is None else float(value)


METRICS: dict[str, Metric] = {
    "dice_spine": Metric("Dice, spine", "", 1, lambda case: case.spine.dice),
    "hd95_spine_mm": Metric("HD95, spine", "mm", -1, lambda case: case.spine.hd95_mm),
    "assd_spine_mm": Metric("ASSD, spine", "mm", -1, lambda case: case.spine.assd_mm),
    "surface_within_1mm_spine": Metric("surface within 1 mm, spine", "", 1, lambda case: case.spine.surface_within_1mm),
    "surface_within_2mm_spine": Metric("surface within 2 mm, spine", "", 1, lambda case: case.spine.surface_within_2mm),
    "surface_within_3mm_spine": Metric("surface within 3 mm, spine", "", 1, lambda case: case.spine.surface_within_3mm),
    "dice_levels": Metric("Dice, mean of levels", "", 1, _over_levels("dice")),
    "hd95_levels_mm": Metric("HD95, mean of levels found", "mm", -1, _over_levels("hd95_mm")),
    "hd95_levels_with_missing_mm": Metric("HD95, missing as the diagonal", "mm", -1, _hd95_with_missing),
    "assd_levels_mm": Metric("ASSD, mean of levels found", "mm", -1, _over_levels("assd_mm")),
    "surface_within_1mm_levels": Metric(
        "surface within 1 mm, mean of levels", "", 1, _over_levels("surface_within_1mm")
    ),
    "surface_within_2mm_levels": Metric(
        "surface within 2 mm, mean of levels", "", 1, _over_levels("surface_within_2mm")
    ),
    "surface_within_3mm_levels": Metric(
        "surface within 3 mm, mean of levels", "", 1, _over_levels("surface_within_3mm")
    ),
    "volume_error_levels": Metric("relative volume error, absolute", "", -1, _volume_error),
    "dice_any_level": Metric("Dice, mean of levels, whatever the names", "", 1, _over_levels("any_level_dice")),
    "found": Metric("levels with Dice of 0.5 or more", "", 1, _found),
    "dice_cut": Metric("Dice, cut vertebrae", "", 1, _over_levels("dice", cut=True)),
    "hd95_cut_mm": Metric("HD95, cut vertebrae found", "mm", -1, _over_levels("hd95_mm", cut=True)),
    "id_rate": Metric("identification rate (VerSe)", "", 1, _named("id_rate")),
    "localisation_mm": Metric("localisation error (VerSe)", "mm", -1, _named("localisation_mm")),
    "recall": Metric("names: recall", "", 1, _named("recall")),
    "precision": Metric("names: precision", "", 1, _named("precision")),
    "f1": Metric("names: F1", "", 1, _named("f1")),
    "all_right": Metric("all levels right", "", 1, _named("all_right")),
    "false_positives": Metric("false positives per scan", "", -1, _named("false_positives")),
    "pq": Metric("panoptic quality, whatever the names", "", 1, _matched("pq")),
    "rq": Metric("vertebrae found (F1)", "", 1, _matched("rq")),
    "dice_matched": Metric("Dice of matched vertebrae", "", 1, _matched("dice")),
    "seconds": Metric("time per scan", "s", -1, lambda case: case.run.seconds),
    "memory_gb": Metric("peak memory", "GB", -1, lambda case: case.run.memory_gb),
}
LEVEL_FIELDS = ("dice", "hd95_mm", "assd_mm", "surface_within_2mm")


def patients(scores: Sequence[ScoredCase], metric: str) -> dict[str, float]:
    """Return the value of a metric for each patient that has one."""
    return by_patient((case.subject, METRICS[metric].of(case)) for case in scores)


def summarise(model: EvaluatedModel) -> dict[str, Any]:
    """Return all results of a model: metrics, regions, levels (complete vertebrae), shifts of names, calibration."""
    scores = model.scores
    shifts: Counter[str] = Counter()
    for case in scores:
        shifts.update(case.naming.shifts if case.naming else {})
    answers = [answer for case in scores for answer in case.answers]
    rare = [case.case for case in scores if {row.name for row in case.levels} & set(RARE)]
    return {
        "name": model.name,
        "scans": len(scores),
        "patients": len({case.subject for case in scores}),
        "failed": [asdict(row) for row in model.failed],
        "predictions_without_reference": list(model.spare),
        "metrics": {name: _plain(estimate(patients(scores, name))) for name in METRICS},
        "regions": {name: _plain(estimate(_region(scores, name))) for name in REGIONS},
        "levels": {level.name: level_figures(scores, level) for level in levels_in(scores)},
        "shifts": {by: shifts[by] for by in sorted(shifts, key=int)},
        "scans_with_t13_or_l6": rare,
        "calibration": {
            "answers": len(answers),
            "expected_calibration_error": expected_calibration_error(answers) if answers else None,
            "bins": [asdict(row) for row in reliability(answers)],
        },
    }


def headline(case: ScoredCase) -> dict[str, Any]:
    """Summarise one case: complete reference vertebrae, those with a Dice of 0.5 or more, mean Dice, mean HD95."""
    return {
        "complete": len(case.complete),
        "complete_with_dice_of_half": sum(row.dice is not None and row.dice >= 0.5 for row in case.complete),
        "mean_dice": METRICS["dice_levels"].of(case),
        "mean_hd95_mm": METRICS["hd95_levels_mm"].of(case),
    }


def compare(first: EvaluatedModel, second: EvaluatedModel) -> dict[str, Difference | None]:
    """Return the paired difference of every metric, `second` minus `first`."""
    return {name: difference(patients(first.scores, name), patients(second.scores, name)) for name in METRICS}


def levels_in(scores: Sequence[ScoredCase]) -> tuple[Level, ...]:
    """Return the levels of the references, from head to tail."""
    return sort_levels({BY_NAME[row.name] for case in scores for row in case.levels})


def level_values(scores: Sequence[ScoredCase], level: Level, field: str) -> dict[str, float]:
    """Return a field of one level for each patient that has it; complete vertebrae only."""
    return by_patient((case.subject, getattr(row, field)) for case, row in _rows(scores, level) if not row.cut)


def level_figures(scores: Sequence[ScoredCase], level: Level) -> dict[str, Any]:
    """Summarise one level over patients, with the numbers of complete, cut, missing and identified vertebrae."""
    rows = [row for _, row in _rows(scores, level)]
    whole = [row for row in rows if not row.cut]
    return {
        "complete": len(whole),
        "cut": len(rows) - len(whole),
        "missing": sum(row.volume_ml == 0 for row in whole),
        "hits": sum(row.hit for row in whole),
        **{field: _plain(estimate(level_values(scores, level, field))) for field in LEVEL_FIELDS},
    }


def _rows(scores: Sequence[ScoredCase], level: Level) -> list[tuple[ScoredCase, VertebraScore]]:
    return [(case, row) for case in scores for row in case.levels if row.name == level.name]


def _region(scores: Sequence[ScoredCase], name: str) -> dict[str, float]:
    return by_patient((case.subject, row.dice) for case in scores for row in case.regions if row.name == name)


def _plain(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
