"""Prepare the scans of a catalogue and its split on disk: several at a time, each once; failures are left out."""

import errno
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import LEVELS
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ConfigError, InputError, ReadError, VertebralError
from vertebral.data.verse.catalogue import Catalogue, CatalogueCase
from vertebral.data.verse.prepared_set import PreparedScan, PreparedSet, open_prepared, stored_scan
from vertebral.data.verse.split import Split
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.write import atomic_write, write_json
from vertebral.runtime.hashing import file_sha256
from vertebral.runtime.worker_pool import ProcessDied, map_in_processes
from vertebral.stages.preprocess import prepare, prepare_labels

Progress = Callable[[int, int, str], None]

_CACHE_VERSION = 1
_MOST_BONE_VOXELS = 20_000
_BYTES_PER_VOXEL = 3
_MOST_JOBS_BY_DEFAULT = 8


@dataclass(frozen=True)
class _Task:
    """One scan to prepare into `folder`."""

    case: CatalogueCase
    ct: Path
    labels: Path
    folder: Path
    preprocess: PreprocessConfig


def prepare_dataset(
    catalogue: Catalogue,
    split: Split,
    preprocess: PreprocessConfig,
    out: Path,
    jobs: int | None = None,
    progress: Progress = lambda done, total, case: None,
) -> PreparedSet:
    """Prepare the scans in the folds of `split` into `out`, and open the result.

    `jobs` processes take a scan each; None means one per processor, at most 8, because a scan takes about 12 bytes of
    memory per voxel of its CT. Finished scans are kept. A scan that fails among others is tried once more alone, then
    left out with its error. `progress(done, total, case)` counts scans.

    Raises ConfigError if `split` belongs to another catalogue, InputError if the disk is too small or no scan succeeds.
    """
    if split.catalog_sha256 != catalogue.sha256:
        raise ConfigError(
            f"{catalogue.root}: the split was made from another catalogue: make it again with vertebral data split"
        )
    wanted = {case for fold in split.folds for case in (*fold.train, *fold.validation)}
    tasks = [_task(catalogue, case, preprocess, out) for case in catalogue.usable if case.case in wanted]
    todo = [task for task in tasks if stored_scan(task.folder) is None]
    (out / "cases").mkdir(parents=True, exist_ok=True)
    _require_disk(todo, out)
    left_out: dict[str, str] = {}
    progress(len(tasks) - len(todo), len(tasks), "")
    for done, (task, error) in enumerate(_run(todo, jobs), start=len(tasks) - len(todo) + 1):
        left_out |= {task.case.case: error} if error else {}
        progress(done, len(tasks), task.case.case)
    if len(left_out) == len(tasks):
        first = next((f"; {case}: {error}" for case, error in left_out.items()), "")
        raise InputError(f"{out}: none of {len(tasks)} scans could be prepared{first}")
    scans = [(task, scan) for task in tasks if (scan := stored_scan(task.folder))]
    stored = {
        "version": 1,
        "preprocess": preprocess.model_dump(mode="json"),
        "catalog_sha256": catalogue.sha256,
        "split": split.model_dump(mode="json"),
        "cases": [
            scan.model_dump(mode="json") | {"subject": task.case.subject, "folder": f"cases/{task.folder.name}"}
            for task, scan in scans
        ],
        "left_out": dict(sorted(left_out.items())),
    }
    write_json(stored, out / "prepared.json")
    return open_prepared(out)


