"""How far probabilities can be taken at their word: reliability by bins, and the expected calibration error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bin:
    """Answers with a confidence in one bin: how many, their mean confidence, and the share that is right."""

    count: int
    confidence: float
    accuracy: float


def reliability(answers: Sequence[tuple[float, bool]], bins: int = 10) -> list[Bin]:
    """Bins of equal width over [0, 1], from low to high; empty ones are left out. `answers` are (confidence, right)."""
    if not answers:
        return []
    confidence, right = np.array(answers, np.float64).T
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    return [
        Bin(int((place == n).sum()), float(confidence[place == n].mean()), float(right[place == n].mean()))
        for n in range(bins)
        if (place == n).any()
    ]


def expected_calibration_error(answers: Sequence[tuple[float, bool]], bins: int = 10) -> float:
    """Mean over answers of |accuracy - confidence| of their bin (Naeini et al., AAAI 2015); NaN without answers."""
    rows = reliability(answers, bins)
    total = sum(row.count for row in rows)
    return sum(row.count * abs(row.accuracy - row.confidence) for row in rows) / total if total else float("nan")
