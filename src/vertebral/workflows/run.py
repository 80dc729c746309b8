"""The path of the data, in order: the only module that knows which stage follows which."""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vertebral.core.about import DISCLAIMER, __version__
from vertebral.core.anatomy import BY_NAME, LEVELS, SPINE, level_named
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import OutputExistsError, RenderError
from vertebral.core.records import Scan, Segmentation, Spine, Surface
from vertebral.io.ct.read import read_scan
from vertebral.io.manifest import MANIFEST, file_rows
from vertebral.io.meshes import write_glb, write_stl
from vertebral.io.occupancies import write_occupancies
from vertebral.io.staging import staging_in, writing
from vertebral.io.write import remove_drafts, write_centroids, write_json, write_labels
from vertebral.models.config import ModelConfig
from vertebral.models.load import Models, load_models
from vertebral.models.weights import Model
from vertebral.runtime.processes import ForkedTasks
from vertebral.runtime.stage_timer import Progress, StageTimer
from vertebral.stages.identify import RARE, identify, provisional_levels
from vertebral.stages.inference import infer
from vertebral.stages.instances import find_instances
from vertebral.stages.measure import measure
from vertebral.stages.preprocess import prepare
from vertebral.stages.preview import preview
from vertebral.stages.reconstruct import check_surface, reconstruct
from vertebral.stages.refine import refine
from vertebral.stages.report import PAGE, page_volumes, write_report
from vertebral.stages.restore import restore
from vertebral.workflows.config import RunConfig
from vertebral.workflows.export import Exportable, exported_names, source_for, write_exports_in_run
from vertebral.workflows.memory_estimate import need_of

_MOST_PLAUSIBLE_ML = 200.0
_LABELS, _CENTROIDS, _SPINE, _PREVIEW = "seg-vert_msk.nii.gz", "seg-subreg_ctd.json", "spine.glb", "preview.png"
_OCCUPANCIES = "occupancy.npz"


def run(source: Path, out: Path, config: RunConfig, progress: Progress = lambda name, share: None) -> dict[str, Any]:
    """Take one CT from its file to the results in `out`; return the manifest.

    Otherwise as `run_scan`.
    """
    processors = torch.get_num_threads()

    def read() -> Scan:
        return read_scan(source, config.series, config.max_memory_gb, need_of(config, processors))

    return run_scan(read, out, config, lambda: load_models(config), progress, processors)