def draw_bone(labels: NDArray[Any]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Draw at most 20,000 voxels of vertebrae from a label map (I, J, K), equally many of each level if it has enough.

    Returns their indices (N, 3) and the levels found, both from head to tail. The draw is always the same.
    """
    vertebrae = [level for level in LEVELS if level.is_vertebra]
    voxels = np.flatnonzero(np.isin(labels, [level.verse_id for level in vertebrae]))
    ids = labels.ravel()[voxels]
    own = {level.name: voxels[ids == level.verse_id] for level in vertebrae}
    shown = {name: found for name, found in own.items() if len(found)}
    rng = np.random.default_rng(0)
    quota = _MOST_BONE_VOXELS // max(1, len(shown))
    drawn = [rng.choice(found, min(len(found), quota), replace=False) for found in shown.values()]
    flat = np.concatenate([voxels[:0], *drawn])
    return np.stack(np.unravel_index(flat, labels.shape), axis=1).astype(np.int32), tuple(shown)


def _task(catalogue: Catalogue, case: CatalogueCase, preprocess: PreprocessConfig, out: Path) -> _Task:
    kept = (_CACHE_VERSION, case.sha256_ct, case.sha256_labels, preprocess.spacing_mm, preprocess.window_hu)
    folder = out / "cases" / f"{case.case}-{hashlib.sha256(repr(kept).encode()).hexdigest()[:12]}"
    return _Task(case, catalogue.path(case.ct), catalogue.path(case.labels or ""), folder, preprocess)


def _require_disk(tasks: Sequence[_Task], out: Path) -> None:
    need_gb, free_gb = sum(_voxels(task) for task in tasks) * _BYTES_PER_VOXEL / 1e9, shutil.disk_usage(out).free / 1e9
    if need_gb > free_gb:
        raise InputError(
            f"{out}: needs about {need_gb:.3g} GB, but only {free_gb:.3g} GB are free: choose another --out"
        )


def _voxels(task: _Task) -> float:
    """Estimate the number of voxels of a prepared scan."""
    shape, spacing_mm = task.case.shape or (), task.case.spacing_mm or ()
    return math.prod(n * mm / task.preprocess.spacing_mm for n, mm in zip(shape, spacing_mm, strict=True))


def _run(tasks: Sequence[_Task], jobs: int | None) -> Iterator[tuple[_Task, str | None]]:
    """Run `tasks`, in any order; yield each with None or, after its last attempt, its error."""
    jobs = min(jobs or min(os.cpu_count() or 1, _MOST_JOBS_BY_DEFAULT), len(tasks))
    failed = []
    for n, fault in map_in_processes(_attempt, tasks, jobs, threads=1):
        if isinstance(fault, ProcessDied):
            yield tasks[n], fault.reason
        elif fault is None or jobs <= 1:
            yield tasks[n], fault
        else:
            failed.append(tasks[n])
    yield from ((task, _attempt(task)) for task in failed)


def _attempt(task: _Task) -> str | None:
    """Prepare a scan; return None or its error. A full disk is not an error of the scan and is raised."""
    try:
        _build(task)
    # One failure among a thousand scans must not end the work on the others.
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        return _line(error)
    return None


def _line(error: Exception) -> str:
    kind = "" if isinstance(error, VertebralError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())


def _build(task: _Task) -> None:
    case, spacing_mm = task.case, task.preprocess.spacing_mm
    for path, expected in ((task.ct, case.sha256_ct), (task.labels, case.sha256_labels)):
        if file_sha256(path) != expected:
            raise ReadError(f"{path}: has changed since the catalogue was made: run vertebral data index again")
    given, ct = read_labels(task.labels), read_scan(task.ct).volume
    if not ct.grid.matches(given.grid):
        raise ReadError(f"{task.labels}: its grid differs from that of {task.ct}: resample one to match the other")
    labels = prepare_labels(given, spacing_mm).array
    bone, levels = draw_bone(labels)
    if not levels:
        raise ReadError(f"{task.labels}: contains no vertebra: leave it out of the split")
    # As a z-score with mean 0 and deviation 1, HU stay HU.
    plain = PreprocessConfig(spacing_mm=spacing_mm, window_hu=task.preprocess.window_hu, scaling="zscore")
    hu = prepare(ct, plain).volume
    arrays: dict[str, NDArray[Any]] = {
        "ct": np.rint(hu.array).astype(np.int16),
        "labels": labels.astype(np.uint8),
        "bone": bone,
    }
    shutil.rmtree(task.folder, ignore_errors=True)
    task.folder.mkdir(parents=True)
    if sum(array.nbytes for array in arrays.values()) > shutil.disk_usage(task.folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(task.folder))
    for name, array in arrays.items():
        with atomic_write(task.folder / f"{name}.npy") as temporary:
            np.save(temporary, array)
    made = PreparedScan(
        case=case.case,
        subject=case.subject,
        folder=Path(task.folder.name),
        shape=hu.grid.shape,
        spacing_mm=spacing_mm,
        affine_rows=hu.affine.tolist(),
        levels=levels,
        sha256_ct=case.sha256_ct or "",
        sha256_labels=case.sha256_labels or "",
    )
    write_json(made.model_dump(mode="json"), task.folder / "case.json")
