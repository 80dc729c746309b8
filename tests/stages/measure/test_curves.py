import numpy as np
import pytest

from measure_solids import Vertebra, bent_sideways, grid_around, painted
from vertebral.core.anatomy import BY_NAME
from vertebral.core.measurements import MeasurementRow
from vertebral.stages.measure import MEASURE_RULES, measure
from vertebral.stages.measure.curves import TiltedEndplate, arc_length_mm, coronal_curves
from vertebral.stages.measure.endplates import Cloud, Endplate
from vertebral.stages.measure.frames import Frame


@pytest.mark.parametrize("cobb_deg", [10.0, 35.0, 60.0])
def test_a_scoliosis_of_known_size(cobb_deg: float) -> None:
    names = ["T9", "T10", "T11", "T12", "L1", "L2", "L3"]
    bones = [Vertebra(name, width=34, depth=29, height=22) for name in names]
    bones = bent_sideways(bones, 6.0, cobb_deg / (len(names) - 1))
    main = measure(painted(bones, grid_around(bones, (1.5, 1.5, 1.5), np.eye(3)))).curves[0]
    assert main.value("angle_deg") == pytest.approx(cobb_deg, abs=2)
    assert (main.value("upper"), main.value("lower")) == ("T9", "L3")
    # Each bone leans further to the right than the one below: the middle lies to the left of the line between the ends.
    assert main.value("convex_to") == "left"
    assert main.value("apex") in ("T11", "T12", "L1")


def plate(level: str, side: str, coronal_deg: float) -> TiltedEndplate:
    cloud = Cloud(np.zeros((0, 3)), np.zeros((0, 3)))
    endplate = Endplate(cloud, np.zeros(3), np.array([0.0, 0, 1]), 0.0, 1.0, 1.0, 0.0)
    return TiltedEndplate(BY_NAME[level], side, endplate, 0.0, coronal_deg)


def test_a_double_curve_shares_its_middle_end_vertebra() -> None:
    leans = {"T4": 15, "T6": 0, "T8": -20, "T10": 0, "T12": 12}
    plates = [plate(level, side, lean) for level, lean in leans.items() for side in ("superior", "inferior")]
    centres = {BY_NAME[level]: np.array([0.0, 0.0, -20.0 * n]) for n, level in enumerate(leans)}
    curves = coronal_curves(plates, centres, Frame(np.zeros(3), np.eye(3)), MEASURE_RULES)
    found = [(c.upper.name, c.lower.name, c.angle_deg, c.convex_to) for c in curves]
    assert found == [("T4", "T8", 35, "left"), ("T8", "T12", 32, "right")]


def test_length_of_a_quarter_circle() -> None:
    angles = np.linspace(0, np.pi / 2, 8)
    points = [np.array([100 * np.sin(a), 0, 100 * np.cos(a)]) for a in angles]
    assert arc_length_mm(points) == pytest.approx(50 * np.pi, rel=1e-3)
    assert arc_length_mm([np.zeros(3), np.array([3.0, 4, 0])]) == pytest.approx(5)


def test_no_curve_without_levels() -> None:
    rows = measure(painted([], grid_around([Vertebra("L1")], (3, 3, 3), np.eye(3)))).curves
    assert isinstance(rows[0], MeasurementRow)
    assert rows[0].figures["angle_deg"].reason == "fewer than 3 bodies were measured"
