from pathlib import Path

import numpy as np
import pytest

from results import Made, read_manifest, write_result
from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import ConfigError, VertebralError
from vertebral.io.ct.read import read_labels
from vertebral.io.result_folder import open_complete_result
from vertebral.stages.report.result import stored_contents
from vertebral.web.correction import correct_levels, new_names, parse_pins, replace_folder
from vertebral.workflows.relabel import Pin


def middle_of(made: Made, name: str) -> tuple[float, float, float]:
    voxels = np.argwhere(made.labels.array == BY_NAME[name].verse_id)
    r, a, s = made.labels.grid.to_world(voxels.mean(0))
    return float(r), float(a), float(s)


def test_a_level_and_its_neighbours_get_new_names(made: Made, tmp_path: Path) -> None:
    out, ct = write_result(made, tmp_path)
    before = open_complete_result(out)
    after = correct_levels(before, ct, [Pin(BY_NAME["L2"], middle_of(made, "L1"))], tmp_path / "corrected")
    assert [row["level"] for row in after.manifest["levels"]] == ["L1", "L2", "L3"]
    labels = read_labels(after.labels_path)
    for old, new in (("T12", "L1"), ("L1", "L2"), ("L2", "L3")):
        np.testing.assert_array_equal(labels.array == BY_NAME[new].verse_id, made.labels.array == BY_NAME[old].verse_id)
    for old, new in zip(before.surfaces(), after.surfaces(), strict=True):
        np.testing.assert_array_equal(old.vertices_mm, new.vertices_mm)
    names = {name for name in after.hashes if name.endswith(".stl")}
    assert names == {"case_L1.stl", "case_L2.stl", "case_L3.stl"}
    page = stored_contents(after)
    assert page is not None and [row["name"] for row in page.facts["measured"]["vertebrae"]] == ["L1", "L2", "L3"]
    (said,) = after.manifest["corrections"]
    assert said.startswith("L2 at ") and page.facts["corrections"] == [said]
    assert read_manifest(out) == before.manifest  # what was there stays


def test_contradictions_leave_nothing(made: Made, tmp_path: Path) -> None:
    out, ct = write_result(made, tmp_path)
    pins = [Pin(BY_NAME["L5"], middle_of(made, "T12")), Pin(BY_NAME["L1"], middle_of(made, "L2"))]
    with pytest.raises(ConfigError, match="contradict each other"):
        correct_levels(open_complete_result(out), ct, pins, tmp_path / "corrected")
    assert not (tmp_path / "corrected").exists()


def test_a_changed_shape_is_meshed_anew(made: Made, tmp_path: Path) -> None:
    assert new_names([{"level": "L1", "was": {"T12": 99, "L1": 1}}, {"level": "L2", "was": {"L1": 50}}]) == {
        "T12": "L1",
        "L1": "L2",
    }
    assert new_names([{"level": "L1", "was": {"T12": 97, "L1": 3}}]) is None
    assert new_names([{"level": "L1", "was": {"T12": 5}}, {"level": "L2", "was": {"T12": 5}}]) is None


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    replace_folder(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"pins": 3}',
        b'{"pins": [{"level": "L9", "point_mm": [0, 0, 0]}]}',
        b'{"pins": [{"level": "sacrum", "point_mm": [0, 0, 0]}]}',
        b'{"pins": [{"level": "L1", "point_mm": [0, 0]}]}',
        b'{"pins": [{"level": "L1", "point_mm": ["x", 0, 0]}]}',
    ],
)
def test_strange_wishes_are_refused(text: bytes) -> None:
    with pytest.raises(VertebralError, match="not a list of levels with points"):
        parse_pins(text)


def test_wishes_are_kept_as_they_came() -> None:
    pins, records = parse_pins(b'{"pins": [{"level": "L1", "point_mm": [1, 2.5, -3], "more": 1}]}')
    assert pins == (Pin(BY_NAME["L1"], (1.0, 2.5, -3.0)),)
    assert records == ({"level": "L1", "point_mm": [1.0, 2.5, -3.0]},)
