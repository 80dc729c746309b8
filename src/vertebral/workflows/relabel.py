"""Correct a label map of any tool: one label per vertebra, in anatomical order; what is right stays unchanged."""

import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from vertebral.core.about import DISCLAIMER, __version__
from vertebral.core.anatomy import BY_VERSE_ID, LEVELS, Level
from vertebral.core.errors import ConfigError, GeometryError, InputError
from vertebral.core.label_schemes import check_scheme, from_verse, to_verse
from vertebral.core.records import Instance, Instances, Spine
from vertebral.core.volume import Array, Volume
from vertebral.io.ct.image_header import stem_of
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.result_folder import MANIFEST, ResultNames, refuse_files, refuse_results, staging_in, writing
from vertebral.io.write import write_centroids, write_labels
from vertebral.runtime.hashing import file_sha256
from vertebral.stages.identify import identify
from vertebral.stages.instances.by_labels import instances_from_labels

PIN_REACH_MM = 20.0
# Lower limit of the median HU under the labels: bone is above it, soft tissue below.
MIN_MEDIAN_HU = 70.0
_STEM_ENDINGS = ("_seg-vert_msk", "_msk", "_seg")


@dataclass(frozen=True)
class Pin:
    """A level set by hand: the vertebra nearest to `point_mm` (RAS+) is `level`."""

    level: Level
    point_mm: tuple[float, float, float]


@dataclass(frozen=True)
class RelabelRequest:
    """How to relabel: label schemes of input and output, and levels set by hand (`first` is the topmost vertebra)."""

    scheme: str = "verse"
    out_scheme: str = "verse"
    pins: tuple[Pin, ...] = ()
    first: Level | None = None
    last: Level | None = None
    overwrite: bool = False


@dataclass(frozen=True, eq=False)
class Relabelled:
    """A corrected label map.

    `labels` has the ids of the output scheme, on the grid of the input. `changes` says what was done, as in the
    manifest: `levels`, `dropped`, `voxels_changed`, `voxels_dropped`. `ignored_ids` counts the voxels of ids that name
    no level. `spine` holds the vertebrae with their levels; `warnings` are sentences for the user.
    """

    labels: Volume
    spine: Spine
    changes: dict[str, Any]
    ignored_ids: dict[int, int]
    warnings: tuple[str, ...]


def relabel_labels(labels: Volume, request: RelabelRequest) -> Relabelled:
    """Correct the label map `labels` (I, J, K); it keeps its grid, and correct voxels keep their level.

    Raises ConfigError for an unknown scheme, or if levels set by hand contradict each other or are far from any
    vertebra.
    """
    check_scheme(request.scheme)
    check_scheme(request.out_scheme)
    converted = to_verse(labels.array, request.scheme)
    before = Volume(converted.array, labels.affine)
    instances = instances_from_labels(before, LEVELS)
    note = f"the label map contains no vertebra under the ids of scheme {request.scheme}: check --scheme"
    notes = () if instances.items else (note,)
    pins = pinned(instances, request)
    instances = renumbered(instances, pins)
    spine = identify(instances, pins=pins)
    after = paint(spine, before)
    written = Volume(from_verse(after.array, request.out_scheme), labels.affine)
    done = changes(instances, spine, before, after)
    return Relabelled(written, spine, done, converted.ignored, (*notes, *spine.warnings))


def relabel(source: Path, out: Path, request: RelabelRequest, ct: Path | None = None) -> dict[str, Any]:
    """Correct the label map `source`, write it with centroids and a manifest to `out`, and return the manifest.

    `ct` only serves to check that both share a grid and that the labels cover bone. Raises InputError or a subclass for
    unusable input, and what `relabel_labels` raises.
    """
    start = time.perf_counter()
    names = ResultNames(_stem(source))
    files = [out / name for name in (MANIFEST, names.labels, names.centroids)]
    _refuse_input(source, out, files)
    refuse_results(out, request.overwrite)
    refuse_files(files, request.overwrite)
    labels = read_labels(source)
    notes = _check_ct(labels, ct) if ct is not None else []
    corrected = relabel_labels(labels, request)
    spine = corrected.spine
    with staging_in(out, request.overwrite) as staging, writing(out):
        write_labels(corrected.labels, staging.folder / names.labels)
        centroids = [(vertebra.level.verse_id, vertebra.instance.centroid_mm) for vertebra in spine.vertebrae]
        write_centroids(centroids, labels.grid, staging.folder / names.centroids)
        manifest = {
            "disclaimer": DISCLAIMER,
            "input": {
                "name": names.stem,
                "sha256": file_sha256(source),
                "shape": labels.grid.shape,
                "spacing_mm": labels.spacing_mm,
                "orientation": labels.grid.axcodes,
                "ignored_ids": {str(value): voxels for value, voxels in corrected.ignored_ids.items()},
            },
            "versions": {"vertebral": __version__} | {name: version(name) for name in ("numpy", "scipy", "nibabel")},
            "options": _options(request, ct),
            **corrected.changes,
            "level_shift": {f"{by:+d}": round(share, 3) for by, share in spine.shift_probability.items()},
            "runner_up": spine.runner_up,
            "warnings": [*notes, *corrected.warnings],
            "seconds": round(time.perf_counter() - start, 3),
        }
        return staging.publish_result(manifest)


