"""The public functions: each takes a path or an image in memory, and returns what it found; see `vertebral`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertebral.core.anatomy import level_named
from vertebral.core.config import parse_config
from vertebral.core.errors import ConfigError
from vertebral.core.measurements import Measurements
from vertebral.core.records import Surface
from vertebral.core.volume import Volume
from vertebral.evaluation.case import RunRecord, ScoredCase
from vertebral.evaluation.evaluate import score_pair
from vertebral.evaluation.pair import pair
from vertebral.evaluation.settings import Settings
from vertebral.io.ct.in_memory import labels_of, scan_of
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.models.config import ModelsConfig
from vertebral.runtime.stage_timer import Progress, StageTimer, no_progress
from vertebral.stages.measure import measure as measure_labels
from vertebral.stages.reconstruct import fields_of_labels, mesh_fields
from vertebral.stages.reconstruct.config import MeshConfig
from vertebral.workflows.config import RunConfig
from vertebral.workflows.relabel import Pin, Relabelled, RelabelRequest, relabel_labels

if TYPE_CHECKING:
    from vertebral.models.load import Models
    from vertebral.workflows.result import Result


def segment(ct: Any, *, models: "Models | None" = None, progress: Progress = no_progress, **options: Any) -> "Result":
    """Find, name, mesh and measure the vertebrae of one CT, in memory; nothing is written.

    `ct` is a path (NIfTI, NRRD, MetaImage, DICOM folder, zip), a `Volume` (I, J, K) in HU, a nibabel image or a
    SimpleITK image, in any orientation. `models` come from `load_models`, so that they serve many scans; if None they
    are loaded. `progress(stage, share)` is called as the work goes on. `options` are those of `RunConfig`, for example
    `levels=("T12", "L1")`, `device="cpu"`, `exact=True`.

    Raises ReadError for what is no CT, ModelError for an unknown model, ConfigError for a bad option, VertebralError if
    a stage cannot go on.
    """
    from vertebral.models.load import load_models as load
    from vertebral.workflows import run as workflow

    config, timer = _run_config(options), StageTimer(progress)
    with timer.stage("load model"):
        models = models or load(config)
    with timer.stage("read"):
        scan = workflow.read(ct, config)
    return workflow.segment(scan, models, config, timer)


def run(
    ct: Any, out: str | Path, *, models: "Models | None" = None, progress: Progress = no_progress, **options: Any
) -> dict[str, Any]:
    """Take one CT to a folder of results, as `vertebral run` does; return the manifest. `ct` is as for `segment`.

    Files appear at the end, all or none. Raises OutputExistsError if `out` holds results and `overwrite=True` is not
    given, and otherwise what `segment` raises.
    """
    from vertebral.workflows import run as workflow

    return workflow.run(ct, Path(out), _run_config(options), models, progress)


def load_models(**options: Any) -> "Models":
    """Load the networks once, for many scans.

    `options` are those of `ModelsConfig`: `model` (a name or a folder), `device` (auto, cpu, cuda), `backend` (auto,
    torch, openvino), `refine`, `mirror`. Raises ModelError for an unknown or damaged model, ConfigError for a bad
    option.
    """
    from vertebral.models.load import load_models as load

    return load(parse_config(ModelsConfig, options, "load_models"))


def read_ct(ct: Any, series: str | None = None) -> Volume:
    """Read a CT in HU: (I, J, K) int16, or float32 if HU are not whole, with its affine to RAS+ mm.

    `ct` is as for `segment`; `series` is the SeriesInstanceUID, or its start, if a DICOM folder holds several. Raises
    ReadError for what is no CT, GeometryError for a grid that cannot be used.
    """
    return (read_scan(Path(ct), series) if isinstance(ct, str | Path) else scan_of(ct)).volume


def mesh(labels: Any, *, levels: Sequence[str] | None = None, **options: Any) -> tuple[Surface, ...]:
    """Return one closed surface per level of a label map with VerSe ids, from head to tail, RAS+ mm.

    `labels` is a path, a `Volume` (I, J, K), a nibabel or a SimpleITK image; `levels` None takes all. `options` are
    those of `MeshConfig`: `smooth`, `max_error_mm`, `target_edge_mm`, `clearance_mm`. Neighbours do not intersect.
    Raises InputError if there is none of the levels, ConfigError for a bad option, VertebralError if a segment has no
    printable surface.
    """
    config = parse_config(MeshConfig, options, "mesh")
    chosen = None if levels is None else [level_named(name) for name in levels]
    return mesh_fields(fields_of_labels(_labels(labels), chosen, config.target_edge_mm), config).surfaces


def measure(labels: Any, ct: Any = None) -> Measurements:
    """Measure all levels of a label map with VerSe ids: heights, wedges, density, discs, curves.

    `labels` and `ct` are paths, `Volume`s (I, J, K), nibabel or SimpleITK images, each on any grid of the same patient;
    without a CT (in HU) there is no density. Each figure has a quality, or the reason why it is missing. Raises
    GeometryError if the CT shows another place.
    """
    return measure_labels(_labels(labels), None if ct is None else read_ct(ct))


def relabel(
    labels: Any,
    *,
    scheme: str = "verse",
    out_scheme: str = "verse",
    levels_at: Mapping[str, tuple[float, float, float]] | None = None,
    first: str | None = None,
    last: str | None = None,
) -> Relabelled:
    """Mend any tool's label map: one segment per vertebra, named in order; nothing is resampled.

    `labels` is a path, a `Volume` (I, J, K), a nibabel or a SimpleITK image with the ids of `scheme`. `levels_at` names
    vertebrae by hand: a level, and a point in its vertebra (RAS+ mm); `first` and `last` name the top and the bottom
    one. Raises ConfigError for an unknown scheme and for levels that contradict each other.
    """
    for name, point in (levels_at or {}).items():
        if len(point) != 3 or not all(math.isfinite(mm) for mm in point):
            raise ConfigError(f"levels_at: {name} at {point!r}: give three finite numbers, RAS+ mm")
    request = RelabelRequest(
        scheme=scheme,
        out_scheme=out_scheme,
        pins=tuple(Pin(level_named(name), point) for name, point in (levels_at or {}).items()),
        first=level_named(first) if first is not None else None,
        last=level_named(last) if last is not None else None,
    )
    return relabel_labels(_labels(labels), request)


def evaluate(prediction: Any, reference: Any, settings: Settings | None = None) -> ScoredCase:
    """Score a label map against a reference: Dice, HD95 and more of the spine and of each level, names, instances.

    Both are paths, `Volume`s (I, J, K), nibabel or SimpleITK images on one grid; `settings` name their schemes and
    policies. Raises GeometryError if the grids differ.
    """
    settings = settings or Settings()
    name = Path(reference).name if isinstance(reference, str | Path) else "reference"
    return score_pair(pair(_labels(prediction), _labels(reference), settings), settings, name, name, RunRecord())


def _labels(source: Any) -> Volume:
    return read_labels(Path(source)) if isinstance(source, str | Path) else labels_of(source)


def _run_config(options: dict[str, Any]) -> RunConfig:
    return parse_config(RunConfig, options, "options")
