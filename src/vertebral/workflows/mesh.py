"""Mesh a label map, or a result of `vertebral run`, and write the surfaces with a report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vertebral.core.about import DISCLAIMER, __version__
from vertebral.core.anatomy import Level, level_named
from vertebral.core.errors import InputError
from vertebral.core.records import Surface
from vertebral.io.ct.image_header import stem_of
from vertebral.io.ct.read import read_labels
from vertebral.io.meshes import Frame, write_glb, write_obj, write_ply, write_stl
from vertebral.io.occupancies import read_occupancies
from vertebral.io.result_folder import file_rows, open_result, refuse_files, staging_in, writing
from vertebral.io.three_mf import write_3mf
from vertebral.io.write import write_json
from vertebral.runtime.forked_tasks import ForkedTasks
from vertebral.runtime.hashing import file_sha256
from vertebral.runtime.stage_timer import Progress, no_progress
from vertebral.runtime.worker_pool import threads_for
from vertebral.stages.reconstruct import Reconstruction, field_of, fields_of_labels, mesh_fields
from vertebral.stages.reconstruct.cut import PLANES, cut
from vertebral.stages.reconstruct.field import Field
from vertebral.stages.reconstruct.printing import print_check
from vertebral.workflows.config import MeshRunConfig

_REPORT = "mesh-report.json"
_EACH = {"stl": write_stl, "ply": write_ply, "obj": write_obj}
_ALL = {"glb": write_glb, "3mf": write_3mf}
_PACKAGES = ("numpy", "scipy", "vtk", "trimesh", "manifold3d", "fast-simplification")
_MAX_CHANGE_PERCENT = 1.0
_MAX_DROPPED_SHARE = 0.02


@dataclass(frozen=True)
class _MeshSource:
    """What to mesh: a label map, or the occupancies that `vertebral run` wrote with it."""

    labels: Path
    occupancies: Path | None
    stem: str
    notes: tuple[str, ...] = ()


def mesh(source: Path, out: Path, config: MeshRunConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Mesh the label map or result `source`, write the surfaces and a report to `out`; return the report.

    `progress(stage, share)` follows the work. Files appear at the end, all or none. Raises InputError or a subclass if
    the source cannot be meshed, VertebralError if no printable surface can be made or the disk is full.
    """
    found = _find(Path(source))
    report_name = f"{found.stem}_{_REPORT}"
    refuse_files([out / report_name], config.overwrite)
    with staging_in(out, config.overwrite) as staging:
        with ForkedTasks(threads_for()) as tasks:
            made = mesh_fields(_fields(found, config, progress), config, progress, tasks)
        surfaces = _cut(made.surfaces, config.cut)
        with writing(out):
            _write(surfaces, staging.folder, found.stem, config, progress)
            report = _report(made, surfaces, found, config, staging.folder, progress)
            write_json(report, staging.folder / report_name)
            staging.publish(last=report_name)
    return report


def _find(source: Path) -> _MeshSource:
    if not source.is_dir():
        return _MeshSource(source, None, stem_of(source).removesuffix("_seg-vert_msk"))
    found = open_result(source)
    labels, stem = found.labels_path, found.names.stem
    occupancies = source / found.names.occupancies
    if occupancies.name not in found.hashes or not occupancies.is_file():
        return _MeshSource(
            labels,
            None,
            stem,
            (f"the result has no {occupancies.name}: its label map was meshed, so surfaces may be coarser",),
        )
    if not found.is_unchanged(labels.name):
        return _MeshSource(
            labels,
            None,
            stem,
            (f"the label map was edited after the run: it was meshed instead of {occupancies.name}",),
        )
    return _MeshSource(labels, occupancies, stem)


def _fields(found: _MeshSource, config: MeshRunConfig, progress: Progress) -> list[Field]:
    levels = None if config.levels is None else [level_named(name) for name in config.levels]
    progress("read", 0.0)
    if found.occupancies is None:
        labels = read_labels(found.labels)
        progress("read", 1.0)
        try:
            return fields_of_labels(labels, levels, config.target_edge_mm, progress)
        except InputError as error:
            raise type(error)(f"{found.labels}: {error}") from error
    grid, stored = read_occupancies(found.occupancies)
    progress("read", 1.0)
    chosen = [item for item in stored if levels is None or item.level in levels]
    if not chosen:
        has = ", ".join(item.level.name for item in stored) or "none"
        raise InputError(f"{found.occupancies}: the result has none of the requested levels, only {has}")
    return [field_of(item.values, item.box, grid, item.level, config.target_edge_mm) for item in chosen]


