"""From a result in memory to the folder that `vertebral run` leaves: files, report and manifest."""

import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vertebral.core.about import DISCLAIMER, __version__
from vertebral.core.records import Scan
from vertebral.io.dicom_export.source import SourceSeries
from vertebral.io.meshes import write_glb, write_stl
from vertebral.io.occupancies import write_occupancies
from vertebral.io.result_folder import REPORT, ResultNames, Staging, refuse_results, staging_in, writing
from vertebral.io.tables import write_measurements
from vertebral.io.write import write_centroids, write_labels
from vertebral.models.weights import Model
from vertebral.runtime.forked_tasks import ForkedTasks
from vertebral.stages.preview import preview
from vertebral.stages.reconstruct import check_surface
from vertebral.stages.report import page_volumes, write_report
from vertebral.workflows.config import ExportConfig
from vertebral.workflows.export import Exportable, dicom_path, exported_names, source_for, write_exports_in_run
from vertebral.workflows.memory_estimate import need_of
from vertebral.workflows.result import Result

_PACKAGES = ("torch", "monai", "numpy", "scipy", "vtk", "nibabel")


def save_result(result: Result, out: Path, exported: ExportConfig, overwrite: bool) -> dict[str, Any]:
    """Write `result` to the folder `out`; return the manifest. Errors are those of `Result.save`."""
    refuse_results(out, overwrite)
    with staging_in(out, overwrite) as staging:
        series = check_output(staging, result.scan, exported, result.options.series)
        return write_result(result, staging, exported, series, ForkedTasks())


def check_output(staging: Staging, scan: Scan, exported: ExportConfig, series: str | None) -> SourceSeries | None:
    """Refuse what cannot be written; return the DICOM series that DICOM formats refer to, None without such formats."""
    source = source_for(exported, dicom_path(scan), series)
    staging.refuse([*ResultNames(scan.stem).all, *exported_names(scan.stem, exported)])
    return source


def write_result(
    result: Result, staging: Staging, exported: ExportConfig, series: SourceSeries | None, tasks: ForkedTasks
) -> dict[str, Any]:
    """Write all files of `result` to `staging` and publish them; return the manifest.

    `series` is the DICOM series that DICOM formats refer to. A preview or a report that fails for any reason
    costs a warning, and so does an export that cannot be made. Raises VertebralError for a full disk.
    """
    folder, names, timer = staging.folder, ResultNames(result.scan.stem), result.timer
    title = f"{result.scan.stem} ({result.models.coarse.config.name})"
    drawing = tasks.start(
        lambda: preview(result.scan.volume, result.labels, result.surfaces, folder / names.preview, title)
    )
    writing_labels = tasks.start(lambda: write_labels(result.labels, folder / names.labels))
    cutting = tasks.start(lambda: page_volumes(result.scan.volume, result.labels))
    warnings = list(result.warnings)
    with writing(staging.out):
        with timer.stage("write"):
            _write_shapes(result, folder, names)
            csv, json = (folder / names.measurements(suffix) for suffix in ("csv", "json"))
            write_measurements(result.measurements, csv, json)
            writing_labels()
        if exported.formats:
            with timer.stage("export"):
                warnings += write_exports_in_run(_exportable(result), exported, series, folder)
        with timer.stage("preview"):
            warnings += _attempt(drawing, folder / names.preview)
        manifest = _manifest(result)
        manifest["options"] |= {"formats": list(exported.formats), "scheme": exported.scheme}
        warnings += tasks.warnings
        shown = len(tasks.warnings)
        manifest["warnings"] = warnings
        with timer.stage("report"):
            files = sorted(path.name for path in folder.iterdir())
            warnings += _attempt(
                lambda: write_report(folder, manifest, files, result.surfaces, result.measurements, cutting()),
                folder / REPORT,
            )
        warnings += tasks.warnings[shown:]
        manifest |= {
            "memory_gb": timer.memory_gb,
            "estimated_memory_gb": round(need_of(result.options, tasks.count)(result.scan.volume.grid), 2),
            "peak_memory_gb": timer.peak_memory_gb,
        }
        return staging.publish_result(manifest)


def _attempt(make: Callable[[], Any], path: Path) -> list[str]:
    """Make the file `path`, which is an extra: return a warning if that fails for any reason, and no half-made file."""
    try:
        make()
    except Exception as error:
        path.unlink(missing_ok=True)
        return [f"{path.name} was not written ({type(error).__name__}: {error}); the other results are complete"]
    return []


def _write_shapes(result: Result, folder: Path, names: ResultNames) -> None:
    centroids = [(v.level.verse_id, v.instance.centroid_mm) for v in result.spine.vertebrae]
    write_centroids(centroids, result.scan.volume.grid, folder / names.centroids)
    for surface in result.surfaces:
        write_stl(surface, folder / names.surface(surface.level.name))
    if result.surfaces:
        write_glb(result.surfaces, folder / names.spine)
    if result.spine.vertebrae:
        write_occupancies(result.spine, folder / names.occupancies)


def _exportable(result: Result) -> Exportable:
    model = result.models.coarse
    return Exportable(
        result.scan.stem, result.labels, result.surfaces, result.measurements, model.config.name, model.sha256
    )


def _manifest(result: Result) -> dict[str, Any]:
    """Return the manifest without what is known only at the end: outputs, memory and later warnings."""
    models, scan, grid = result.models, result.scan, result.scan.volume.grid
    packages = [*_PACKAGES, "openvino"] if models.backend == "openvino" else _PACKAGES
    meshes = {surface.level.name: asdict(check_surface(surface)) for surface in result.surfaces}
    return {
        "disclaimer": DISCLAIMER,
        "input": {
            # The stem, not the path: the reader keeps a patient's name out of it.
            "name": scan.stem,
            "sha256": scan.sha256,
            "shape": grid.shape,
            "spacing_mm": grid.spacing_mm,
            "orientation": grid.axcodes,
            **scan.metadata,
        },
        "versions": {"vertebral": __version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "model": _identity(models.coarse),
        "refiner": _identity(models.refiner) if models.refiner is not None else None,
        "preprocess": result.preprocess.model_dump(mode="json"),
        "rules": result.rules.describe(),
        "options": result.options.model_dump(mode="json"),
        "device": torch.cuda.get_device_name(models.device) if models.device.type == "cuda" else "cpu",
        "backend": models.backend,
        "threads": torch.get_num_threads(),
        "levels": [{**asdict(row), "mesh": meshes.get(row.level)} for row in result.vertebrae],
        "level_shift": {f"{by:+d}": round(share, 3) for by, share in result.spine.shift_probability.items()},
        "runner_up": result.spine.runner_up,
        "seconds": result.timer.seconds,
    }


def _identity(model: Model) -> dict[str, str]:
    return {"name": model.config.name, "sha256": model.sha256, "licence": model.licence}
