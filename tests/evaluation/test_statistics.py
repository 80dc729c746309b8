import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebral.evaluation.statistics import bootstrap_interval, by_patient, difference, estimate


def test_scans_of_a_patient_are_one_value() -> None:
    values = [("a", 1.0), ("a", 0.0), ("a", None), ("b", 1.0), ("c", None)]
    assert by_patient(values) == {"a": 0.5, "b": 1.0}


def test_estimate_by_hand() -> None:
    found = estimate({"a": 0.0, "b": 1.0, "c": 2.0, "d": 5.0})
    assert found is not None
    assert (found.patients, found.mean, found.median, found.quartiles) == (4, 2, 1.5, (0.75, 2.75))
    assert found.interval is not None and 0 < found.interval[0] < 2 < found.interval[1] < 5
    assert estimate({}) is None
    alone = estimate({"a": 3.0})
    assert alone is not None and (alone.mean, alone.interval) == (3, None)


def test_the_interval_is_about_that_of_the_normal_distribution() -> None:
    """200 values: mean +- 1.96 standard errors, within a tenth of the width; the same on every run."""
    values = np.random.default_rng(1).normal(5, 2, 200)
    low, high = bootstrap_interval(values) or (0, 0)
    half = 1.96 * values.std() / np.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert bootstrap_interval(values) == (low, high)


def test_the_interval_of_an_all_or_nothing_score() -> None:
    """Two patients, 0 and 1: resampled means are 0, 0.5 and 1 with 1/4, 1/2 and 1/4."""
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0, 1)
    assert bootstrap_interval(np.array([1.0, 1.0])) == (1, 1)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12))
def test_the_interval_holds_the_mean_and_lies_within_the_values(values: list[float]) -> None:
    low, high = bootstrap_interval(np.array(values)) or (0, 0)
    assert min(values) - 1e-9 <= low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high <= max(values) + 1e-9


def test_paired_difference_by_hand() -> None:
    """Five patients up by 1 to 5: of 2^5 signs one is as good and one as bad, so p = 2 / 32."""
    first = dict.fromkeys("abcde", 0.0) | {"x": 3.0}
    second = {name: float(n) for n, name in enumerate("abcde", start=1)}
    gap = difference(first, second)
    assert gap is not None
    assert (gap.patients, gap.dropped, gap.mean, gap.median) == (5, 1, 3, 3)
    assert gap.p == pytest.approx(2 / 32)
    assert (gap.higher, gap.lower) == (5, 0)
    back = difference(second, first)
    assert back is not None and (back.mean, back.p) == (-3, gap.p)


def test_no_difference_and_nothing_to_compare() -> None:
    gap = difference({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0})
    assert gap is not None and (gap.mean, gap.p, gap.interval) == (0, None, (0, 0))
    assert difference({"a": 1.0}, {"b": 1.0}) is None
