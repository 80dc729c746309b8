from pathlib import Path

import numpy as np
import pytest

from vertebral.anatomy import BY_NAME
from vertebral.errors import GeometryError, ReadError
from vertebral.evaluation.evaluate import evaluate
from vertebral.io.write import write_labels
from vertebral.volume import Volume

AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])
SHAPE = (10, 10, 30)


def save(path: Path, affine: np.ndarray = AFFINE, **slices: tuple[int, int]) -> Path:
    """A label map with one block per level: 4 x 4 voxels wide, `slices` high."""
    array = np.zeros(SHAPE, np.uint8)
    for name, (low, high) in slices.items():
        array[3:7, 3:7, low:high] = BY_NAME[name].verse_id
    write_labels(Volume(array, affine), path)
    return path


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """L1 and L2 are whole, L3 reaches the lowest slice, and a sacrum fills space that is not scored."""
    return save(tmp_path / "ref.nii.gz", L1=(20, 25), L2=(10, 15), L3=(0, 4), sacrum=(5, 9))


def by_name(result: dict) -> dict[str, dict]:
    return {row["name"]: row for row in result["levels"]}


def test_a_map_equals_itself(reference: Path) -> None:
    result = evaluate(reference, reference)
    assert [row["name"] for row in result["levels"]] == ["L1", "L2", "L3"]
    assert all(row["dice"] == row["any_level_dice"] == 1 and row["hd95_mm"] == 0 for row in result["levels"])
    assert result["spine"]["dice"] == 1
    assert result["extra"] == []
    assert (result["complete"], result["complete_with_dice_of_half"]) == (2, 2)
    assert (result["mean_dice"], result["mean_hd95_mm"]) == (1, 0)


def test_what_the_border_cuts_is_flagged_and_not_averaged(tmp_path: Path, reference: Path) -> None:
    """L1 is one slice of 3 mm off (Dice 0.8), L2 right, L3 missing but cut."""
    result = evaluate(save(tmp_path / "pred.nii.gz", L1=(21, 26), L2=(10, 15)), reference)
    rows = by_name(result)
    assert [rows[name]["cut"] for name in ("L1", "L2", "L3")] == [False, False, True]
    assert rows["L1"]["dice"] == pytest.approx(0.8)
    assert rows["L1"]["hd95_mm"] == pytest.approx(3)
    assert (rows["L3"]["dice"], rows["L3"]["hd95_mm"], rows["L3"]["any_level_dice"]) == (0, float("inf"), 0)
    assert result["complete"] == 2
    assert result["mean_dice"] == pytest.approx(0.9)
    assert result["mean_hd95_mm"] == pytest.approx(1.5)


def test_a_missing_vertebra_counts_as_zero(tmp_path: Path, reference: Path) -> None:
    result = evaluate(save(tmp_path / "pred.nii.gz", L1=(20, 25), L3=(0, 4)), reference)
    row = by_name(result)["L2"]
    assert (row["dice"], row["hd95_mm"]) == (0, float("inf"))
    assert result["mean_dice"] == 0.5
    assert result["mean_hd95_mm"] == 0  # of those found
    assert result["complete_with_dice_of_half"] == 1
    # 9 of 14 slices: 2 * 9 / (9 + 14).
    assert result["spine"]["dice"] == pytest.approx(18 / 23)


def test_a_wrong_level_is_seen_apart_from_a_wrong_outline(tmp_path: Path, reference: Path) -> None:
    result = evaluate(save(tmp_path / "pred.nii.gz", T12=(20, 25), L2=(10, 15), L3=(0, 4)), reference)
    row = by_name(result)["L1"]
    assert (row["dice"], row["any_level_dice"]) == (0, 1)
    assert result["extra"] == ["T12"]
    assert result["spine"]["dice"] == 1


def test_sacrum_is_ignored_on_both_sides(tmp_path: Path, reference: Path) -> None:
    prediction = save(tmp_path / "pred.nii.gz", L1=(20, 25), L2=(10, 15), L3=(0, 4), sacrum=(26, 29), coccyx=(5, 7))
    assert evaluate(prediction, reference)["spine"]["dice"] == 1
    assert evaluate(prediction, reference)["extra"] == []


def test_levels_come_in_anatomical_order(tmp_path: Path) -> None:
    path = save(tmp_path / "t13.nii.gz", T12=(24, 28), T13=(18, 22), L1=(12, 16))
    assert [row["name"] for row in evaluate(path, path)["levels"]] == ["T12", "T13", "L1"]


def test_empty_maps(tmp_path: Path, reference: Path) -> None:
    empty = save(tmp_path / "empty.nii.gz")
    result = evaluate(empty, empty)
    assert result["levels"] == []
    assert np.isnan([result["mean_dice"], result["mean_hd95_mm"], result["spine"]["dice"]]).all()
    result = evaluate(empty, reference)
    assert (result["mean_dice"], result["spine"]["dice"]) == (0, 0)
    assert np.isnan(result["mean_hd95_mm"])
    assert evaluate(reference, empty)["extra"] == ["L1", "L2", "L3"]


def test_grids_must_match(tmp_path: Path, reference: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] = 0.5
    prediction = save(tmp_path / "pred.nii.gz", moved, L1=(20, 25))
    with pytest.raises(GeometryError, match=r"pred\.nii\.gz.*ref\.nii\.gz.*one grid"):
        evaluate(prediction, reference)


def test_missing_file(tmp_path: Path, reference: Path) -> None:
    with pytest.raises(ReadError, match=r"none\.nii\.gz"):
        evaluate(tmp_path / "none.nii.gz", reference)
