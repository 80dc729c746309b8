"""Means with intervals over patients, and paired differences of two models: a patient is the unit, never a voxel."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

RESAMPLES = 10_000
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """Over `patients`: mean, median and quartiles, and the 95 % interval of the mean (None for one patient)."""

    patients: int
    mean: float
    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """Paired differences (second less first) over the `patients` that both have; `p` by Wilcoxon's signed ranks.

    `dropped` patients have a value for one of the two only. `p` is None where no patient differs.
    """

    patients: int
    dropped: int
    mean: float
    median: float
    interval: tuple[float, float] | None
    p: float | None
    higher: int
    lower: int


def by_patient(values: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """The mean of each patient's scans; scans without a value are left out."""
    scans: dict[str, list[float]] = defaultdict(list)
    for patient, value in values:
        if value is not None:
            scans[patient].append(float(value))
    return {patient: float(np.mean(own)) for patient, own in sorted(scans.items())}


def estimate(patients: dict[str, float], seed: int = 0) -> Estimate | None:
    """None without patients."""
    values = np.array(list(patients.values()))
    if not len(values):
        return None
    low, middle, high = (float(q) for q in np.percentile(values, (25, 50, 75)))
    return Estimate(len(values), float(values.mean()), middle, (low, high), bootstrap_interval(values, seed))


def difference(first: dict[str, float], second: dict[str, float], seed: int = 0) -> Difference | None:
    """None where no patient has both."""
    both = sorted(first.keys() & second.keys())
    if not both:
        return None
    gaps = np.array([second[patient] - first[patient] for patient in both])
    return Difference(
        patients=len(both),
        dropped=len(first.keys() ^ second.keys()),
        mean=float(gaps.mean()),
        median=float(np.median(gaps)),
        interval=bootstrap_interval(gaps, seed),
        p=float(wilcoxon(gaps).pvalue) if gaps.any() else None,
        higher=int((gaps > 0).sum()),
        lower=int((gaps < 0).sum()),
    )


def bootstrap_interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float] | None:
    """Percentile bootstrap of the mean, 95 %, by 10,000 resamples (Efron 1979); None for fewer than two values."""
    if len(values) < 2:
        return None
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(values))
    means = [
        values[rng.integers(len(values), size=(min(block, RESAMPLES - start), len(values)))].mean(1)
        for start in range(0, RESAMPLES, block)
    ]
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(low), float(high)