def run_scan(
    read: Callable[[], Scan],
    out: Path,
    config: RunConfig,
    load: Callable[[], Models],
    progress: Progress = lambda name, share: None,
    processors: int = 1,
) -> dict[str, Any]:
    """Take the CT that `read` gives, with the networks that `load` gives, to the results in `out`; return the manifest.

    `progress(stage, share)` is called as the work goes on. After the networks, `processors` share the work
    (`processes.ForkedTasks`). Results are made in a hidden folder inside `out` and moved to their place at the end, the
    manifest last. Raises InputError (and its kin) for what cannot be run and VertebralError for a full disk; `out` is
    then as it was.
    """
    _refuse_results(out, config.overwrite)
    clock = StageTimer(progress)
    with staging_in(out) as staging, ForkedTasks(processors) as beside:
        with clock.stage("load model"):
            models = load()
            model, refiner, device = models.finder, models.refiner, models.device
            preprocess, warnings = _preprocessing(model.config, config.spacing_mm)
            warnings.extend(models.notes)
        with clock.stage("read"):
            scan = read()
            series = source_for(config, scan.path, config.series)
            _refuse_other_files(out, scan.stem, config)
        with clock.stage("prepare"):
            prepared = prepare(scan.volume, preprocess)
        with clock.stage("infer") as share:
            levels = tuple(level_named(name) for name in model.config.network.levels)
            windows = model.config.inference
            if config.overlap is not None:
                windows = windows.model_copy(update={"overlap": config.overlap})
            evidence = infer(
                prepared,
                model.network,
                windows,
                levels,
                device,
                share,
                offsets=model.config.network.offsets,
                follow=not config.exact,
            )
        with clock.stage("instances"):
            instances = find_instances(evidence)
        if refiner is not None:
            with clock.stage("refine") as share:
                instances = refine(
                    instances,
                    evidence,
                    scan.volume,
                    refiner.network,
                    refiner.config,
                    device,
                    provisional_levels,
                    share,
                )
        with clock.stage("identify"):
            spine = identify(instances)
        spine = _chosen(spine, config.levels)
        with clock.stage("restore"):
            segmentation = restore(spine, prepared.source)
        labels = segmentation.labels
        labels_written = beside.start(lambda: write_labels(labels, staging / f"{scan.stem}_{_LABELS}"))
        measured = beside.start(lambda: measure(labels, scan.volume))
        volumes = beside.start(lambda: page_volumes(scan.volume, labels))
        with clock.stage("reconstruct"):
            # Nobody needs the surface of what is no vertebra for sure; it would take minutes to make.
            too_large = _too_large(segmentation)
            plausible = tuple(v for v in spine.vertebrae if v.level.name not in too_large)
            surfaces = reconstruct(replace(spine, vertebrae=plausible), processors=processors)
        picture, title = staging / f"{scan.stem}_{_PREVIEW}", f"{scan.stem} ({model.config.name})"
        drawn = beside.start(lambda: preview(scan.volume, labels, surfaces, picture, title))
        with clock.stage("write"), writing(out):
            _write_results(staging, scan, spine, surfaces)
            labels_written()
        if config.formats:
            with clock.stage("export"), writing(out):
                result = Exportable(scan.stem, labels, surfaces, scan.volume, model.config.name, model.sha256)
                warnings += write_exports_in_run(result, config, series, staging)
        with clock.stage("preview"), writing(out):
            try:
                drawn()
            except RenderError as error:
                warnings.append(str(error))
        doubts = [
            f"{name}: {ml:.0f} ml is too large for a vertebra; it has no surface, and the result is not to be trusted"
            for name, ml in too_large.items()
        ]
        manifest = {
            **_provenance(scan, models, preprocess, config),
            "levels": _level_rows(spine, segmentation, surfaces),
            "level_shift": {f"{by:+d}": round(share, 3) for by, share in spine.shift_probability.items()},
            "runner_up": spine.runner_up,
            "warnings": [*scan.notes, *warnings, *spine.warnings, *doubts],
            "seconds": clock.seconds,
        }
        with clock.stage("page"), writing(out):
            measurements = measured()
            try:
                files = sorted(path.name for path in staging.iterdir())
                write_report(staging, manifest, files, surfaces, measurements, volumes())
            except OSError:
                raise
            except Exception as error:  # the page is an extra: whatever fails there must not cost the result
                manifest["warnings"].append(f"no {PAGE}: {type(error).__name__}: {error}")
        with writing(out):
            remove_drafts(staging)
            manifest |= {
                "memory_gb": clock.memory_gb,
                "estimated_memory_gb": round(need_of(config, processors)(scan.volume.grid), 2),
                "peak_memory_gb": clock.peak_memory_gb,
                "outputs": file_rows(staging),
            }
            write_json(manifest, staging / MANIFEST)
            _publish(staging, out)
    return manifest


def _too_large(segmentation: Segmentation) -> dict[str, float]:
    """The volumes in ml that no vertebra can have; the largest lumbar ones hold about 100 ml."""
    volumes = segmentation.volume_ml
    return {name: ml for name, ml in volumes.items() if BY_NAME[name].is_vertebra and ml > _MOST_PLAUSIBLE_ML}


def _refuse_results(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out}: is a file; give a folder as --out")
    if (out / MANIFEST).exists() and not overwrite:
        raise OutputExistsError(f"{out}: holds results already; add --overwrite, or choose another --out")


def _refuse_other_files(out: Path, stem: str, config: RunConfig) -> None:
    """Refuse to replace what no manifest speaks of, such as a reference label map that lies beside its CT."""
    endings = (
        _LABELS,
        _CENTROIDS,
        _OCCUPANCIES,
        _SPINE,
        _PREVIEW,
        *(f"{level.name}.stl" for level in (*LEVELS, SPINE)),
    )
    names = (PAGE, *(f"{stem}_{ending}" for ending in endings), *exported_names(stem, config))
    taken = [name for name in names if (out / name).exists()]
    if taken and not config.overwrite:
        raise OutputExistsError(f"{out / taken[0]}: is there already; add --overwrite, or choose another --out")


def _preprocessing(model: ModelConfig, spacing_mm: float | None) -> tuple[PreprocessConfig, list[str]]:
    trained = model.preprocess
    if spacing_mm is None or spacing_mm == trained.spacing_mm:
        return trained, []
    warning = f"run at {spacing_mm:g} mm, but model {model.name} was trained at {trained.spacing_mm:g} mm: expect worse"
    return trained.model_copy(update={"spacing_mm": spacing_mm}), [warning]


