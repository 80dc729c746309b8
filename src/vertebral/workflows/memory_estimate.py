"""How much memory a run will need, from the size of its scan and from its networks, before a voxel is read.

An upper estimate, measured against runs on scans of 35 to 315 million voxels: libraries and networks; the scan and,
while it is read, a second copy of it; per voxel of the coarse grid the network's input and what is kept of its output;
the classes of one layer of windows; the work of one window; the fine grid of the refiner; the label map; what forked
copies hold for themselves.
"""

from collections.abc import Callable
from math import prod

from vertebral.core.volume import Grid
from vertebral.io.ct.read import working_memory_gb
from vertebral.models.cards import find_model, find_refiner, read_card
from vertebral.models.config import ModelConfig
from vertebral.workflows.config import RunConfig

_PROGRAM_GB = 0.65
_STORED_BYTES, _LABEL_BYTES, _FLOAT_BYTES = 2, 1, 4
# float32 input; two classes, two probabilities and three offsets of a byte each.
_COARSE_BYTES = 4 + 4 + 3
# What a network holds at once for a window, in float32 values a voxel: a few times its widest level and its output.
_WORK_VALUES = 160
# Copies share what the run holds; this is what they write to beside a copy of the label map.
_COPIES_GB = 0.25


def estimate_gb(
    grid: Grid, coarse: ModelConfig, refiner: ModelConfig | None, exact: bool = False, copies: bool = False
) -> float:
    """The memory, in GB (1e9 bytes), that a run on a CT of `grid` will need at most, with its forked `copies`."""
    source = float(prod(grid.shape))
    shape = _resampled(grid, coarse.preprocess.spacing_mm)
    window = coarse.inference.window
    cross: float = min(prod(shape) / size * min(size, extent) for size, extent in zip(shape, window, strict=True))
    if not exact:  # layers lie along the body
        body = grid.world_axes.index(2)
        cross = prod(shape) / shape[body] * min(shape[body], window[2])
    channels = coarse.network.channel_count + 1
    infer = prod(shape) * _COARSE_BYTES + cross * channels * _FLOAT_BYTES + _work(window, channels)
    later = prod(shape) * (_COARSE_BYTES - 4) + source * _LABEL_BYTES
    if refiner is not None:
        fine = prod(_resampled(grid, refiner.preprocess.spacing_mm))
        later += fine * _FLOAT_BYTES + _work(refiner.inference.window, refiner.network.channel_count)
    read = source * _STORED_BYTES
    beside = _COPIES_GB + source * _LABEL_BYTES / 1e9 if copies else 0.0
    return _PROGRAM_GB + beside + (source * _STORED_BYTES + max(read, infer, later)) / 1e9


def _resampled(grid: Grid, spacing_mm: float) -> tuple[int, int, int]:
    return grid.resampled(spacing_mm).shape


def _work(window: tuple[int, int, int], channels: int) -> float:
    return prod(window) * (_WORK_VALUES + 2 * channels) * _FLOAT_BYTES


def need_of(config: RunConfig, processors: int = 1) -> Callable[[Grid], float]:
    """Return what tells how many GB a run on a CT of a grid will need; by the cards of the models, without loading.

    With more than one of `processors` those of its forked copies are counted too.
    """
    place, _ = find_model(config.model)
    if not place.is_dir():  # a checkpoint tells nothing before it is loaded
        return working_memory_gb
    coarse = read_card(place).config
    refined = find_refiner(config.model, coarse) if config.refine else None
    refiner = read_card(refined).config if refined is not None else None
    return lambda grid: estimate_gb(grid, coarse, refiner, config.exact, processors > 1)
