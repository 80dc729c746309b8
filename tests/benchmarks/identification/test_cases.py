from pathlib import Path

import numpy as np
import pytest
from benchmarks.identification.cases import (
    SPACING_MM,
    Case,
    find_maps,
    framed,
    load_case,
    with_l6,
    with_t13,
    without_t12,
)

from vertebral.core.anatomy import parse_levels
from vertebral.core.errors import InputError
from vertebral.core.volume import Volume
from vertebral.io.write import write_labels

HEIGHT, STEP = 12, 18


def tower(levels: str, cut: bool = False) -> Case:
    """Blocks of 12 voxels, 18 apart, each 2 voxels further back than the one above; the top one is cut if `cut`."""
    names = [level for level in parse_levels(levels) if level.name != "T13" or "T13" in levels]
    array = np.zeros((24, 80, STEP * len(names) + 20), np.uint8)
    for n, level in enumerate(names):
        top = array.shape[2] - 10 - STEP * n
        array[4:20, 50 - 2 * n : 70 - 2 * n, top - HEIGHT : top] = level.verse_id
    if cut:
        array = array[:, :, : array.shape[2] - 14]
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    return Case("tower", array, array, affine, open_top=not cut, open_bottom=True)


def heights(case: Case) -> dict[str, float]:
    """World height of each level's middle, mm."""
    ras = case.volume(case.truth).grid
    return {
        level.name: float(ras.to_world(np.argwhere(case.truth == level.verse_id).mean(0))[2]) for level in case.levels
    }


def test_the_frame_keeps_places_and_what_is_cut() -> None:
    case = tower("T12-L3", cut=True)
    tight = framed(case)
    assert heights(tight) == pytest.approx(heights(case))
    assert (tight.truth[:, :, -1] > 0).any() and not tight.truth[:, :, 0].any()
    assert tight.truth.shape[0] == 16 + 8


def test_without_t12_l1_takes_its_place() -> None:
    case = tower("T9-L4")
    made = without_t12(case)
    assert made is not None
    assert [level.name for level in made.levels] == ["T9", "T10", "T11", "L1", "L2", "L3", "L4"]
    before, after = heights(case), heights(made)
    assert after["T11"] == pytest.approx(before["T11"])
    assert after["L1"] == pytest.approx(before["T12"])
    assert after["L2"] - after["L1"] == pytest.approx(-STEP * SPACING_MM)
    assert (made.truth > 0).sum() == (case.truth > 0).sum() * 7 / 8


def test_t13_stands_between_and_is_claimed_by_its_neighbours() -> None:
    case = tower("T9-L4")
    made = with_t13(case)
    assert made is not None
    assert [level.name for level in made.levels][3:6] == ["T12", "T13", "L1"]
    after = heights(made)
    assert after["T13"] - after["T12"] == pytest.approx(-STEP * SPACING_MM)
    assert after["L1"] - after["T13"] == pytest.approx(-STEP * SPACING_MM)
    claimed = made.claims[made.truth == 28]
    assert dict(zip(*np.unique(claimed, return_counts=True), strict=True)) == {
        19: claimed.size / 2,
        20: claimed.size / 2,
    }


def test_l6_stands_below_and_is_claimed_as_l5() -> None:
    made = with_l6(tower("L1-L5"))
    assert made is not None
    assert [level.name for level in made.levels] == ["L1", "L2", "L3", "L4", "L5", "L6"]
    assert set(np.unique(made.claims[made.truth == 25])) == {24}
    assert set(np.unique(made.claims[made.truth == 24])) == {23, 24}


def test_spines_that_do_not_show_the_place_are_left_alone() -> None:
    assert without_t12(tower("T1-T9")) is None
    assert with_t13(tower("L1-L5")) is None
    assert with_l6(tower("T9-L3")) is None
    assert with_l6(tower("L1-L6")) is None


def test_maps_are_found_in_folders(tmp_path: Path) -> None:
    for name in ("b_seg-vert_msk.nii.gz", "a.nii.gz", "a_ct.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_maps([tmp_path])] == ["a.nii.gz", "b_seg-vert_msk.nii.gz"]


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: no such file or folder; give label maps"):
        find_maps([tmp_path / "none"])
    with pytest.raises(InputError, match="contains no label maps"):
        find_maps([tmp_path])


def test_a_map_is_loaded_onto_the_grid(tmp_path: Path) -> None:
    case = tower("T12-L3")
    path = tmp_path / "one_seg-vert_msk.nii.gz"
    write_labels(Volume(case.truth, case.affine), path)
    loaded = load_case(path)
    assert loaded.name == "one" and loaded.open_top and loaded.open_bottom
    assert [level.name for level in loaded.levels] == ["T12", "L1", "L2", "L3"]
    assert heights(loaded) == pytest.approx(heights(case))


@pytest.mark.parametrize(("levels", "extra", "message"), [("L1,L2", 0, "fewer than three"), ("L1-L3", 77, "label 77")])
def test_maps_of_no_use_are_refused(tmp_path: Path, levels: str, extra: int, message: str) -> None:
    case = tower(levels)
    array = case.truth.copy()
    array[:3] = extra
    write_labels(Volume(array, case.affine), tmp_path / "odd.nii.gz")
    with pytest.raises(InputError, match=message):
        load_case(tmp_path / "odd.nii.gz")
