"""Evaluate folders of label maps: find the cases, score them for each model, write results and report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebral.core.errors import ConfigError, InputError
from vertebral.evaluation.case import FailedCase, ScoredCase
from vertebral.evaluation.cohort import score_cases
from vertebral.evaluation.page.report import write_report
from vertebral.evaluation.pairing import find_cases
from vertebral.evaluation.results import collect, refuse_results, write_results
from vertebral.evaluation.settings import Settings
from vertebral.evaluation.summary import EvaluatedModel

Progress = Callable[[int, int, str], None]
CACHE = "cases"


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate: `predictions` are (name, file or folder); the others are compared with the first.

    If a name is None, it is that of the model in the manifests, or else of the folder. `subject` is the pattern of
    `subject_of`; `jobs` cases are scored at once; the `worst` cases are drawn.
    """

    predictions: tuple[tuple[str | None, Path], ...]
    reference: Path
    ct: Path | None = None
    subject: str | None = None
    jobs: int | None = None
    worst: int = 3
    overwrite: bool = False


def evaluate_folders(
    request: EvaluationRequest, settings: Settings, out: Path, progress: Progress = lambda done, total, text: None
) -> tuple[list[EvaluatedModel], dict[str, Any], dict[str, Path]]:
    """Score all cases and write everything into `out`; return the models, the content of `evaluation.json`, the files.

    The scores of cases are stored in `out`/cases and reused if files and settings are unchanged. Raises InputError or a
    subclass for paths that cannot be evaluated, and if no case of a model can be scored.
    """
    refuse_results(out, request.overwrite)
    found = [
        (name, place, *find_cases(place, request.reference, request.ct, request.subject))
        for name, place in request.predictions
    ]
    make_folder(out)
    models: list[EvaluatedModel] = []
    for n, (name, place, cases, spare) in enumerate(found):
        cache = out / CACHE if len(found) == 1 else out / CACHE / f"{n + 1}"
        outcomes = score_cases(cases, settings, cache, request.jobs, progress)
        scores = tuple(outcome for outcome in outcomes if isinstance(outcome, ScoredCase))
        failed = tuple(outcome for outcome in outcomes if isinstance(outcome, FailedCase))
        if not scores:
            raise InputError(
                f"{place}: none of the {len(failed)} cases could be scored; {failed[0].case}: {failed[0].error}"
            )
        title = _unique(name or _name(scores, place), models)
        models.append(EvaluatedModel(title, scores, failed, tuple(path.name for path in spare), tuple(cases)))
    return models, *finish(models, settings, out, request.worst, {}, progress)


def finish(
    models: Sequence[EvaluatedModel],
    settings: Settings,
    out: Path,
    worst: int,
    facts: dict[str, str],
    progress: Progress = lambda done, total, text: None,
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Write the report and the results; `facts` describe how the predictions were made."""
    collected = collect(models, settings, facts)
    files = write_report(models, collected, settings, out, worst, progress)
    return collected, write_results(models, collected, out) | files


def make_folder(out: Path) -> None:
    """Create the folder `out`. Raises InputError if that fails."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot create the folder ({error.strerror}); choose another --out") from error


def _name(scores: Sequence[ScoredCase], place: Path) -> str:
    known = {score.run.model for score in scores}
    model = known.pop() if len(known) == 1 else None
    return model or place.resolve().name


def _unique(name: str, models: Sequence[EvaluatedModel]) -> str:
    if name in {model.name for model in models}:
        raise ConfigError(f"two models are called {name}; give each its own name, with --name once per model")
    return name
