"""Bodies on disk, from which patches are cut: built from a data folder and the sources of a config."""

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import BY_NAME
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ConfigError, ReadError
from vertebral.core.volume import Grid, Volume
from vertebral.data.synthesis.body_map import BodyMap, cropped, load_body, spine_box, with_cortex
from vertebral.data.synthesis.config import SourceConfig
from vertebral.data.synthesis.spine_placement import place_in_body
from vertebral.data.synthesis.tissues import TISSUE_ID
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.write import atomic_write, write_json
from vertebral.stages.preprocess import prepare, prepare_labels

UNKNOWN_HU = np.iinfo(np.int16).min
_CACHE_VERSION = 2
_MOST_JOBS_BY_DEFAULT = 8
_MOST_STRETCH = 1.5


@dataclass(frozen=True)
class Recipe:
    """The files that one cached body is made from. `body` and `ct` may be missing, depending on the kind of source."""

    name: str
    kind: str
    weight: float
    labels: Path | None
    body: Path | None
    ct: Path | None


@dataclass(frozen=True)
class CachedBody:
    """A body on disk, memory-mapped: uint8 `tissue` and `labels`, int16 `hu` (UNKNOWN_HU: to be painted) or None."""

    name: str
    weight: float
    tissue: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    hu: NDArray[np.int16] | None


def find_recipes(data: Path, sources: tuple[SourceConfig, ...]) -> list[Recipe]:
    """Expand the globs of `sources` under `data`. Raises ConfigError if a glob matches nothing."""
    return [recipe for source in sources for recipe in _expand(data, source)]


def cache_bodies(
    recipes: list[Recipe],
    spacing_mm: float,
    cache: Path,
    progress: Callable[[int, str], None],
    jobs: int | None = None,
    crop_margin_mm: float | None = None,
) -> list[CachedBody]:
    """Build the bodies that `cache` lacks and open all of them; `progress(done, name)` is called for each one built.

    Entries are keyed by the contents of the files, the spacing and the version of this code. Memory-mapped arrays allow
    patches of a few megabytes to be cut at random, while the page cache keeps what is read often. `jobs` bodies are
    built at a time; each takes some seconds and 1.5 GB. With `crop_margin_mm`, a body is cropped to that margin around
    the box of its vertebrae, or of the placed ones if any were placed.
    """
    folders = [cache / f"{recipe.name}-{_key(recipe, spacing_mm, crop_margin_mm)}" for recipe in recipes]
    missing = [
        (recipe, spacing_mm, crop_margin_mm, folder)
        for recipe, folder in zip(recipes, folders, strict=True)
        if not (folder / "done.json").exists()
    ]
    jobs = min(jobs or min(os.cpu_count() or 1, _MOST_JOBS_BY_DEFAULT), len(missing))
    if jobs <= 1:
        for done, task in enumerate(missing):
            progress(done, task[0].name)
            _build(*task)
    else:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            for done, (task, _) in enumerate(zip(missing, pool.map(_build, *zip(*missing, strict=True)), strict=True)):
                progress(done, task[0].name)
    return [_open(recipe, folder) for recipe, folder in zip(recipes, folders, strict=True)]


def _open(recipe: Recipe, folder: Path) -> CachedBody:
    hu = folder / "hu.npy"
    return CachedBody(
        recipe.name,
        recipe.weight,
        np.load(folder / "tissue.npy", mmap_mode="r"),
        np.load(folder / "labels.npy", mmap_mode="r"),
        np.load(hu, mmap_mode="r") if hu.exists() else None,
    )


def _expand(data: Path, source: SourceConfig) -> Iterator[Recipe]:
    bodies = _glob(data, source.bodies)
    labels = _glob(data, source.labels)
    scans = {_case(path): path for path in _glob(data, source.ct)}
    if source.kind == "body":
        own = {_case(path): path for path in labels}
        for path in bodies:
            yield Recipe(_case(path), source.kind, source.weight, own.get(_case(path)), path, None)
    elif source.kind == "vertebrae":
        for index, path in enumerate(labels):
            for turn in range(min(source.placements, len(bodies))):
                body = bodies[(index + turn) % len(bodies)]
                name = f"{_case(path)}-in-{_case(body)}"
                yield Recipe(name, source.kind, source.weight, path, body, None)
    else:
        if bodies and (len(labels), len(bodies)) != (1, 1):
            found = f"{len(labels)} label maps and {len(bodies)} body maps"
            raise ConfigError(f"{source.labels}: {found}; give each scan with a body map a source of its own")
        for path in labels:
            if _case(path) not in scans:
                raise ConfigError(f"{path}: no CT with the case name {_case(path)!r} matches {source.ct}")
            yield Recipe(
                _case(path), source.kind, source.weight, path, bodies[0] if bodies else None, scans[_case(path)]
            )


