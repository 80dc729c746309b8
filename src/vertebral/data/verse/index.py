"""Index a data folder: open every scan once, several at a time, and write the catalogue. An interrupted run resumes."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vertebral.core.anatomy import LEVELS, sort_levels
from vertebral.core.config import changed
from vertebral.core.errors import ReadError, VertebralError
from vertebral.core.volume import Array, Grid, Volume
from vertebral.data.verse.catalogue import Catalogue, CatalogueCase, write_catalogue
from vertebral.data.verse.layouts import ScanFiles, find_scans
from vertebral.io.ct.read import read_geometry, read_labels
from vertebral.io.result_folder import refuse_files
from vertebral.io.write import read_centroids
from vertebral.runtime.hashing import file_sha256
from vertebral.runtime.worker_pool import ProcessDied, map_in_processes

Progress = Callable[[int, int], None]

_BY_ID = {level.verse_id: level for level in LEVELS}
_NOTES_VERSION = 1
_SLAB_VOXELS = 1 << 22
_KEEPING_ORDER = ("test", "validation", "training", None)


def index_dataset(
    root: Path,
    out: Path,
    jobs: int | None = None,
    overwrite: bool = False,
    subject: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Catalogue:
    """Find the scans below `root` (see `layouts`), inspect each and write the catalogue to `out`.

    `jobs` processes work at once, one per processor if it is None. `progress(done, total)` counts scans. Each inspected
    scan is recorded at once in a hidden file next to `out`; after an interruption, or when the folder has grown, scans
    whose files have the same size and time are taken from there.

    Raises ReadError if `root` is not a folder or holds no scan, OutputExistsError if `out` exists and `overwrite` is
    not set. A scan that cannot be read is not an error; it is listed with a problem.
    """
    if not root.is_dir():
        raise ReadError(f"{root}: is not a folder; give the folder of the data")
    refuse_files([out], overwrite)
    scans, unmatched = find_scans(root, subject)
    if not scans:
        raise ReadError(
            f"{root}: no scan found: arrange the files as rawdata/ and derivatives/, images/ and labels/, or "
            "imagesTr/ and labelsTr/"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    notes = out.with_name(f".{out.name}.notes")
    known = _recall(notes, root, scans)
    with notes.open("w", encoding="utf-8") as stream:
        for scan in scans:
            if scan.ct in known:
                stream.write(_note(root, scan, known[scan.ct]))
        progress(len(known), len(scans))
        for scan, case in _inspected(root, [scan for scan in scans if scan.ct not in known], jobs):
            stream.write(_note(root, scan, case))
            stream.flush()
            known[scan.ct] = case
            progress(len(known), len(scans))
    cases = _without_duplicates([known[scan.ct] for scan in scans])
    catalogue = Catalogue(root=root.resolve(), cases=tuple(cases), unmatched=tuple(unmatched))
    write_catalogue(catalogue, out)
    return catalogue


def inspect(root: Path, found: ScanFiles) -> CatalogueCase:
    """Inspect the files of one scan. Reads the header of the CT and all of the label map."""
    problems, warnings = list(found.problems), list(found.warnings)
    grid = _attempt(read_geometry, root, found.ct, problems)
    labels = _attempt(read_labels, root, found.labels, problems)
    present: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    if labels is not None:
        present, cut, unknown = _levels(labels.array)
        problems += [f"unknown ids in the label map: {', '.join(map(str, unknown))}"] if unknown else []
        problems += [] if present or unknown else ["the label map is empty"]
        problems += _geometry_problems(grid, labels) if grid else []
        warnings += _centroid_warnings(root, found, labels.grid, present)
    return CatalogueCase(
        **{**asdict(found), "problems": tuple(problems), "warnings": tuple(warnings)},
        shape=grid.shape if grid else None,
        spacing_mm=_rounded(grid.spacing_mm) if grid else None,
        orientation=grid.axcodes if grid else None,
        levels=present,
        cut=cut,
        sha256_ct=_attempt(file_sha256, root, found.ct, []),
        sha256_labels=_attempt(file_sha256, root, found.labels, []),
    )


def _rounded(spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    i, j, k = (round(mm, 6) for mm in spacing_mm)
    return i, j, k


def _attempt(read: Callable[[Path], Any], root: Path, relative: str | None, problems: list[str]) -> Any:
    """Return `read` of a file; if it fails, return None and append a sentence to `problems`."""
    if relative is None:
        return None
    try:
        return read(root / relative)
    except (VertebralError, OSError) as error:
        problems.append(f"{relative}: {str(error).removeprefix(f'{root / relative}: ')}")
    return None


def _levels(array: Array) -> tuple[tuple[str, ...], tuple[str, ...], list[int]]:
    """Return the levels of a label map (I, J, K), the levels on its border, and the ids that are not levels."""
    counts = np.zeros(1 << 16, np.int64)
    step = max(1, _SLAB_VOXELS * array.shape[2] // array.size)
    for start in range(0, array.shape[2], step):
        counts += np.bincount(array[:, :, start : start + step].ravel(), minlength=counts.size)
    ids = [int(value) for value in np.flatnonzero(counts) if value]
    faces = (np.take(array, side, axis) for axis in range(3) for side in (0, -1))
    border = set(np.unique(np.concatenate([face.ravel() for face in faces])).tolist())
    known = [value for value in ids if value in _BY_ID]
    return _names(known), _names([v for v in known if v in border]), [v for v in ids if v not in _BY_ID]


def _names(ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(level.name for level in sort_levels(_BY_ID[value] for value in ids))


def _geometry_problems(ct: Grid, labels: Volume) -> list[str]:
    grid = labels.grid
    if ct.matches(grid):
        return []
    if ct.shape != grid.shape:
        shapes = [" x ".join(map(str, shape)) for shape in (grid.shape, ct.shape)]
        return [f"the label map has {shapes[0]} voxels, the CT {shapes[1]}"]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in ct.shape])).reshape(3, -1).T
    far_mm = np.linalg.norm(ct.to_world(corners) - grid.to_world(corners), axis=1).max()
    return [f"the affines of label map and CT differ: a corner is off by {far_mm:.2f} mm"]


def _centroid_warnings(root: Path, found: ScanFiles, grid: Grid, present: Sequence[str]) -> list[str]:
    warnings: list[str] = []
    entries = _attempt(lambda path: read_centroids(path, grid), root, found.centroids, warnings)
    if entries is None:
        return warnings
    named = [_name_of(label) for label, _ in entries]
    if missing := [name for name in present if name not in named]:
        warnings.append(f"no centroids of {', '.join(missing)}")
    if extra := [name for name in named if name not in present]:
        warnings.append(f"centroids of levels missing in the label map: {', '.join(extra)}")
    voxels = grid.to_voxel(np.array([point for _, point in entries]).reshape(-1, 3))
    far = np.asarray(grid.shape) - 0.5
    if outside := [name for name, at in zip(named, voxels, strict=True) if (at < -0.5).any() or (at > far).any()]:
        warnings.append(f"centroids outside the image: {', '.join(outside)}")
    return warnings


def _name_of(label: int) -> str:
    return _BY_ID[label].name if label in _BY_ID else str(label)


def _without_duplicates(cases: Sequence[CatalogueCase]) -> list[CatalogueCase]:
    """Keep one scan of each id and of each CT in use: one of the test set if there is one, otherwise the first."""
    in_use: dict[str, CatalogueCase] = {}
    problems: dict[str, list[str]] = defaultdict(list)
    usable = [case for case in cases if case.usable]
    for case in sorted(usable, key=lambda case: (_KEEPING_ORDER.index(case.subset), case.ct)):
        by_id, by_content = in_use.get(case.case), in_use.get(f"sha256 {case.sha256_ct}")
        if by_id:
            problems[case.ct].append(f"another scan has the id {case.case}: {by_id.ct}")
        if by_content:
            problems[case.ct].append(f"the same CT exists as {by_content.ct}")
        if not by_id and not by_content:
            in_use[case.case] = in_use[f"sha256 {case.sha256_ct}"] = case
    return [changed(case, problems=(*case.problems, *problems[case.ct])) for case in cases]


def _inspected(root: Path, scans: Sequence[ScanFiles], jobs: int | None) -> Iterator[tuple[ScanFiles, CatalogueCase]]:
    """Inspect `scans`, in any order."""
    jobs = min(jobs or os.cpu_count() or 1, len(scans))
    for n, case in map_in_processes(partial(inspect, root), scans, jobs):
        if isinstance(case, ProcessDied):
            raise VertebralError(
                f"{scans[n].ct}: {case.reason}: start again with fewer --jobs; scans already read are kept"
            )
        yield scans[n], case


def _note(root: Path, scan: ScanFiles, case: CatalogueCase) -> str:
    note = {"version": _NOTES_VERSION, "stamps": _stamps(root, scan), "found": asdict(scan)}
    return json.dumps(note | {"case": case.model_dump(mode="json")}) + "\n"


def _recall(notes: Path, root: Path, scans: Sequence[ScanFiles]) -> dict[str, CatalogueCase]:
    """Return the recorded cases of `scans` whose files have not changed, by the path of their CT."""
    wanted = {scan.ct: scan for scan in scans}
    known: dict[str, CatalogueCase] = {}
    for line in notes.read_text(encoding="utf-8").splitlines() if notes.is_file() else ():
        try:
            note = json.loads(line)
            case = CatalogueCase.model_validate(note["case"])
            scan = wanted[case.ct]
            expected = [_NOTES_VERSION, _stamps(root, scan), json.loads(json.dumps(asdict(scan)))]
            if [note["version"], note["stamps"], note["found"]] == expected:
                known[case.ct] = case
        except (ValueError, KeyError, TypeError):
            continue  # a line left incomplete by an interruption, or a scan that no longer exists
    return known


def _stamps(root: Path, scan: ScanFiles) -> list[list[int] | None]:
    """Return size and time of the files of a scan."""
    stamps: list[list[int] | None] = []
    for path in (scan.ct, scan.labels, scan.centroids):
        try:
            status = (root / path).stat() if path else None
        except OSError:
            status = None
        stamps.append([status.st_size, status.st_mtime_ns] if status else None)
    return stamps
