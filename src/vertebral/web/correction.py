"""Corrects levels of a result by hand: `relabel` names the vertebrae, their shapes stay."""

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vertebral.core.anatomy import BY_NAME, Level
from vertebral.core.errors import VertebralError
from vertebral.core.records import Surface
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_labels
from vertebral.io.meshes import write_glb, write_stl
from vertebral.io.result_folder import REPORT, StoredResult, open_result, staging_in, writing
from vertebral.io.tables import write_measurements
from vertebral.stages.measure import measure
from vertebral.stages.reconstruct import check_surface, fields_of_labels, mesh_fields
from vertebral.stages.reconstruct.config import MeshConfig
from vertebral.stages.report import page_volumes, write_report
from vertebral.stages.report.result import read_ct_of
from vertebral.workflows.relabel import Pin, RelabelRequest, relabel

# A vertebra that shares less than this share of its voxels with one before has a new shape and gets a new mesh.
_SAME_SHARE = 0.98


def correct_levels(result: StoredResult, ct: Path, pins: Sequence[Pin], out: Path) -> StoredResult:
    """Write `result`, with the levels of `pins` set by hand, to the new folder `out`; return it.

    Neighbours are renamed as `vertebral relabel` does. Vertebrae that keep their shape keep their mesh; others are
    meshed from the label map. All measurements are repeated. Raises ConfigError if pins contradict each other.
    """
    scan = read_ct_of(result, ct)
    with staging_in(out) as staging:
        relabelled = staging.folder / "relabelled"
        relabelling = relabel(result.labels_path, relabelled, RelabelRequest(pins=tuple(pins)))
        for name in (result.names.labels, result.names.centroids):
            (relabelled / name).replace(staging.folder / name)
        shutil.rmtree(relabelled)
        with writing(out):
            staging.publish_result(_complete(result, relabelling, pins, staging.folder, scan))
    return open_result(out)


def replace_folder(made: Path, place: Path) -> None:
    """Move the folder `made` to `place`, replacing what is there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(place)
    made.rename(place)


def _complete(
    result: StoredResult, relabelling: Mapping[str, Any], pins: Sequence[Pin], folder: Path, ct: Volume
) -> dict[str, Any]:
    """Add meshes, measurements and page to the label map and centroids in `folder`; return the manifest."""
    files = result.names
    labels = read_labels(folder / files.labels)
    names = new_names(relabelling["levels"])
    surfaces = _surfaces(result, names, labels)
    for surface in surfaces:
        write_stl(surface, folder / files.surface(surface.name))
    if surfaces:
        write_glb(surfaces, folder / files.spine)
    measurements = measure(labels, ct)
    write_measurements(measurements, folder / files.measurements("csv"), folder / files.measurements("json"))
    corrections = [f"{pin.level.name} at {', '.join(str(round(mm)) for mm in pin.point_mm)} mm (RAS)" for pin in pins]
    manifest = {
        **result.manifest,
        "levels": _rows(result, relabelling, names, surfaces),
        "level_shift": relabelling["level_shift"],
        "runner_up": relabelling["runner_up"],
        "corrections": corrections,
        "warnings": [*result.manifest["warnings"], *relabelling["warnings"]],
    }
    try:
        listed = sorted(path.name for path in folder.iterdir())
        write_report(folder, manifest, listed, surfaces, measurements, page_volumes(ct, labels))
    except Exception as error:  # the page is optional: its failure must not cost the result
        manifest["warnings"].append(f"{REPORT} was not written ({type(error).__name__}: {error})")
    return manifest


def new_names(rows: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    """Map old names to new ones; None if vertebrae were merged, split or cut, so that shapes changed too."""
    names: dict[str, str] = {}
    for row in rows:
        was = dict(row["was"])
        old = max(was, key=lambda name: was[name])
        if old in names or was[old] < _SAME_SHARE * sum(was.values()):
            return None
        names[old] = str(row["level"])
    return names


def _surfaces(result: StoredResult, names: Mapping[str, str] | None, labels: Volume) -> tuple[Surface, ...]:
    old = result.surfaces()
    if names is not None and all(surface.level.name in names for surface in old):
        named = [replace(surface, level=BY_NAME[names[surface.level.name]]) for surface in old]
        return tuple(sorted(named, key=lambda surface: surface.level.rank))
    if not labels.array.any():
        return ()
    return mesh_fields(fields_of_labels(labels), MeshConfig()).surfaces


def _rows(
    result: StoredResult, relabelled: Mapping[str, Any], names: Mapping[str, str] | None, surfaces: Sequence[Surface]
) -> list[dict[str, Any]]:
    before = {} if names is None else {names.get(row["level"]): row for row in result.manifest["levels"]}
    meshes = {surface.level.name: surface for surface in surfaces}
    rows = []
    for row in relabelled["levels"]:
        level = str(row["level"])
        mesh = asdict(check_surface(meshes[level])) if level in meshes else None
        kept = {"quality": row["quality"], "volume_ml": mesh["volume_ml"] if mesh else None, **before.get(level, {})}
        own = ("level", "verse_id", "confidence", "needs_review", "centroid_ras_mm", "touches_border")
        rows.append({**kept, **{key: row[key] for key in own}, "mesh": mesh})
    return rows


def parse_pins(text: bytes) -> tuple[tuple[Pin, ...], tuple[dict[str, Any], ...]]:
    """Read `{"pins": [{"level": "L3", "point_mm": [r, a, s]}]}` as pins, and as plain records of them.

    Raises VertebralError for any other content.
    """
    try:
        given = json.loads(text)["pins"]
        pins = tuple(Pin(_vertebra(item["level"]), _point(item["point_mm"])) for item in given)
    except (ValueError, KeyError, TypeError) as error:
        raise VertebralError(f"not a list of levels with points ({error!r})") from error
    return pins, tuple({"level": pin.level.name, "point_mm": list(pin.point_mm)} for pin in pins)


def _vertebra(name: Any) -> Level:
    level = BY_NAME[name]
    if not level.is_vertebra:
        raise ValueError(f"{name} is not a vertebra")
    return level


def _point(values: Any) -> tuple[float, float, float]:
    r, a, s = (float(value) for value in values)
    return r, a, s
