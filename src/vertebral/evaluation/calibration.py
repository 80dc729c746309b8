"""Calibration of confidences: reliability in bins, and the expected calibration error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers whose confidence is in one bin: their number, mean confidence and the share that is right."""

    count: int
    confidence: float
    accuracy: float


def reliability(answers: Sequence[tuple[float, bool]], bins: int = 10) -> list[ReliabilityBin]:
    """Sort `answers`, (confidence, right), into bins of equal width over [0, 1]; empty bins are omitted."""
    if not answers:
        return []
    confidence, right = np.array(answers, np.float64).T
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    return [
        ReliabilityBin(int((place == n).sum()), float(confidence[place == n].mean()), float(right[place == n].mean()))
        for n in range(bins)
        if (place == n).any()
    ]


def expected_calibration_error(answers: Sequence[tuple[float, bool]], bins: int = 10) -> float:
    """Return the mean of |accuracy - confidence| over the answers' bins (Naeini et al., AAAI 2015); NaN if empty."""
    rows = reliability(answers, bins)
    total = sum(row.count for row in rows)
    return sum(row.count * abs(row.accuracy - row.confidence) for row in rows) / total if total else float("nan")
