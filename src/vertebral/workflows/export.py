"""Export a result to files for other tools and for the PACS."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vertebral.core.anatomy import LEVELS, SPINE, level_named
from vertebral.core.config import changed
from vertebral.core.errors import ConfigError, ReadError, VertebralError
from vertebral.core.label_schemes import check_scheme
from vertebral.core.measurements import Measurements
from vertebral.core.records import Scan, Surface
from vertebral.core.volume import Volume
from vertebral.io.ct.image_header import stem_of
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.dicom_export.source import SourceSeries, aligned, read_source
from vertebral.io.label_maps import WRITERS, in_scheme, names_of, require_consecutive
from vertebral.io.meshes import read_stl
from vertebral.io.result_folder import open_result, staging_in, writing
from vertebral.runtime.stage_timer import Progress, no_progress
from vertebral.stages.measure import measure
from vertebral.stages.reconstruct import fields_of_labels, mesh_fields
from vertebral.stages.reconstruct.config import MeshConfig
from vertebral.workflows.config import DICOM_FORMATS, ExportConfig, ExportRunConfig


@dataclass(frozen=True)
class Exportable:
    """What to export: labels (VerSe ids), surfaces in RAS+ mm (`stl-dicom`), measurements (`sr`) and the model."""

    stem: str
    labels: Volume
    surfaces: tuple[Surface, ...]
    measurements: Measurements | None
    model: str = "unknown"
    weights_sha256: str = ""
    notes: tuple[str, ...] = ()


def dicom_path(scan: Scan) -> Path | None:
    """Return where the DICOM series of a scan may be, or None for a scan that was given in memory."""
    return scan.path if scan.path.exists() else None


def source_for(config: ExportConfig, source: Path | None, series: str | None = None) -> SourceSeries | None:
    """Check that all formats of `config` can be written; read the headers of the series that DICOM objects refer to.

    Returns None if no format is DICOM. Raises ConfigError for an unknown or unsuitable scheme or a missing `source`,
    InputError or a subclass if `source` is not DICOM or lacks what a DICOM object must refer to.
    """
    check_scheme(config.scheme)
    if "nnunet" in config.formats:
        require_consecutive(config.scheme)
    wanted = [kind for kind in config.formats if kind in DICOM_FORMATS]
    if not wanted:
        return None
    if source is None:
        raise ConfigError(f"--format {','.join(wanted)}: needs the DICOM series of the CT; give it as --source")
    return read_source(source, series)


def exported_names(stem: str, config: ExportConfig) -> list[str]:
    """Return the names of all files that `write_exports` may write."""
    names: list[str] = []
    for kind in config.formats:
        if kind == "stl-dicom":
            names += [f"{stem}_{level.name}_stl.dcm" for level in (*LEVELS, SPINE)]
        elif kind in DICOM_FORMATS:
            names.append(f"{stem}_{kind}.dcm")
        else:
            names += names_of(kind, stem, config.scheme)
    return names


def write_exports(
    result: Exportable,
    config: ExportConfig,
    source: SourceSeries | None,
    folder: Path,
    progress: Callable[[float], None] = lambda share: None,
) -> list[str]:
    """Write all formats of `config` into `folder`; return warnings about what was not written.

    DICOM objects need `source`, from `source_for`. An empty label map gives no DICOM object, only a warning. Raises
    GeometryError if the labels are not on the grid of `source`, ConfigError if the scheme has no id for a level,
    InputError if `folder` cannot be written to.
    """
    others = [kind for kind in config.formats if kind not in DICOM_FORMATS]
    if others:
        made = in_scheme(result.labels, config.scheme)
        for n, kind in enumerate(others):
            WRITERS[kind](made, result.stem, folder)
            progress((n + 1) / len(config.formats))
    dicom = [kind for kind in config.formats if kind in DICOM_FORMATS]
    if source is None or not dicom:
        return []
    if not result.labels.array.any():
        return [f"the label map contains no vertebra: {', '.join(dicom)} not written"]
    aligned(result.labels, source)
    try:
        _write_dicom(result, dicom, source, folder)
    except (ValueError, TypeError, AttributeError) as error:  # its message would contain values from the header
        raise VertebralError(
            f"{source.path}: a value in its header cannot be copied to DICOM results ({type(error).__name__}): "
            "export the series again, or choose formats other than DICOM"
        ) from error
    progress(1.0)
    return []


def write_exports_in_run(
    result: Exportable, config: ExportConfig, source: SourceSeries | None, folder: Path
) -> list[str]:
    """As `write_exports`, but errors become warnings too, so that a failed export never costs a finished run."""
    notes: list[str] = []
    dicom = tuple(kind for kind in config.formats if kind in DICOM_FORMATS)
    for kinds in (*((kind,) for kind in config.formats if kind not in DICOM_FORMATS), *([dicom] if dicom else [])):
        try:
            notes += write_exports(result, changed(config, formats=kinds), source, folder)
        except VertebralError as error:
            reason = str(error).replace(f"{folder}{os.sep}", "")
            if source is not None:  # a manifest must not contain paths, which may contain patient names
                reason = reason.replace(str(source.path), "the DICOM series")
            notes.append(f"could not write {', '.join(kinds)}: {reason}")
    return notes


def _write_dicom(result: Exportable, kinds: Sequence[str], source: SourceSeries, folder: Path) -> None:
    # highdicom takes half a second to import; a run without DICOM results saves it.
    from vertebral.io.dicom_export.identity import Maker, save
    from vertebral.io.dicom_export.rtstruct import make_rtstruct
    from vertebral.io.dicom_export.seg import make_seg
    from vertebral.io.dicom_export.stl import make_stls
    from vertebral.io.dicom_export.structured_report import make_report

    maker = Maker(result.model, result.weights_sha256)
    seg = None
    if "seg" in kinds:
        seg = make_seg(result.labels, source, maker)
        save(seg, folder / f"{result.stem}_seg.dcm")
    if "rtstruct" in kinds:
        save(make_rtstruct(result.labels, source, maker), folder / f"{result.stem}_rtstruct.dcm")
    if "stl-dicom" in kinds:
        for surface, made in zip(result.surfaces, make_stls(result.surfaces, source, maker), strict=True):
            save(made, folder / f"{result.stem}_{surface.name}_stl.dcm")
    if "sr" in kinds and result.measurements is not None:
        save(make_report(result.measurements, source, maker, seg), folder / f"{result.stem}_sr.dcm")


def export(
    result: Path,
    source: Path | None,
    out: Path,
    config: ExportRunConfig,
    progress: Progress = no_progress,
) -> tuple[list[Path], tuple[str, ...]]:
    """Write a result of `vertebral run`, or a label map with VerSe ids, in other formats to `out`.

    Returns the files and the warnings. `source` is the DICOM series of the CT, for the formats that need it. Files
    appear at the end, all or none. Raises InputError or a subclass if the result cannot be exported.
    """
    progress("read", 0.0)
    series = source_for(config, source, config.series)
    found = _exportable(Path(result), config, source, progress)
    progress("read", 1.0)
    with staging_in(out, config.overwrite) as staging, writing(out):
        progress("export", 0.0)
        notes = write_exports(found, config, series, staging.folder, lambda share: progress("export", share))
        files = staging.publish()
        progress("export", 1.0)
    return files, (*found.notes, *notes)


def _exportable(result: Path, config: ExportRunConfig, source: Path | None, progress: Progress) -> Exportable:
    path, surfaces, model, sha256 = result, None, "unknown", ""
    notes: tuple[str, ...] = ()
    if result.is_dir():
        path, meshes, model, sha256, edited = _read_result(result)
        surfaces = None if edited else meshes
        notes = ("the label map was edited after the run: its voxels were exported and meshed again",) if edited else ()
    labels = read_labels(path)
    stem = stem_of(path).removesuffix("_seg-vert_msk")
    made: tuple[Surface, ...] = ()
    if "stl-dicom" in config.formats and labels.array.any():
        made = _read_surfaces(surfaces) if surfaces is not None else _meshed(labels, progress)
    measured = None
    if source is not None and "sr" in config.formats:
        ct = read_scan(source, config.series).volume
        measured = measure(labels, ct, lambda share: progress("measure", share))
    return Exportable(stem, labels, made, measured, model, sha256, notes)


def _read_result(folder: Path) -> tuple[Path, dict[str, Path], str, str, bool]:
    """Return label map, surfaces by level, model name, hash of its weights, and whether the label map was edited."""
    found = open_result(folder)
    model = found.manifest.get("model") or {}
    name, sha256 = str(model.get("name", "unknown")), str(model.get("sha256", ""))
    levels = [str(row["level"]) for row in found.manifest.get("levels") or () if row.get("mesh") is not None]
    meshes = {level: folder / found.names.surface(level) for level in levels}
    edited = found.labels_path.is_file() and not found.is_unchanged(found.names.labels)
    return found.labels_path, meshes, name, sha256, edited


def _read_surfaces(paths: dict[str, Path]) -> tuple[Surface, ...]:
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        raise ReadError(
            f"{missing[0]}: missing from the result; run `vertebral run` again, or export the label map itself"
        )
    return tuple(read_stl(path, level_named(level)) for level, path in paths.items())


def _meshed(labels: Volume, progress: Progress) -> tuple[Surface, ...]:
    config = MeshConfig()
    return mesh_fields(fields_of_labels(labels, None, None, progress), config, progress).surfaces