def pinned(instances: Instances, request: RelabelRequest) -> dict[int, Level]:
    """Map instance indices to the levels that were set by hand.

    Raises ConfigError if no vertebra is within `PIN_REACH_MM` of a point, or if two levels contradict each other.
    """
    pins: dict[int, tuple[Level, str]] = {}
    requested = [(pin.level, _nearest(instances, pin), _text(pin)) for pin in request.pins]
    vertebrae = [n for n, item in enumerate(instances.items) if not _is_sacral(item, instances.levels)]
    for level, place, option in ((request.first, 0, "--first"), (request.last, -1, "--last")):
        if level is not None:
            if not vertebrae:
                raise ConfigError(f"{option} {level.name}: the label map contains no vertebra")
            requested.append((level, vertebrae[place], f"{option} {level.name}"))
    for level, n, option in requested:
        other = pins.get(n)
        if other is not None and other[0] != level:
            raise ConfigError(f"{other[1]} and {option} name the same vertebra: remove one of them")
        pins[n] = (level, option)
    ordered = sorted(pins.items())
    for (_, (upper, above)), (_, (lower, below)) in itertools.pairwise(ordered):
        if upper.rank >= lower.rank:
            raise ConfigError(
                f"{above} and {below} contradict each other: the first is nearer to the head; change or remove one"
            )
    return {n: level for n, (level, _) in pins.items()}


def renumbered(instances: Instances, pins: Mapping[int, Level]) -> Instances:
    """Shift the labels of the map so that they agree with the levels set by hand.

    If the L3 of a map is really L2, its other labels are probably one too low as well. So the votes of each instance
    shift by as many levels as the nearest pin differs from the majority label of its own instance. T13, which lies
    between T12 and L1, shifts either the instances above it or those below it, never both. Sacrum and coccyx stay.
    """
    if not pins:
        return instances
    places = [_place(level) for level in instances.levels]
    items = []
    for n, item in enumerate(instances.items):
        near = min(sorted(pins), key=lambda m: abs(m - n))
        claimed = instances.levels[int(instances.items[near].class_mass[1:].argmax())]
        by = (_place(pins[near]) or 0) - (_place(claimed) or 0) if claimed.is_vertebra else 0
        shift = math.ceil(by) if n < near else math.floor(by)
        mass = np.zeros_like(item.class_mass)
        for place, voxels in zip(places, item.class_mass[1:], strict=True):
            target = place if place is None or n == near else place + shift
            if target in places:
                mass[1 + places.index(target)] += voxels
        items.append(replace(item, class_mass=mass))
    return replace(instances, items=tuple(items))


def _place(level: Level) -> float | None:
    """C1 is 1, L6 is 25, T13 is 19.5; sacrum and coccyx have no place."""
    if not level.is_vertebra:
        return None
    return 19.5 if level.name == "T13" else float(level.verse_id)


def _nearest(instances: Instances, pin: Pin) -> int:
    distances = [_distance_mm(item, instances, pin) for item in instances.items]
    if not distances or min(distances) > PIN_REACH_MM:
        near = f"the nearest is {min(distances):.0f} mm away" if distances else "the label map contains none"
        raise ConfigError(f"{_text(pin)}: no vertebra within {PIN_REACH_MM:g} mm of this point (RAS, mm); {near}")
    return int(np.argmin(distances))


def _distance_mm(item: Instance, instances: Instances, pin: Pin) -> float:
    """Distance from the point of `pin` to the nearest voxel of `item`, or to its box if that is far away."""
    grid = instances.grid.cropped(item.box)
    corners = np.clip(grid.to_voxel(np.array(pin.point_mm)), 0, np.array(grid.shape) - 1)
    to_box_mm = float(np.linalg.norm(grid.to_world(corners) - pin.point_mm))
    if to_box_mm > 5 * PIN_REACH_MM:
        return to_box_mm
    voxels = np.argwhere(item.occupancy >= 0.5)
    return float(np.linalg.norm(grid.to_world(voxels) - pin.point_mm, axis=1).min())


