"""Scores of a network on the validation scans: the loss of fixed patches, and Dice after a sliding window."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vertebral.core.anatomy import level_named
from vertebral.core.records import Prepared
from vertebral.core.volume import Grid, Volume
from vertebral.data.patches.network_input import class_of_verse_id, window
from vertebral.data.verse.prepared_set import PreparedScan
from vertebral.models.config import ModelConfig
from vertebral.models.devices import Precision
from vertebral.stages.inference import infer


@dataclass(frozen=True)
class ValidationScore:
    """Dice of one scan: foreground against background, mean over the levels of the reference, and each of them."""

    case: str
    subject: str
    dice_spine: float
    dice_levels: float
    levels: dict[str, float]


def score_scan(
    scan: PreparedScan, network: torch.nn.Module, model: ModelConfig, device: torch.device, precision: Precision
) -> ValidationScore:
    """Predict a prepared scan and compare its most probable classes with its labels."""
    predicted = predict_classes(scan, network, model, device, precision)
    expected = class_of_verse_id(model.network.levels).numpy()[np.asarray(scan.labels)]
    dice = class_dice(predicted, expected, model.network.class_count)
    levels = {name: dice[n] for n, name in enumerate(model.network.levels, start=1) if n in dice}
    mean = float(np.mean(list(levels.values()))) if levels else float("nan")
    return ValidationScore(scan.case, scan.subject, dice[0], mean, levels)


def predict_classes(
    scan: PreparedScan, network: torch.nn.Module, model: ModelConfig, device: torch.device, precision: Precision
) -> NDArray[np.uint8]:
    """The most probable class of each voxel of a prepared scan, uint8 (I, J, K), by sliding window."""
    ct = torch.from_numpy(np.asarray(scan.ct, np.float32))
    volume = Volume(window(ct, model.preprocess).numpy(), scan.affine)
    prepared = Prepared(volume, Grid(volume.array.shape, scan.affine), model.preprocess)
    levels = tuple(level_named(name) for name in model.network.levels)
    evidence = infer(
        prepared, network, model.inference, levels, device, precision=precision, offsets=model.network.offsets
    )
    return evidence.first


def class_dice(predicted: NDArray[np.uint8], expected: NDArray[np.uint8], class_count: int) -> dict[int, float]:
    """Dice by class for the classes of `expected`, in one pass; 0 is the whole foreground.

    The foreground is NaN if neither has any.
    """
    pairs = np.bincount(
        (predicted.ravel().astype(np.int64) * class_count + expected.ravel()), minlength=class_count**2
    ).reshape(class_count, class_count)
    ours, theirs, both = pairs.sum(1), pairs.sum(0), np.diag(pairs)
    foreground = ours[1:].sum() + theirs[1:].sum()
    dice = {0: float(2 * pairs[1:, 1:].sum() / foreground) if foreground else float("nan")}
    return dice | {n: float(2 * both[n] / (ours[n] + theirs[n])) for n in range(1, class_count) if theirs[n]}


def means(scores: Sequence[ValidationScore]) -> tuple[float | None, float | None]:
    """Mean Dice of the spine and of the levels over scans; None if no scan has one."""

    def mean(values: list[float]) -> float | None:
        known = [value for value in values if np.isfinite(value)]
        return float(np.mean(known)) if known else None

    return mean([s.dice_spine for s in scores]), mean([s.dice_levels for s in scores])


def as_rows(scores: Sequence[ValidationScore]) -> list[dict[str, Any]]:
    """The scores as rows for JSON, sorted by case."""
    return [asdict(score) for score in sorted(scores, key=lambda score: score.case)]


def gather_objects(value: Any) -> list[Any]:
    """The `value` of every process of a distributed run, in the order of ranks; of one process, its own alone."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found
