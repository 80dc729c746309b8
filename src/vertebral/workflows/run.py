"""The path of one CT, stage by stage: from a scan to a result in memory, and from a file to a folder of results."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vertebral.core.anatomy import BY_NAME, level_named
from vertebral.core.config import PreprocessConfig, changed
from vertebral.core.records import Evidence, Prepared, Scan, Segmentation, Spine
from vertebral.io.ct.in_memory import scan_of
from vertebral.io.ct.read import read_scan
from vertebral.io.result_folder import refuse_results, staging_in
from vertebral.models.config import ModelConfig
from vertebral.models.load import Models, load_models
from vertebral.runtime.forked_tasks import ForkedTasks
from vertebral.runtime.stage_timer import Progress, StageTimer, no_progress
from vertebral.stages.identify import RARE, identify, provisional_levels
from vertebral.stages.inference import infer
from vertebral.stages.inference.rules import InferenceRules
from vertebral.stages.instances import find_instances
from vertebral.stages.measure import measure
from vertebral.stages.preprocess import prepare
from vertebral.stages.reconstruct import reconstruct
from vertebral.stages.refine import refine
from vertebral.stages.restore import restore
from vertebral.stages.rules import StageRules
from vertebral.workflows.config import RunConfig
from vertebral.workflows.memory_estimate import need_of
from vertebral.workflows.result import Result
from vertebral.workflows.write_result import check_output, write_result


def run(
    ct: Any,
    out: Path,
    config: RunConfig | None = None,
    models: Models | None = None,
    progress: Progress = no_progress,
    tasks: ForkedTasks | None = None,
) -> dict[str, Any]:
    """Take one CT (a path, or what `scan_of` takes) to the results in the folder `out`; return the manifest.

    `models` are loaded as `config` says if None. `progress(stage, share)` is called as the work goes on. With `tasks`,
    forked copies of this process share what follows the networks. Results are made in a hidden folder inside `out` and
    moved to their place at the end, the manifest last. Raises InputError (or a subclass) for what cannot be run and
    VertebralError for a full disk; `out` is then as it was.
    """
    config, tasks = config or RunConfig(), tasks or ForkedTasks()
    refuse_results(out, config.overwrite)
    timer = StageTimer(progress)
    with staging_in(out, config.overwrite) as staging:
        with timer.stage("load model"):
            models = models or load_models(config)
        with timer.stage("read"):
            scan = read(ct, config, tasks.count)
            series = check_output(staging, scan, config, config.series)
        result = segment(scan, models, config, timer, tasks)
        return write_result(result, staging, config, series, tasks)


def read(ct: Any, config: RunConfig, processors: int = 1) -> Scan:
    """Read `ct` if it is a path, else take it from memory. Raises ReadError if it is no CT, or too large."""
    if isinstance(ct, str | Path):
        return read_scan(Path(ct), config.series, config.max_memory_gb, need_of(config, processors))
    return scan_of(ct)


def segment(
    scan: Scan,
    models: Models,
    config: RunConfig | None = None,
    timer: StageTimer | None = None,
    tasks: ForkedTasks | None = None,
    rules: StageRules = StageRules(),
) -> Result:
    """Find, name, mesh and measure the vertebrae of one CT; nothing is written.

    Raises VertebralError if a stage cannot go on.
    """
    config, timer, tasks = config or RunConfig(), timer or StageTimer(), tasks or ForkedTasks()
    refiner = models.refiner
    preprocess, notes = _preprocessing(models.coarse.config, config.spacing_mm)
    with timer.stage("prepare"):
        prepared = prepare(scan.volume, preprocess)
    with timer.stage("infer") as share:
        evidence = _coarse_evidence(prepared, models, config, rules.inference, share)
    with timer.stage("instances"):
        instances = find_instances(evidence, rules.instances)
    if refiner is not None:
        with timer.stage("refine") as share:
            instances = refine(
                instances,
                evidence,
                scan.volume,
                refiner.network,
                refiner.config,
                models.device,
                provisional_levels,
                share,
                rules=rules.refine,
            )
    with timer.stage("identify"):
        spine = _chosen(identify(instances, rules=rules.identify), config.levels)
    with timer.stage("restore"):
        segmentation = restore(spine, prepared.source)
    measuring = tasks.start(lambda: measure(segmentation.labels, scan.volume, rules=rules.measure))
    with timer.stage("reconstruct"):
        too_large = _too_large(segmentation, rules.reconstruct.max_vertebra_ml)
        plausible = tuple(v for v in spine.vertebrae if v.level.name not in too_large)
        surfaces = reconstruct(replace(spine, vertebrae=plausible), tasks=tasks, rules=rules.reconstruct)
    with timer.stage("measure"):
        measurements = measuring()
    caveats = [
        f"{name}: {ml:.0f} ml is too large for a vertebra: no surface was made; do not trust this result"
        for name, ml in too_large.items()
    ]
    warnings = (*scan.notes, *notes, *models.notes, *spine.warnings, *caveats)
    return Result(
        scan=scan,
        labels=segmentation.labels,
        spine=spine,
        volume_ml=segmentation.volume_ml,
        surfaces=surfaces,
        measurements=measurements,
        models=models,
        preprocess=preprocess,
        options=config,
        warnings=warnings,
        timer=timer,
        rules=rules,
    )


def _coarse_evidence(
    prepared: Prepared, models: Models, config: RunConfig, rules: InferenceRules, share: Callable[[float], None]
) -> Evidence:
    coarse = models.coarse
    levels = tuple(level_named(name) for name in coarse.config.network.levels)
    windows = coarse.config.inference
    if config.overlap is not None:
        windows = changed(windows, overlap=config.overlap)
    offsets, follow = coarse.config.network.offsets, not config.exact
    return infer(
        prepared, coarse.network, windows, levels, models.device, share, offsets=offsets, follow=follow, rules=rules
    )


def _preprocessing(model: ModelConfig, spacing_mm: float | None) -> tuple[PreprocessConfig, tuple[str, ...]]:
    trained = model.preprocess
    if spacing_mm is None or spacing_mm == trained.spacing_mm:
        return trained, ()
    note = (
        f"run at {spacing_mm:g} mm, but model {model.name} was trained at {trained.spacing_mm:g} mm: "
        "results may be worse"
    )
    return changed(trained, spacing_mm=spacing_mm), (note,)


def _too_large(segmentation: Segmentation, max_ml: float) -> dict[str, float]:
    """Return the volumes in ml of the levels that are larger than a vertebra can be."""
    volumes = segmentation.volume_ml
    return {name: ml for name, ml in volumes.items() if BY_NAME[name].is_vertebra and ml > max_ml}


def _chosen(spine: Spine, levels: tuple[str, ...] | None) -> Spine:
    """Keep the requested levels; warn about those that were not found."""
    if levels is None:
        return spine
    kept = tuple(vertebra for vertebra in spine.vertebrae if vertebra.level.name in levels)
    missing = set(levels) - {vertebra.level.name for vertebra in kept} - _only_passed(levels)
    note = (f"requested levels not found: {', '.join(name for name in levels if name in missing)}",) if missing else ()
    return replace(spine, vertebrae=kept, warnings=(*spine.warnings, *note))


def _only_passed(levels: tuple[str, ...]) -> set[str]:
    """Return T13 and L6 where a range such as T12-L1 passes over them: most people have neither."""
    ranks = {BY_NAME[name].rank for name in levels}
    return {name for name in RARE if {BY_NAME[name].rank - 1, BY_NAME[name].rank + 1} <= ranks}
