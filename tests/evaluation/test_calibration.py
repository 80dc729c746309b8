import numpy as np
import pytest

from vertebral.evaluation.calibration import ReliabilityBin, expected_calibration_error, reliability

ANSWERS = [(0.95, True), (0.95, True), (0.95, True), (0.95, False), (0.25, False), (0.35, True)]


def test_bins_by_hand() -> None:
    low, middle, high = reliability(ANSWERS)
    assert (low, middle) == (ReliabilityBin(1, 0.25, 0.0), ReliabilityBin(1, 0.35, 1.0))
    assert high.count == 4 and high.confidence == pytest.approx(0.95) and high.accuracy == 0.75


def test_error_by_hand() -> None:
    """(1 x 0.25 + 1 x 0.65 + 4 x 0.2) / 6 = 1.7 / 6."""
    assert expected_calibration_error(ANSWERS) == pytest.approx(1.7 / 6)


def test_certainty_belongs_to_the_last_bin() -> None:
    assert reliability([(1.0, True), (0.999, True)]) == [ReliabilityBin(2, pytest.approx(0.9995), 1.0)]
    assert expected_calibration_error([(1.0, True)]) == 0


def test_no_answers() -> None:
    assert reliability([]) == []
    assert np.isnan(expected_calibration_error([]))
