"""The report: charts and pictures, `report.html` with all of them inside, `report.md`, and `table.tex`."""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vertebral.core.about import DISCLAIMER, __version__
from vertebral.core.errors import VertebralError
from vertebral.evaluation.page import tables
from vertebral.evaluation.settings import Settings
from vertebral.evaluation.summary import EvaluatedModel
from vertebral.io.write import atomic_write

Progress = Callable[[int, int, str], None]
FILES = {"report": "report.html", "markdown": "report.md", "latex": "table.tex"}
FIGURES = "figures"
NO_CHARTS = "without charts and pictures, which need matplotlib (pip install 'vertebral[train]')"


@dataclass(frozen=True)
class ReportPicture:
    """A picture of the report: SVG text, or the path of a PNG."""

    title: str
    about: str
    svg: str | None = None
    png: Path | None = None

    @property
    def data(self) -> str:
        """The PNG as a data URL."""
        assert self.png is not None
        return f"data:image/png;base64,{base64.b64encode(self.png.read_bytes()).decode()}"


def write_report(
    models: Sequence[EvaluatedModel],
    collected: dict[str, Any],
    settings: Settings,
    out: Path,
    worst: int,
    progress: Progress = lambda done, total, text: None,
) -> dict[str, Path]:
    """Write the report into `out`; return its files. Pictures are in `out`/figures and embedded in the page.

    The `worst` cases of each model are drawn. Without matplotlib the report has only tables, and says so.
    """
    charts, pictures = _drawn(models, collected, settings, out / FIGURES, worst, progress)
    files = {name: out / file for name, file in FILES.items()}
    context = _context(models, collected, charts, pictures)
    environment = Environment(
        loader=PackageLoader("vertebral.evaluation.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = {
        "report": environment.get_template("report.html.j2").render(context),
        "markdown": _markdown(context, out),
        "latex": f"% {DISCLAIMER}\n% \\usepackage{{booktabs}}\n{tables.latex(tables.overview(collected))}",
    }
    for name, text in texts.items():
        with atomic_write(files[name]) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return files


def _context(
    models: Sequence[EvaluatedModel],
    collected: dict[str, Any],
    charts: list[ReportPicture],
    pictures: list[ReportPicture],
) -> dict[str, Any]:
    return {
        "disclaimer": DISCLAIMER,
        "version": __version__,
        "overview": tables.overview(collected),
        "policies": collected["policies"],
        "facts": collected["facts"],
        "charts": charts,
        "pictures": pictures,
        "comparisons": [(row["first"], row["second"], tables.comparison(row)) for row in collected["comparisons"]],
        "models": [
            {
                "summary": summary,
                "metrics": tables.metrics(summary),
                "levels": tables.levels(summary),
                "regions": tables.regions(summary),
                "cases": tables.cases(collected["cases"][model.name]),
                "failed": [(row.case, row.error) for row in model.failed],
            }
            for model, summary in zip(models, collected["models"], strict=True)
        ],
        "warnings": _warnings(collected),
        "no_charts": "" if charts else NO_CHARTS,
    }


def _warnings(collected: dict[str, Any]) -> list[str]:
    """Return what a reader must know before the results."""
    said = []
    for model in collected["models"]:
        if model["failed"]:
            count = len(model["failed"])
            said.append(f"{model['name']}: {count} cases could not be scored and are in no mean; they are listed below")
        if model["patients"] < 10:
            said.append(f"{model['name']}: only {model['patients']} patients; the intervals are unreliable")
        if model["predictions_without_reference"]:
            count = len(model["predictions_without_reference"])
            said.append(f"{model['name']}: predictions without a reference, not scored: {count}")
        if model["scans_with_t13_or_l6"]:
            said.append(f"{model['name']}: scans with T13 or L6: {', '.join(model['scans_with_t13_or_l6'])}")
    return said


def _drawn(
    models: Sequence[EvaluatedModel],
    collected: dict[str, Any],
    settings: Settings,
    folder: Path,
    worst: int,
    progress: Progress,
) -> tuple[list[ReportPicture], list[ReportPicture]]:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return [], []
    _clear(folder)
    return _charts(models, collected, folder), _pictures(models, collected, settings, folder, worst, progress)


def _clear(folder: Path) -> None:
    """Create the folder, and remove the pictures of an earlier report."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if re.fullmatch(r"(chart_\w+\.svg|(worst|example)_\d+_\d+_.*\.png)", path.name):
            path.unlink()


def _charts(models: Sequence[EvaluatedModel], collected: dict[str, Any], folder: Path) -> list[ReportPicture]:
    from vertebral.evaluation.page import charts

    boxes = "Boxes show quartiles over the patients with a complete vertebra, dots show patients"
    made = [
        (
            "dice",
            "Dice of each level",
            f"{boxes}; a missing vertebra is 0.",
            charts.level_boxes(models, "dice", "Dice", 1.02),
        ),
        (
            "hd95",
            "HD95 of each level",
            f"{boxes}; missing vertebrae have none.",
            charts.level_boxes(models, "hd95_mm", "HD95 (mm)", None),
        ),
        (
            "shifts",
            "Names",
            "How many levels too far down the name of a predicted vertebra is, compared with the reference vertebra "
            "that contains most of it.",
            charts.shift_bars(models, collected["models"]),
        ),
        (
            "calibration",
            "Confidence",
            "Share of right names against the confidence in the manifest, in tenths; numbers are vertebrae.",
            charts.calibration(models),
        ),
    ]
    pictures = []
    for name, title, about, svg in made:
        if svg is None:
            continue
        with atomic_write(folder / f"chart_{name}.svg") as temporary:
            temporary.write_text(svg, encoding="utf-8")
        pictures.append(ReportPicture(title, about, svg=svg))
    return pictures


def _pictures(
    models: Sequence[EvaluatedModel],
    collected: dict[str, Any],
    settings: Settings,
    folder: Path,
    worst: int,
    progress: Progress,
) -> list[ReportPicture]:
    """Draw the median case of each model as an example, and its worst cases."""
    from vertebral.evaluation.page.pictures import draw_case, draw_example

    jobs: list[tuple[str, int, int, dict[str, Any]]] = []
    for number, model in enumerate(models, start=1):
        ordered = tables.worst_first(collected["cases"][model.name])
        jobs += [("example", number, 1, ordered[len(ordered) // 2])] if worst else []
        jobs += [("worst", number, n, case) for n, case in enumerate(ordered[:worst], start=1)]
    drawn: list[ReportPicture] = []
    for done, (kind, number, n, case) in enumerate(jobs):
        name = case["case"]
        progress(done, len(jobs), f"drawing {name}")
        paths = next(row for row in models[number - 1].paths if row.case == name)
        path = folder / f"{kind}_{number}_{n}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.png"
        heading = f"{models[number - 1].name}, {'the median case' if kind == 'example' else f'worst case {n}'}: {name}"
        about, why = _about(case), None
        try:
            if kind == "example":
                draw_example(paths, settings, name, path)
            else:
                why = draw_case(paths, settings, name, about, path)
        except VertebralError as error:
            drawn.append(ReportPicture(heading, f"Could not be drawn: {error}"))
            continue
        drawn.append(ReportPicture(heading, about + (f" CT not shown: {why}." if why else ""), png=path))
    return drawn


def _about(case: dict[str, Any]) -> str:
    whole = [row["dice"] for row in case["levels"] if not row["cut"]]
    said = [f"Dice of the spine {case['spine']['dice']:.3f}"] if case["spine"]["dice"] is not None else []
    said += [f"mean of {len(whole)} complete levels {sum(whole) / len(whole):.3f}"] if whole else []
    said += [f"all levels right: {'yes' if case['naming']['all_right'] else 'no'}"] if case["naming"] else []
    return ", ".join(said) + "." if said else "Nothing to score."


def _markdown(context: dict[str, Any], out: Path) -> str:
    parts = ["# Evaluation", f"**{context['disclaimer']}**", tables.markdown(context["overview"])]
    parts += ["\n".join(f"- {text}" for text in context["warnings"])] if context["warnings"] else []
    for first, second, table in context["comparisons"]:
        parts += [f"## {second} minus {first}, paired over patients", tables.markdown(table)]
    for model in context["models"]:
        name = model["summary"]["name"]
        parts += [f"## {name}", tables.markdown(model["metrics"])]
        for title, key in (("Regions", "regions"), ("Levels", "levels"), ("Scans, the worst first", "cases")):
            parts += [f"### {title}", tables.markdown(model[key])] if model[key][1] else []
        if model["failed"]:
            rows = [[case, error] for case, error in model["failed"]]
            parts += ["### Not scored", tables.markdown((["scan", "error"], rows))]
    for picture in context["pictures"]:
        if picture.png is not None:
            parts += [f"### {picture.title}", f"{picture.about}\n\n![{picture.title}]({FIGURES}/{picture.png.name})"]
    if context["facts"]:
        parts += ["## How", "\n".join(f"- **{name}**: {text}" for name, text in context["facts"].items())]
    parts += ["## Policies", "\n".join(f"- **{name}**: {text}" for name, text in context["policies"].items())]
    return "\n\n".join(part.strip() for part in parts) + "\n"
