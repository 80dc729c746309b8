"""Models over a catalogue: every scan predicted once, in a process of its own, and all of them scored and compared."""

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from vertebral.core.errors import ConfigError, InputError, VertebralError
from vertebral.data.verse.catalogue import CatalogueCase, load_catalogue
from vertebral.data.verse.layouts import ScanFiles, find_scans
from vertebral.evaluation.case import CaseScore, Failed
from vertebral.evaluation.cohort import score_cases
from vertebral.evaluation.pairing import CasePaths, find_cases
from vertebral.evaluation.results import refuse_results
from vertebral.evaluation.session import CACHE, finish, make_folder
from vertebral.evaluation.settings import Settings
from vertebral.evaluation.summary import Evaluated
from vertebral.io.manifest import LABELS_ENDING, MANIFEST
from vertebral.models.weights import load_model
from vertebral.runtime.hashing import file_sha256
from vertebral.workflows import run as pipeline
from vertebral.workflows.config import RunConfig

Progress = Callable[[int, int, str], None]
PREDICTIONS = "predictions"


@dataclass(frozen=True)
class BenchmarkRequest:
    """What to run: `models` (names or folders, the first is what others are compared with) over the scans of `data`.

    `data` is a catalogue's json, or a folder in a layout that `vertebral data index` knows, or with CTs beside their
    label maps. `subset` (training, validation, test) and `limit` choose among them. `isolated` predicts each scan in a
    process of its own, so that its peak memory is its own and its death costs no other.
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
) -> tuple[list[Evaluated], dict[str, Any], dict[str, Path]]:
    """Predict, score and report into `out`; return models, what `evaluation.json` says, and the files.

    Predictions lie in `out`/predictions/<model>/<case>, one folder each as `vertebral run` leaves it, and are kept
    where CT, model and options are the same. Raises InputError and its kin for data or models that cannot be used.
    """
    refuse_results(out, request.overwrite)
    scans = _scans(request)
    names = _names(request.models)
    digests = {model: load_model(model).sha256 for model in request.models}
    make_folder(out)
    models = []
    for model, name in names.items():
        config = RunConfig(model=model, device=request.device, refine=request.refine, overwrite=True)
        folder = out / PREDICTIONS / name
        made: list[CasePaths] = []
        failed: list[Failed] = []
        for n, scan in enumerate(scans):
            progress(n, len(scans), f"{name}: {scan.case}")
            error = _predict(scan, folder / scan.case, config, digests[model], request.isolated)
            if error is None:
                made.append(replace(scan, prediction=_label_map(folder / scan.case)))
            else:
                failed.append(scan.failed(error))
        outcomes = score_cases(made, settings, out / CACHE / name, request.jobs, progress)
        scores = tuple(outcome for outcome in outcomes if isinstance(outcome, CaseScore))
        failed += [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        if not scores:
            raise InputError(
                f"model {name}: not one of {len(scans)} scans could be scored; the first: {failed[0].error}"
            )
        models.append(Evaluated(name, scores, tuple(failed), (), tuple(made)))
    return models, *finish(models, settings, out, request.worst, _facts(request, names, digests, scans), progress)


def _scans(request: BenchmarkRequest) -> list[CasePaths]:
    """The scans with a reference, in the order of their names."""
    if not request.data.exists():
        raise InputError(f"{request.data}: no such file or folder: check the path")
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
        raise InputError(f"{request.data}: holds no CT{which} with a reference label map; give another place")
    return sorted(chosen, key=lambda row: row.case)[: request.limit]


def _names(models: tuple[str, ...]) -> dict[str, str]:
    """Model -> what it is called here: the last part of its path."""
    names = {model: Path(model).resolve().name if os.sep in model else model for model in models}
    if len(set(names.values())) < len(models):
        raise ConfigError(f"--model {', '.join(models)}: two models have one name; give them folders named apart")
    return names


def _predict(scan: CasePaths, folder: Path, config: RunConfig, digest: str, isolated: bool) -> str | None:
    """Run the model on a scan unless its results are there; return why that failed, or None."""
    assert scan.ct is not None
    try:
        if _is_there(folder, scan.ct, config, digest):
            return None
        if isolated:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                pool.submit(pipeline.run, scan.ct, folder, config).result()
        else:
            pipeline.run(scan.ct, folder, config)
    except VertebralError as error:
        return str(error)
    except BrokenProcessPool:
        return "its process was killed, perhaps for want of memory: free memory, or crop the scan"
    except (OSError, RuntimeError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _is_there(folder: Path, ct: Path, config: RunConfig, digest: str) -> bool:
    """True where the manifest says that these results came of the same CT, model and options."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        same = manifest["options"] == config.model_dump(mode="json") and manifest["model"]["sha256"] == digest
        return bool(same and manifest["input"]["sha256"] == file_sha256(ct) and _label_map(folder).is_file())
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


def _label_map(folder: Path) -> Path:
    return next(iter(sorted(folder.glob(f"*{LABELS_ENDING}"))), folder / "none")


def _facts(
    request: BenchmarkRequest, names: dict[str, str], digests: dict[str, str], scans: list[CasePaths]
) -> dict[str, str]:
    """How the figures came about; no paths, for a report may travel."""
    machine = platform.processor() or platform.machine()
    return {
        "data": f"{len(scans)} scans of {request.data.resolve().name}"
        + (f", subset {request.subset}" if request.subset else "")
        + (f", the first {request.limit}" if request.limit else ""),
        **{f"model {name}": f"sha256 {digests[model]}" for model, name in names.items()},
        "refinement": "as the model has it" if request.refine else "left out",
        "device": request.device,
        "machine": f"{machine}, {os.cpu_count()} processors, Python {sys.version.split()[0]}",
        "time and memory": "of each scan as its manifest gives them, imports not counted; "
        + ("a process a scan" if request.isolated else "one process for all, so that memory is the highest so far"),
    }
