"""Run models on labelled scans, each scan in a process of its own, then score and compare them."""

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vertebral.core.errors import ConfigError, InputError, VertebralError
from vertebral.data.verse.catalogue import CatalogueCase, load_catalogue
from vertebral.data.verse.layouts import ScanFiles, find_scans
from vertebral.evaluation.case import FailedCase, ScoredCase
from vertebral.evaluation.cohort import score_cases
from vertebral.evaluation.pairing import CasePaths, find_cases
from vertebral.evaluation.results import refuse_results
from vertebral.evaluation.settings import Settings
from vertebral.evaluation.summary import EvaluatedModel
from vertebral.io.ct.read import read_sha256
from vertebral.io.result_folder import find_result, open_result
from vertebral.models.config import ModelsConfig
from vertebral.models.load import weights_of
from vertebral.runtime.worker_pool import ProcessDied, run_in_process
from vertebral.workflows.config import RunConfig
from vertebral.workflows.evaluate_folder import CACHE, finish, make_folder
from vertebral.workflows.run import run

Progress = Callable[[int, int, str], None]
PREDICTIONS = "predictions"


@dataclass(frozen=True)
class BenchmarkRequest:
    """What to run: `models` (names or folders; the others are compared with the first) on the scans of `data`.

    `data` is the JSON of a catalogue, or a folder: in a layout that `vertebral data index` knows, or with each CT next
    to its label map. `subset` (training, validation, test) and `limit` select scans. `isolated` predicts each scan in
    its own process, so that its peak memory is measured and a crash affects no other scan.
    """

    data: Path
    models: tuple[str, ...]
    subset: str | None = None
    limit: int | None = None
    subject: str | None = None
    device: str = "auto"
    refine: bool = True
    isolated: bool = True
    jobs: int | None = None
    worst: int = 3
    overwrite: bool = False


def run_benchmark(
    request: BenchmarkRequest, settings: Settings, out: Path, progress: Progress = lambda done, total, text: None
) -> tuple[list[EvaluatedModel], dict[str, Any], dict[str, Path]]:
    """Predict, score and report into `out`; return the models, the content of `evaluation.json`, and the files.

    Predictions are in `out`/predictions/<model>/<case>, each a result folder of `vertebral run`; they are reused if CT,
    model and options are unchanged. Raises InputError or a subclass for data or models that cannot be used.
    """
    refuse_results(out, request.overwrite)
    scans = _scans(request)
    names = _names(request.models)
    weights = {model: weights_of(ModelsConfig(model=model, refine=request.refine)) for model in request.models}
    make_folder(out)
    models = []
    for model, name in names.items():
        config = RunConfig(model=model, device=request.device, refine=request.refine, overwrite=True)
        folder = out / PREDICTIONS / name
        made: list[CasePaths] = []
        failed: list[FailedCase] = []
        for n, scan in enumerate(scans):
            progress(n, len(scans), f"{name}: {scan.case}")
            error = _predict(scan, folder / scan.case, config, weights[model], request.isolated)
            if error is None:
                made.append(replace(scan, prediction=open_result(folder / scan.case).labels_path))
            else:
                failed.append(scan.failed(error))
        outcomes = score_cases(made, settings, out / CACHE / name, request.jobs, progress)
        scores = tuple(outcome for outcome in outcomes if isinstance(outcome, ScoredCase))
        failed += [outcome for outcome in outcomes if isinstance(outcome, FailedCase)]
        if not scores:
            raise InputError(
                f"model {name}: none of the {len(scans)} scans could be scored; {failed[0].case}: {failed[0].error}"
            )
        models.append(EvaluatedModel(name, scores, tuple(failed), (), tuple(made)))
    return models, *finish(models, settings, out, request.worst, _facts(request, names, weights, scans), progress)


def _scans(request: BenchmarkRequest) -> list[CasePaths]:
    """Return the scans with a reference, sorted by name."""
    if not request.data.exists():
        raise InputError(f"{request.data}: no such file or folder; check the path")
    rows: Sequence[tuple[CatalogueCase | ScanFiles, Path]]
    if request.data.is_file():
        catalogue = load_catalogue(request.data)
        rows = [(row, catalogue.root) for row in catalogue.usable]
    else:
        rows = [(row, request.data) for row in find_scans(request.data, request.subject)[0]]
    found: list[tuple[str | None, CasePaths]] = [
        (row.subset, CasePaths(row.case, row.subject, None, root / row.labels, root / row.ct))
        for row, root in rows
        if row.labels is not None
    ]
    if not found and request.data.is_dir():
        cases, _ = find_cases(request.data, request.data, subject=request.subject)
        found = [(None, replace(row, prediction=None)) for row in cases if row.ct is not None]
    chosen = [row for subset, row in found if request.subset in (None, subset)]
    if not chosen:
        which = f" of subset {request.subset}" if request.subset else ""
        raise InputError(f"{request.data}: contains no CT{which} with a reference label map; give another path")
    return sorted(chosen, key=lambda row: row.case)[: request.limit]


def _names(models: tuple[str, ...]) -> dict[str, str]:
    """Map each model to its name here: its own, or that of its folder."""
    names = {model: Path(model).resolve().name if os.sep in model else model for model in models}
    if len(set(names.values())) < len(models):
        raise ConfigError(f"--model {', '.join(models)}: two models have the same name; rename one of the folders")
    return names


def _predict(scan: CasePaths, folder: Path, config: RunConfig, weights: list[str | None], isolated: bool) -> str | None:
    """Run the model on a scan unless its result exists; return why that failed, or None."""
    assert scan.ct is not None
    try:
        earlier = find_result(folder)
        options = config.model_dump(mode="json")
        if earlier is not None and earlier.is_made_from(read_sha256(scan.ct), options, weights):
            return None
        job = _Job(scan.ct, folder, config)
        outcome = run_in_process(_run_job, job) if isolated else _run_job(job)
    except VertebralError as error:
        return str(error)
    except (OSError, RuntimeError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{outcome.reason}: free memory, or crop the scan" if isinstance(outcome, ProcessDied) else None


@dataclass(frozen=True)
class _Job:
    ct: Path
    folder: Path
    config: RunConfig


def _run_job(job: _Job) -> dict[str, Any]:
    return run(job.ct, job.folder, job.config)


def _facts(
    request: BenchmarkRequest, names: dict[str, str], weights: dict[str, list[str | None]], scans: list[CasePaths]
) -> dict[str, str]:
    """Describe how the predictions were made, without paths, because reports are passed on."""
    machine = platform.processor() or platform.machine()
    return {
        "data": f"{len(scans)} scans of {request.data.resolve().name}"
        + (f", subset {request.subset}" if request.subset else "")
        + (f", the first {request.limit}" if request.limit else ""),
        **{f"model {name}": f"sha256 {weights[model][0]}" for model, name in names.items()},
        "refinement": "on, if the model has a refiner" if request.refine else "left out",
        "device": request.device,
        "machine": f"{machine}, {os.cpu_count()} processors, Python {sys.version.split()[0]}",
        "time and memory": "of each scan from its manifest, without imports; "
        + ("one process per scan" if request.isolated else "one process for all, so memory is the highest so far"),
    }
