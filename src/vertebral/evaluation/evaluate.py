"""One predicted label map against one reference: spine against background, and level by level."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebral.anatomy import BY_VERSE_ID, SPINE, Level, sort_levels
from vertebral.errors import GeometryError
from vertebral.evaluation.metrics import Mask, dice, hd95_mm
from vertebral.io.read import read_labels
from vertebral.volume import Volume


@dataclass(frozen=True)
class Score:
    """One row. `cut` marks a reference that reaches the border of the image: it is partial and scored apart.

    `any_level_dice` is the Dice of the reference against the predicted label that overlaps it most, whatever its name.
    """

    name: str
    dice: float
    hd95_mm: float
    any_level_dice: float
    cut: bool


def evaluate(prediction: Path, reference: Path) -> dict[str, Any]:
    """Score two label maps with VerSe ids. A missing vertebra has Dice 0 and an infinite HD95.

    Vertebrae only: sacrum and coccyx are left out on both sides. Where either map tells no levels apart (SPINE), only
    the spine as a whole is scored. Means are over complete reference vertebrae, HD95
    over those found. `extra` names predicted vertebrae that the reference lacks; it may have left out what it shows in
    part only, so they lower no score but that of the spine. Raises GeometryError where the grids differ.
    """
    predicted, expected = read_labels(prediction), read_labels(reference)
    if not predicted.grid.matches(expected.grid):
        raise GeometryError(f"{prediction}: its grid differs from that of {reference}; both must lie on one grid")
    ours, theirs = _vertebrae(predicted), _vertebrae(expected)
    spine = Score(
        "spine", dice(ours > 0, theirs > 0), hd95_mm(ours > 0, theirs > 0, expected.spacing_mm), np.nan, False
    )
    rows = []
    levels = () if SPINE.verse_id in ours or SPINE.verse_id in theirs else _levels(theirs)
    for level in levels:
        truth, found = theirs == level.verse_id, ours == level.verse_id
        rows.append(
            Score(
                level.name,
                dice(found, truth),
                hd95_mm(found, truth, expected.spacing_mm),
                _best_dice(ours, truth),
                _touches_border(truth),
            )
        )
    whole = [row for row in rows if not row.cut]
    finite = [row.hd95_mm for row in whole if np.isfinite(row.hd95_mm)]
    return {
        "spine": asdict(spine),
        "levels": [asdict(row) for row in rows],
        "extra": [level.name for level in _levels(ours) if level not in levels and level is not SPINE],
        "complete": len(whole),
        "complete_with_dice_of_half": sum(row.dice >= 0.5 for row in whole),
        "mean_dice": float(np.mean([row.dice for row in whole])) if whole else float("nan"),
        "mean_hd95_mm": float(np.mean(finite)) if finite else float("nan"),
    }


def _vertebrae(labels: Volume) -> np.ndarray[Any, Any]:
    vertebrae = [level.verse_id for level in BY_VERSE_ID.values() if level.is_vertebra or level is SPINE]
    return np.where(np.isin(labels.array, vertebrae), labels.array, 0)


def _levels(labels: np.ndarray[Any, Any]) -> tuple[Level, ...]:
    return sort_levels(BY_VERSE_ID[int(value)] for value in np.unique(labels) if value)


def _best_dice(labels: np.ndarray[Any, Any], truth: Mask) -> float:
    hit = np.bincount(labels[truth].astype(int))
    if hit[1:].sum() == 0:
        return 0.0
    return dice(labels == int(np.argmax(hit[1:])) + 1, truth)


def _touches_border(mask: Mask) -> bool:
    return any(bool(mask.take(edge, axis).any()) for axis in range(3) for edge in (0, -1))