def _is_sacral(item: Instance, levels: tuple[Level, ...]) -> bool:
    return not levels[int(item.class_mass[1:].argmax())].is_vertebra


def _text(pin: Pin) -> str:
    return f"--set {pin.level.name}={','.join(f'{mm:g}' for mm in pin.point_mm)}"


def paint(spine: Spine, before: Volume) -> Volume:
    """Paint the named vertebrae as a label map with VerSe ids on the grid and axis order of `before`."""
    array = np.zeros(spine.grid.shape, np.uint8)
    for vertebra in spine.vertebrae:
        crop = array[vertebra.instance.box]
        crop[vertebra.instance.occupancy >= 0.5] = vertebra.level.verse_id
    reoriented = Volume(array, spine.grid.affine).reoriented(before.grid.axcodes)
    return Volume(reoriented.array, before.affine)


def changes(instances: Instances, spine: Spine, before: Volume, after: Volume) -> dict[str, Any]:
    """Describe the changes for the manifest: a row per vertebra from head to tail, dropped instances, voxel counts."""
    ras = before.to_ras().array
    rows = []
    for vertebra in spine.vertebrae:
        item = vertebra.instance
        was = _labels_before(item, ras)
        changed = sum(voxels for name, voxels in was.items() if name != vertebra.level.name)
        rows.append(
            {
                "level": vertebra.level.name,
                "verse_id": vertebra.level.verse_id,
                "was": was,
                "voxels_changed": changed,
                "confidence": round(vertebra.confidence, 3),
                "quality": round(vertebra.quality, 3),
                "needs_review": vertebra.needs_review,
                "centroid_ras_mm": [round(value, 2) for value in item.centroid_mm],
                "touches_border": item.touches_border,
            }
        )
    kept = {vertebra.instance for vertebra in spine.vertebrae}
    dropped = [
        {"was": _labels_before(item, ras), "centroid_ras_mm": [round(value, 2) for value in item.centroid_mm]}
        for item in instances.items
        if item not in kept
    ]
    dropped_voxels = np.count_nonzero(before.array) - np.count_nonzero(after.array)
    return {
        "levels": rows,
        "dropped": dropped,
        "voxels_changed": int(np.count_nonzero(before.array != after.array)),
        "voxels_dropped": int(dropped_voxels),
    }


def _labels_before(item: Instance, ras: Array) -> dict[str, int]:
    """Count the levels that the voxels of an instance had before, the most frequent first."""
    counts = np.bincount(ras[item.box][item.occupancy >= 0.5])
    order = [int(n) for n in np.argsort(-counts, kind="stable") if counts[n] and n]
    return {BY_VERSE_ID[n].name: int(counts[n]) for n in order}


def _check_ct(labels: Volume, ct: Path) -> list[str]:
    """Raise GeometryError if the grids differ; return a warning if the labels do not cover bone."""
    scan = read_scan(ct).volume
    if not scan.grid.matches(labels.grid):
        raise GeometryError(f"{ct}: its grid differs from that of the label map; resample one to the other")
    inside = ndimage.binary_erosion(labels.array > 0)
    values = scan.array[inside if inside.any() else labels.array > 0]
    if len(values) and np.median(values) < MIN_MEDIAN_HU:
        return [
            f"the median CT value under the labels is {np.median(values):.0f} HU, too low for bone: "
            "check that CT and label map belong together and that neither is flipped"
        ]
    return []


def _stem(source: Path) -> str:
    stem = stem_of(source)
    return next((stem.removesuffix(ending) for ending in _STEM_ENDINGS if stem.endswith(ending)), stem) or "labels"


def _refuse_input(source: Path, out: Path, files: list[Path]) -> None:
    """Raise InputError if the results would overwrite the input."""
    if any(file.exists() and file.samefile(source) for file in files if source.exists()):
        raise InputError(f"{out}: the output would overwrite the input {source}; choose another --out")


def _options(request: RelabelRequest, ct: Path | None) -> dict[str, Any]:
    return {
        "scheme": request.scheme,
        "out_scheme": request.out_scheme,
        "set": {pin.level.name: list(pin.point_mm) for pin in request.pins},
        "first": request.first.name if request.first else None,
        "last": request.last.name if request.last else None,
        "ct": ct is not None,
    }
