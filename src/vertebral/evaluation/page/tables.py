"""Tables of an evaluation from the content of `evaluation.json`: text cells, then Markdown or LaTeX."""

from collections.abc import Sequence
from typing import Any

from vertebral.evaluation.summary import METRICS

Table = tuple[list[str], list[list[str]]]

# Column title and metric.
_OVERVIEW = {
    "Dice, spine": "dice_spine",
    "HD95, spine (mm)": "hd95_spine_mm",
    "Dice, levels": "dice_levels",
    "HD95, levels (mm)": "hd95_levels_mm",
    "id rate": "id_rate",
    "all right": "all_right",
    "PQ": "pq",
    "time (s)": "seconds",
    "memory (GB)": "memory_gb",
}
_NONE = "-"
_LATEX = str.maketrans({"\\": r"\textbackslash{}", **{mark: f"\\{mark}" for mark in "&%#_{}$"}})


def overview(collected: dict[str, Any]) -> Table:
    """One row per model: means over patients."""
    rows = []
    for model in collected["models"]:
        cells = [_mean(model["metrics"][name], METRICS[name].digits) for name in _OVERVIEW.values()]
        scans = f"{model['scans']} of {model['scans'] + len(model['failed'])}" if model["failed"] else model["scans"]
        rows.append([model["name"], str(scans), *cells])
    return ["model", "scans", *_OVERVIEW], rows


def metrics(model: dict[str, Any]) -> Table:
    """One row per metric: patients, mean with its interval, median and quartiles."""
    rows = []
    for name, metric in METRICS.items():
        found = model["metrics"][name]
        if found is None:
            continue
        digits = metric.digits
        quartiles = f"{_number(found['quartiles'][0], digits)} to {_number(found['quartiles'][1], digits)}"
        title = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
        rows.append(
            [
                title,
                str(found["patients"]),
                _number(found["mean"], digits),
                _interval(found["interval"], digits),
                _number(found["median"], digits),
                quartiles,
            ]
        )
    return ["metric", "patients", "mean", "95 % interval", "median", "quartiles"], rows


def levels(model: dict[str, Any]) -> Table:
    """One row per level: complete, cut, missing and identified vertebrae, then means over the complete ones."""
    rows = []
    for name, found in model["levels"].items():
        counts = [str(found[key]) for key in ("complete", "cut", "missing", "hits")]
        dice = found["dice"]
        cells = [
            _mean(dice, 3),
            _interval(dice["interval"] if dice else None, 3),
            _number(dice["median"], 3) if dice else _NONE,
            _mean(found["hd95_mm"], 2),
            _mean(found["assd_mm"], 2),
            _mean(found["surface_within_2mm"], 3),
        ]
        rows.append([name, *counts, *cells])
    head = ["level", "complete", "cut", "missing", "hits", "Dice", "95 % interval", "median", "HD95 (mm)", "ASSD (mm)"]
    return [*head, "surface within 2 mm"], rows


def regions(model: dict[str, Any]) -> Table:
    """One row per region, each as one mask."""
    rows = [
        [name, str(found["patients"]), _mean(found, 3), _interval(found["interval"], 3), _number(found["median"], 3)]
        for name, found in model["regions"].items()
        if found
    ]
    return ["region", "patients", "Dice", "95 % interval", "median"], rows


def comparison(compared: dict[str, Any]) -> Table:
    """One row per metric: mean difference with its interval, Wilcoxon's p, patients that are better, worse, equal."""
    rows = []
    for name, gap in compared["metrics"].items():
        if gap is None:
            continue
        metric = METRICS[name]
        title = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
        good, bad = (gap["higher"], gap["lower"]) if metric.better > 0 else (gap["lower"], gap["higher"])
        p = _NONE if gap["p"] is None else "< 0.001" if gap["p"] < 0.001 else f"{gap['p']:.3f}"
        rows.append(
            [
                title,
                str(gap["patients"]),
                f"{gap['mean']:+.{metric.digits}f}",
                _interval(gap["interval"], metric.digits),
                p,
                f"{good} / {bad} / {gap['patients'] - good - bad}",
            ]
        )
    return ["metric", "patients", "mean difference", "95 % interval", "p", "better / worse / equal"], rows


def cases(scores: Sequence[dict[str, Any]]) -> Table:
    """One row per scan, the worst first."""
    rows = [
        [
            case["case"],
            _number(case["spine"]["dice"], 3),
            _number(case["spine"]["hd95_mm"], 1),
            _number(_level_mean(case), 3),
            f"{case['naming']['hits']} / {case['naming']['reference']}" if case["naming"] else _NONE,
            _yes(case["naming"]["all_right"]) if case["naming"] else _NONE,
            " ".join(f"{by}: {count}" for by, count in case["naming"]["shifts"].items()) if case["naming"] else "",
            ", ".join(case["extra"]),
            "; ".join([*case["notes"], *([f"left out: {', '.join(case['ignored'])}"] if case["ignored"] else [])]),
        ]
        for case in worst_first(scores)
    ]
    head = ["scan", "Dice, spine", "HD95 (mm)", "Dice, levels", "hits", "all right", "off by (count)", "extra", "notes"]
    return head, rows


def worst_first(scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort by the mean Dice of complete vertebrae, or of the spine if there are none; scans without either go last."""

    def rank(case: dict[str, Any]) -> tuple[bool, float, str]:
        mean = _level_mean(case)
        value = case["spine"]["dice"] if mean is None else mean
        return value is None, 0.0 if value is None else value, case["case"]

    return sorted(scores, key=rank)


def markdown(table: Table) -> str:
    """Format the table as Markdown."""
    head, rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def latex(table: Table) -> str:
    """Format the table as a LaTeX `tabular` for `booktabs`."""
    head, *rows = (" & ".join(map(_escaped, line)) + r" \\" for line in (table[0], *table[1]))
    begin, end = rf"\begin{{tabular}}{{l{'r' * (len(table[0]) - 1)}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", end]) + "\n"


def _level_mean(case: dict[str, Any]) -> float | None:
    values = [row["dice"] for row in case["levels"] if not row["cut"]]
    return sum(values) / len(values) if values else None


def _mean(found: dict[str, Any] | None, digits: int) -> str:
    return _NONE if found is None else _number(found["mean"], digits)


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _interval(interval: Sequence[float] | None, digits: int) -> str:
    return _NONE if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def _yes(value: bool | None) -> str:
    return _NONE if value is None else "yes" if value else "no"


def _escaped(text: str) -> str:
    return text.translate(_LATEX)