def _glob(data: Path, pattern: str | None) -> list[Path]:
    if pattern is None:
        return []
    try:
        found = sorted(data.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"pattern {pattern!r}: {error}; give it relative to the data folder") from None
    if not found:
        raise ConfigError(f"{data / pattern}: no file matches; check --data and the config's sources")
    return found


def _case(path: Path) -> str:
    name = path.name
    for suffix in (".nii.gz", ".nii", "_seg-vert_msk", "_organs", "_ct"):
        name = name.removesuffix(suffix)
    return name


def _key(recipe: Recipe, spacing_mm: float, crop_margin_mm: float | None) -> str:
    cut = "" if crop_margin_mm is None else f" cut {crop_margin_mm}"
    digest = hashlib.sha256(f"{_CACHE_VERSION} {recipe.kind} {spacing_mm}{cut}".encode())
    for path in (recipe.labels, recipe.body, recipe.ct):
        digest.update(path.read_bytes() if path else b"-")
    return digest.hexdigest()[:12]


def _build(recipe: Recipe, spacing_mm: float, crop_margin_mm: float | None, folder: Path) -> None:
    hu = None
    if recipe.ct is not None:
        body, hu = _real_scan(recipe, spacing_mm)
        if crop_margin_mm is not None:
            box = spine_box(body, crop_margin_mm)
            body, hu = cropped(body, box), hu[box]
    elif recipe.kind == "vertebrae" and recipe.labels and recipe.body:
        body = _placed(read_labels(recipe.labels), load_body(recipe.body, spacing_mm), crop_margin_mm)
    elif recipe.body:
        body = load_body(recipe.body, spacing_mm)
        if crop_margin_mm is not None:
            body = cropped(body, spine_box(body, crop_margin_mm))
    else:
        raise ConfigError(f"{recipe.name}: a source of kind {recipe.kind} needs more files; check the config's sources")
    body = with_cortex(body)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"tissue": body.tissue, "labels": body.labels, **({"hu": hu} if hu is not None else {})}
    for name, array in arrays.items():
        with atomic_write(folder / f"{name}.npy") as temporary:
            np.save(temporary, np.ascontiguousarray(array))
    write_json({"recipe": recipe.name, "spacing_mm": spacing_mm}, folder / "done.json")


def _placed(subject: Volume, body: BodyMap, crop_margin_mm: float | None) -> BodyMap:
    """Place the subject in the body. Crop the body first, if at all, which saves most of the time."""
    if crop_margin_mm is None:
        return place_in_body(subject, body)
    # Leave a margin, whatever the voxel size, so that no complete level touches the border and counts as cut off.
    found = ndimage.find_objects((subject.array > 0).astype(np.uint8))
    if found:
        parts = zip(found[0], subject.array.shape, strict=True)
        i, j, k = (slice(max(0, s.start - 8), min(n, s.stop + 8)) for s, n in parts)
        subject = subject.cropped((i, j, k))
    ids = [int(v) for v in np.unique(subject.array) if v]
    # Body slices are stretched to the size of the subject. L6 of a subject is placed at L5 of the body.
    wide = cropped(body, spine_box(body, _MOST_STRETCH * crop_margin_mm, [*ids, BY_NAME["L5"].verse_id]))
    placed = place_in_body(subject, wide)
    return cropped(placed, spine_box(placed, crop_margin_mm, ids))


def _real_scan(recipe: Recipe, spacing_mm: float) -> tuple[BodyMap, NDArray[np.int16]]:
    """Return a real CT with its labels; with a body map, only the HU of bone are kept and the rest is painted."""
    assert recipe.ct is not None and recipe.labels is not None
    ct = read_scan(recipe.ct).volume
    labels = read_labels(recipe.labels)
    if not ct.grid.matches(labels.grid):
        raise ReadError(f"{recipe.labels}: its grid differs from that of {recipe.ct}; resample one to match the other")
    plain_hu = PreprocessConfig(spacing_mm=spacing_mm, window_hu=(-1024, 3071), scaling="zscore", std_hu=1)
    prepared = prepare(ct, plain_hu).volume
    hu = np.rint(prepared.array).astype(np.int16)
    if recipe.body is None:
        own = prepare_labels(labels, spacing_mm)
        tissue = np.zeros(hu.shape, np.uint8)
        return BodyMap(tissue, own.array.astype(np.uint8), spacing_mm, own.affine), hu
    body = load_body(recipe.body, spacing_mm)
    if not prepared.grid.matches(Grid(body.tissue.shape, body.affine)):
        raise ReadError(f"{recipe.body}: its grid differs from that of {recipe.ct}")
    bone = np.isin(body.tissue, [TISSUE_ID[name] for name in ("bone_interior", "vertebra_interior")])
    known = bone & (prepare_labels(Volume((ct.array != 0).astype(np.uint8), ct.affine), spacing_mm).array > 0)
    return body, np.where(known, hu, UNKNOWN_HU).astype(np.int16)
