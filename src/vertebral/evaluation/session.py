"""The whole of an evaluation: find the cases, score them for each model, write results and report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebral.core.errors import ConfigError, InputError
from vertebral.evaluation.case import CaseScore, Failed
from vertebral.evaluation.cohort import score_cases
from vertebral.evaluation.page.report import write_report
from vertebral.evaluation.pairing import find_cases
from vertebral.evaluation.results import collect, refuse_results, write_results
from vertebral.evaluation.settings import Settings
from vertebral.evaluation.summary import Evaluated

Progress = Callable[[int, int, str], None]
CACHE = "cases"


@dataclass(frozen=True)
class Request:
    """What to evaluate: `predictions` are (name, file or folder), the first the one that others are compared with.

    A name that is None is that of the model in the manifests, or else of the folder. `worst` cases are drawn.
    """

    predictions: tuple[tuple[str | None, Path], ...]
    reference: Path
    ct: Path | None = None
    subject: str | None = None
    jobs: int | None = None
    worst: int = 3
    overwrite: bool = False


def evaluate_folders(
    request: Request, settings: Settings, out: Path, progress: Progress = lambda done, total, text: None
) -> tuple[list[Evaluated], dict[str, Any], dict[str, Path]]:
    """Score, write everything into `out`; return models, what `evaluation.json` says, and the files.

    Scores of cases lie in `out`/cases and are taken from there where files and settings are still the same. Raises
    InputError and its kin for what cannot be evaluated at all, and where no case of a model can.
    """
    refuse_results(out, request.overwrite)
    found = [
        (name, place, *find_cases(place, request.reference, request.ct, request.subject))
        for name, place in request.predictions
    ]
    make_folder(out)
    models: list[Evaluated] = []
    for n, (name, place, cases, spare) in enumerate(found):
        cache = out / CACHE if len(found) == 1 else out / CACHE / f"{n + 1}"
        outcomes = score_cases(cases, settings, cache, request.jobs, progress)
        scores = tuple(outcome for outcome in outcomes if isinstance(outcome, CaseScore))
        failed = tuple(outcome for outcome in outcomes if isinstance(outcome, Failed))
        if not scores:
            raise InputError(f"{place}: not one of {len(failed)} cases could be scored; the first: {failed[0].error}")
        title = _unique(name or _name(scores, place), models)
        models.append(Evaluated(title, scores, failed, tuple(path.name for path in spare), tuple(cases)))
    return models, *finish(models, settings, out, request.worst, {}, progress)


def finish(
    models: Sequence[Evaluated],
    settings: Settings,
    out: Path,
    worst: int,
    facts: dict[str, str],
    progress: Progress = lambda done, total, text: None,
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Write report and results of what was scored; `facts` say how it came about."""
    collected = collect(models, settings, facts)
    files = write_report(models, collected, settings, out, worst, progress)
    return collected, write_results(models, collected, out) | files


def make_folder(out: Path) -> None:
    """Make `out`. Raises InputError where that cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); choose another --out") from error


def _name(scores: Sequence[CaseScore], place: Path) -> str:
    known = {score.run.model for score in scores}
    model = known.pop() if len(known) == 1 else None
    return model or place.resolve().name


def _unique(name: str, models: Sequence[Evaluated]) -> str:
    if name in {model.name for model in models}:
        raise ConfigError(f"two models are called {name}: name them apart with --name and --compare-name")
    return name
