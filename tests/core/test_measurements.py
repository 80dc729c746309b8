from vertebral.core.anatomy import BY_NAME
from vertebral.core.measurements import Figure, MeasurementRow, Measurements, flagged, flat_rows, good, missing, nested

ROW = MeasurementRow(
    "L1",
    (BY_NAME["L1"],),
    {"height_mm": good(25.123456), "loss": flagged(3.0, ("a", "b", "a")), "hu": missing("no CT")},
)


def test_quality_of_a_row_is_the_worst_that_was_measured() -> None:
    assert ROW.quality == "check"
    assert MeasurementRow("L1", (), {"a": good(1.0), "b": missing("x")}).quality == "good"
    assert MeasurementRow("L1", (), {"a": missing("x")}).quality == "none"


def test_flagged_joins_reasons_once() -> None:
    assert flagged(1.0, ()) == Figure(1.0, "good")
    assert ROW.figures["loss"].reason == "a; b"


def test_flat_rows_put_a_quality_beside_each_figure() -> None:
    assert flat_rows((ROW,)) == [
        {
            "name": "L1",
            "quality": "check",
            "height_mm": 25.1235,
            "height_mm_quality": "good",
            "loss": 3.0,
            "loss_quality": "check: a; b",
            "hu": None,
            "hu_quality": "none: no CT",
        }
    ]


def test_nested_keeps_reasons() -> None:
    record = nested(Measurements((ROW,), (), (), (), ("w",)))
    assert record["warnings"] == ["w"]
    assert record["vertebrae"][0]["levels"] == ["L1"]
    assert record["vertebrae"][0]["figures"]["hu"] == {"value": None, "quality": "none", "reason": "no CT"}
    assert record["vertebrae"][0]["figures"]["height_mm"] == {"value": 25.1235, "quality": "good"}
    assert record["gaps"] == []