def _cut(surfaces: tuple[Surface, ...], where: str | None) -> tuple[Surface, ...]:
    if where is None:
        return surfaces
    plane, at, position = where.partition("@")
    axis = PLANES[plane][0]
    positions = np.concatenate([surface.vertices_mm[:, axis] for surface in surfaces])
    at_mm = float(position) if at else float(positions.min() + positions.max()) / 2
    if not positions.min() < at_mm < positions.max():
        raise InputError(
            f"--cut {where}: misses the surfaces, which extend from {positions.min():.1f} to {positions.max():.1f} mm"
        )
    return tuple(half for surface in surfaces for half in cut(surface, plane, at_mm))


def _write(surfaces: Sequence[Surface], folder: Path, stem: str, config: MeshRunConfig, progress: Progress) -> None:
    frame: Frame = "LPS" if config.lps else "RAS"
    for n, kind in enumerate(config.formats):
        progress("write", n / len(config.formats))
        if kind in _ALL:
            _ALL[kind](surfaces, folder / f"{stem}_spine.{kind}", frame)
        for surface in surfaces if kind in _EACH else ():
            _EACH[kind](surface, folder / f"{stem}_{surface.name}.{kind}", frame)
    progress("write", 1.0)


def _report(
    made: Reconstruction,
    surfaces: Sequence[Surface],
    found: _MeshSource,
    config: MeshRunConfig,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    fields = {field.level: field for field in made.fields}
    whole = {surface.level: surface for surface in made.surfaces}
    rows = []
    for n, surface in enumerate(surfaces):
        progress("report", n / len(surfaces))
        rows.append({"level": surface.level.name, "name": surface.name, **asdict(print_check(surface))})
        if surface is whole[surface.level]:
            rows[-1] |= _against_source(rows[-1]["volume_ml"], fields[surface.level])
    progress("report", 1.0)
    gaps = [{"pair": [gap.first.name, gap.second.name], "gap_mm": round(gap.mm, 3)} for gap in made.gaps]
    return {
        "disclaimer": DISCLAIMER,
        "source": {
            "name": found.stem,
            "kind": "label map" if found.occupancies is None else "occupancies",
            "sha256": file_sha256(found.occupancies or found.labels),
        },
        "frame": "LPS+" if config.lps else "RAS+",
        "units": "mm",
        "versions": {"vertebral": __version__} | {name: version(name) for name in _PACKAGES},
        "options": config.model_dump(mode="json"),
        "meshes": rows,
        "neighbours": gaps,
        "warnings": [*found.notes, *_warnings(rows, made, config, fields)],
        "outputs": file_rows(folder),
    }


def _against_source(volume_ml: float, field: Field) -> dict[str, float]:
    source_ml = field.volume_mm3 / 1000
    return {
        "source_volume_ml": round(source_ml, 4),
        "volume_change_percent": round(100 * (volume_ml / source_ml - 1), 3),
        "dropped_ml": round(field.dropped_mm3 / 1000, 4),
    }


def _warnings(
    rows: Sequence[dict[str, Any]], made: Reconstruction, config: MeshRunConfig, fields: dict[Level, Field]
) -> list[str]:
    warnings = [
        f"{row['level']}: its surface's volume differs by {row['volume_change_percent']:.1f} % from that of its voxels"
        for row in rows
        if abs(row.get("volume_change_percent", 0)) > _MAX_CHANGE_PERCENT
    ]
    warnings += [
        f"{level.name}: {field.dropped_mm3 / 1000:.2f} ml in separate fragments were left out of the surface"
        for level, field in fields.items()
        if field.dropped_mm3 > _MAX_DROPPED_SHARE * field.volume_mm3
    ]
    warnings += [
        f"{gap.first.name} and {gap.second.name} "
        + ("intersect" if gap.mm <= 0 else f"are only {gap.mm:.2f} mm apart, not {config.clearance_mm:g}")
        for gap in made.gaps
        if gap.mm < config.clearance_mm or gap.mm <= 0
    ]
    return warnings
