"""The contents of a page: facts for JSON, and the volumes and meshes as bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fast_simplification
import numpy as np

from vertebral.core.anatomy import BY_NAME, LEVELS
from vertebral.core.measurements import MeasurementRow, Measurements, nested
from vertebral.core.records import Surface
from vertebral.io.embedded import mz3_bytes
from vertebral.io.result_folder import MANIFEST
from vertebral.io.write import plain

_MAX_FACES = 160_000
_LEVEL_KEYS = ("confidence", "quality", "needs_review", "volume_ml", "centroid_ras_mm", "touches_border")
_SHOWN = (
    "height_anterior_mm",
    "height_middle_mm",
    "height_posterior_mm",
    "wedge_sagittal_deg",
    "genant_grade",
    "core_mean_hu",
)


@dataclass(frozen=True)
class Contents:
    """What a page holds: `facts` as plain JSON (levels, measurements, warnings, provenance), `blobs` as files by name.

    `blobs` holds CT and LABELS (gzipped NIfTI on one grid), where a CT is shown, and `<name>.mz3` for each mesh.
    """

    facts: dict[str, Any]
    blobs: dict[str, bytes]


def contents(
    manifest: Mapping[str, Any],
    files: Sequence[str],
    surfaces: Sequence[Surface],
    measurements: Measurements,
    volumes: Mapping[str, bytes],
) -> Contents:
    """Put together a page. `files` are the names in its folder, `volumes` those of `page_volumes`."""
    rows = {row.name: row for row in measurements.vertebrae}
    facts = {
        "name": manifest["input"]["name"],
        "disclaimer": manifest["disclaimer"],
        "levels": [_level(row, rows.get(row["level"])) for row in manifest["levels"]],
        "known": [level.name for level in LEVELS if level.is_vertebra],
        "palette": {str(level.verse_id): [level.name, list(level.rgb)] for level in BY_NAME.values()},
        "measured": nested(measurements),
        "warnings": list(manifest["warnings"]),
        "runner_up": list(manifest.get("runner_up", ())),
        "level_shift": dict(manifest.get("level_shift", {})),
        "provenance": {key: value for key, value in manifest.items() if key not in ("levels", "outputs", "warnings")},
        "corrections": list(manifest.get("corrections", ())),
        "files": [*files, MANIFEST],
        "meshes": [{"level": surface.level.name, "blob": f"{surface.name}.mz3"} for surface in surfaces],
        "shown": list(_SHOWN),
    }
    meshes = {f"{surface.name}.mz3": mz3_bytes(surface) for surface in _light(surfaces)}
    return Contents(plain(facts, finite=True), {**volumes, **meshes})


def _level(row: Mapping[str, Any], measured: MeasurementRow | None) -> dict[str, Any]:
    level = BY_NAME[row["level"]]
    facts = {key: row.get(key) for key in _LEVEL_KEYS}
    return {"name": level.name, "id": level.verse_id, "rgb": list(level.rgb), **facts, "at_mm": _middle(row, measured)}


def _middle(row: Mapping[str, Any], measured: MeasurementRow | None) -> list[float]:
    """Return the middle of the body if it was measured, else the centroid: there the views show most of a vertebra."""
    if measured is not None:
        found = [measured.figures.get(f"body_centre_{axis}_mm") for axis in "ras"]
        values = [figure.value for figure in found if figure is not None and isinstance(figure.value, (int, float))]
        if len(values) == 3:
            return [round(float(value), 2) for value in values]
    return list(row["centroid_ras_mm"])


def _light(surfaces: Sequence[Surface]) -> list[Surface]:
    """Return the surfaces with fewer faces if there are too many for a page; the mesh files keep all of theirs."""
    total = sum(len(surface.faces) for surface in surfaces)
    if total <= _MAX_FACES:
        return list(surfaces)
    lighter = []
    for surface in surfaces:
        points, faces = fast_simplification.simplify(
            surface.vertices_mm.astype(np.float32),
            surface.faces.astype(np.int32),
            target_reduction=1 - _MAX_FACES / total,
        )
        points, faces = np.asarray(points, np.float64), np.asarray(faces, np.int64)
        lighter.append(Surface(surface.level, points, faces, surface.part))
    return lighter