def _chosen(spine: Spine, levels: tuple[str, ...] | None) -> Spine:
    """Keep the levels that were asked for; name those that were not found."""
    if levels is None:
        return spine
    kept = tuple(vertebra for vertebra in spine.vertebrae if vertebra.level.name in levels)
    missing = set(levels) - {vertebra.level.name for vertebra in kept} - _only_passed(levels)
    note = (f"asked for, but not found: {', '.join(name for name in levels if name in missing)}",) if missing else ()
    return replace(spine, vertebrae=kept, warnings=(*spine.warnings, *note))


def _only_passed(levels: tuple[str, ...]) -> set[str]:
    """T13 and L6 where a range such as T12-L1 passes over them: most people lack them, so nobody misses them."""
    ranks = {BY_NAME[name].rank for name in levels}
    return {name for name in RARE if {BY_NAME[name].rank - 1, BY_NAME[name].rank + 1} <= ranks}


def _write_results(folder: Path, scan: Scan, spine: Spine, surfaces: tuple[Surface, ...]) -> None:
    centroids = [(v.level.verse_id, v.instance.centroid_mm) for v in spine.vertebrae]
    write_centroids(centroids, scan.volume.grid, folder / f"{scan.stem}_{_CENTROIDS}")
    for surface in surfaces:
        write_stl(surface, folder / f"{scan.stem}_{surface.level.name}.stl")
    if surfaces:
        write_glb(surfaces, folder / f"{scan.stem}_{_SPINE}")
    if spine.vertebrae:
        write_occupancies(spine, folder / f"{scan.stem}_{_OCCUPANCIES}")


def _provenance(scan: Scan, models: Models, preprocess: PreprocessConfig, config: RunConfig) -> dict[str, Any]:
    packages = ["torch", "monai", "numpy", "scipy", "vtk", "nibabel"]
    if models.backend == "openvino":
        packages.append("openvino")
    return {
        "disclaimer": DISCLAIMER,
        "input": {
            # The stem, not the path: the reader keeps a patient's name out of it.
            "name": scan.stem,
            "sha256": scan.sha256,
            "shape": scan.volume.grid.shape,
            "spacing_mm": scan.volume.spacing_mm,
            "orientation": scan.volume.grid.axcodes,
            **scan.metadata,
        },
        "versions": {"vertebral": __version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "model": _identity(models.finder),
        "refiner": _identity(models.refiner) if models.refiner is not None else None,
        "preprocess": preprocess.model_dump(mode="json"),
        "options": config.model_dump(mode="json"),
        "device": torch.cuda.get_device_name(models.device) if models.device.type == "cuda" else "cpu",
        "backend": models.backend,
        "threads": torch.get_num_threads(),
    }


def _identity(model: Model) -> dict[str, str]:
    return {"name": model.config.name, "sha256": model.sha256, "licence": model.licence}


def _level_rows(spine: Spine, segmentation: Segmentation, surfaces: tuple[Surface, ...]) -> list[dict[str, Any]]:
    meshes = {surface.level.name: asdict(check_surface(surface)) for surface in surfaces}
    return [
        {
            "level": vertebra.level.name,
            "verse_id": vertebra.level.verse_id,
            "confidence": round(vertebra.confidence, 3),
            "quality": round(vertebra.quality, 3),
            "needs_review": vertebra.needs_review,
            "volume_ml": round(segmentation.volume_ml.get(vertebra.level.name, 0.0), 3),
            "centroid_ras_mm": [round(value, 2) for value in vertebra.instance.centroid_mm],
            "touches_border": vertebra.instance.touches_border,
            "mesh": meshes.get(vertebra.level.name),
        }
        for vertebra in spine.vertebrae
    ]


def _publish(staging: Path, out: Path) -> None:
    """Move the results into place, the manifest last; files of an earlier run that are not renewed are removed."""
    earlier = out / MANIFEST
    if earlier.exists():
        _remove_earlier(earlier)
    for path in sorted(staging.iterdir(), key=lambda path: path.name == MANIFEST):
        path.replace(out / path.name)


def _remove_earlier(manifest: Path) -> None:
    try:
        rows = json.loads(manifest.read_text(encoding="utf-8"))["outputs"]
        files = [manifest.parent / Path(row["file"]).name for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        files = []
    manifest.unlink()
    for path in files:
        if path.is_file():
            path.unlink()
