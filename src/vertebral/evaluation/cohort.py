"""Score many cases in parallel, within the free memory, each once; a case that fails is reported, not fatal."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from vertebral.core.errors import VertebralError
from vertebral.evaluation.case import FailedCase, ScoredCase, from_json, to_json
from vertebral.evaluation.evaluate import evaluate
from vertebral.evaluation.pairing import CasePaths, read_run
from vertebral.evaluation.settings import Settings
from vertebral.io.ct.read import free_memory_gb, read_geometry
from vertebral.io.result_folder import MANIFEST
from vertebral.io.write import write_json
from vertebral.runtime.hashing import file_sha256
from vertebral.runtime.worker_pool import ProcessDied, map_in_processes

Progress = Callable[[int, int, str], None]
Outcome = ScoredCase | FailedCase
# Increase it when the same files would get different scores.
VERSION = 2
_BYTES_PER_VOXEL = 12
_BASE_GB = 0.25


@dataclass(frozen=True)
class _Job:
    paths: CasePaths
    settings: Settings
    cache: Path | None


def score_cases(
    cases: Sequence[CasePaths],
    settings: Settings,
    cache: Path | None = None,
    jobs: int | None = None,
    progress: Progress = lambda done, total, text: None,
) -> list[Outcome]:
    """Score every case, in the order of `cases`.

    Scores in the folder `cache` are reused if the files and settings are unchanged; new scores are stored there.
    `jobs` processes run at once, by default one per processor, but no more than fit into memory with the largest case.
    A case that cannot be scored becomes a `FailedCase`.
    """
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    work = [_Job(paths, settings, cache) for paths in cases]
    count = min(jobs or os.cpu_count() or 1, len(work), _fitting(cases))
    outcomes: dict[int, Outcome] = {}
    for n, result in map_in_processes(_score, work, count):
        if isinstance(result, ProcessDied):
            result = work[n].paths.failed(f"{result.reason}; free memory, or crop the case")
        outcomes[n] = result
        progress(len(outcomes), len(work), work[n].paths.case)
    return [outcomes[n] for n in range(len(work))]


def _score(job: _Job) -> Outcome:
    """Score one case, or return why that failed: no error in one case may stop the others."""
    paths = job.paths
    if paths.prediction is None:
        return paths.failed("no prediction for this case")
    try:
        place = job.cache / f"{paths.case}.json" if job.cache is not None else None
        key = _key(paths.prediction, paths.reference, job.settings) if place is not None else ""
        known = _cached(place, key, paths) if place is not None else None
        if known is not None:
            return known
        run = read_run(paths.prediction)
        score = evaluate(paths.prediction, paths.reference, job.settings, paths.case, paths.subject, run)
        if place is not None:
            write_json({"key": key, "score": to_json(score)}, place)
        return score
    except VertebralError as error:
        return paths.failed(str(error))
    except Exception as error:
        return paths.failed(f"{type(error).__name__}: {error}")


def _key(prediction: Path, reference: Path, settings: Settings) -> str:
    manifest = prediction.parent / MANIFEST
    files = [path for path in (prediction, reference, manifest) if path.is_file()]
    parts = [VERSION, asdict(settings), [(path == manifest, file_sha256(path)) for path in files]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _cached(place: Path, key: str, paths: CasePaths) -> ScoredCase | None:
    try:
        stored = json.loads(place.read_text(encoding="utf-8"))
        if stored["key"] != key:
            return None
        return from_json({**stored["score"], "case": paths.case, "subject": paths.subject})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fitting(cases: Sequence[CasePaths]) -> int:
    """Return how many cases of the largest size fit into memory at once; at least one."""
    sizes = [1]
    for paths in cases:
        try:
            sizes.append(prod(read_geometry(paths.reference).shape))
        except VertebralError:
            continue  # reported when the case is scored
    free_gb = free_memory_gb()
    need_gb = _BASE_GB + max(sizes) * _BYTES_PER_VOXEL / 1e9
    return len(cases) if free_gb is None else max(1, int(free_gb / need_gb))
