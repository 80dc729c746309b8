"""Means with intervals over patients, and paired differences of two models. The unit is the patient."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, wilcoxon

RESAMPLES = 10_000
_BATCH = 1000  # resamples at once, to limit memory


@dataclass(frozen=True)
class Estimate:
    """Mean, median and quartiles over `patients`, and the 95 % interval of the mean (None for a single patient)."""

    patients: int
    mean: float
    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """Paired differences (second minus first) over the `patients` with both values; `p` by Wilcoxon's signed ranks.

    `dropped` patients have only one of the two values. `p` is None if no patient differs.
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
    """Average the scans of each patient; scans without a value are left out."""
    scans: dict[str, list[float]] = defaultdict(list)
    for patient, value in values:
        if value is not None:
            scans[patient].append(float(value))
    return {patient: float(np.mean(own)) for patient, own in sorted(scans.items())}


def estimate(patients: dict[str, float], seed: int = 0) -> Estimate | None:
    """Summarise one value per patient; None without patients."""
    values = np.array(list(patients.values()))
    if not len(values):
        return None
    low, middle, high = (float(q) for q in np.percentile(values, (25, 50, 75)))
    return Estimate(len(values), float(values.mean()), middle, (low, high), bootstrap_interval(values, seed))


def difference(first: dict[str, float], second: dict[str, float], seed: int = 0) -> Difference | None:
    """Compare two models patient by patient; None if no patient has both values."""
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
    """Percentile bootstrap of the mean, 95 %, with 10,000 resamples (Efron 1979); None for fewer than two values."""
    if len(values) < 2:
        return None
    low, high = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(low), float(high)
