"""Bodies of blocks at 2 mm: every centre can be worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vertebral.anatomy import BY_NAME
from vertebral.data.bodies import Body, load_body, place_in_body, with_cortex
from vertebral.data.tissues import TISSUE_ID
from vertebral.errors import ReadError
from vertebral.io.write import write_labels
from vertebral.volume import Volume

MM = 2.0
FAT, MUSCLE, BONE = TISSUE_ID["fat"], TISSUE_ID["muscle"], TISSUE_ID["vertebra_interior"]
# From head to tail.
LUMBAR = ("T12", "L1", "L2", "L3", "L4", "L5")


def verse_id(name: str) -> int:
    return BY_NAME[name].verse_id


def column(
    levels: tuple[str, ...],
    shape: tuple[int, int, int],
    centre: tuple[int, int],
    half: int,
    top: int,
    step: int = 8,
    height: int = 5,
) -> NDArray[np.uint8]:
    """Cubes (2 `half` + 1 wide, `height` high), one level below the other; the first one's upper voxel is `top`."""
    labels = np.zeros(shape, np.uint8)
    i, j = centre
    for number, name in enumerate(levels):
        low = top - number * step - height + 1
        labels[i - half : i + half + 1, j - half : j + half + 1, max(0, low) : low + height] = verse_id(name)
    return labels


def block_body() -> Body:
    """T12 to sacrum, 16 mm apart, in a box of fat in air. Its T12 is centred at (0, 0, 100) mm."""
    labels = column((*LUMBAR, "sacrum"), (31, 25, 64), (15, 12), 4, 60)
    tissue = np.zeros(labels.shape, np.uint8)
    tissue[2:-2, 2:-2] = FAT
    tissue[labels > 0] = BONE
    affine = np.diag([MM, MM, MM, 1.0])
    affine[:3, 3] = np.array([0, 0, 100]) - MM * np.array([15, 12, 58])
    return Body(tissue, labels, MM, affine)


def subject_of(
    levels: tuple[str, ...], top: int = 60, shift_mm: tuple[float, float, float] = (0, 0, 0), half: int = 3
) -> Volume:
    """A vertebra-only map whose first level is centred at `shift_mm`, on a grid of its own, in LPS order."""
    labels = column(levels, (21, 21, 64), (10, 10), half, top)
    affine = np.diag([MM, MM, MM, 1.0])
    affine[:3, 3] = np.array(shift_mm) - MM * np.array([10, 10, top - 2])
    return Volume(labels, affine).reoriented("LPS")


def centre_mm(body: Body, name: str) -> NDArray[np.float64]:
    voxels = np.argwhere(body.labels == verse_id(name))
    assert len(voxels), f"{name} is not in the body"
    return np.asarray(body.affine[:3, :3] @ voxels.mean(0) + body.affine[:3, 3])


@pytest.fixture(scope="module")
def placed() -> Body:
    """L1 to L4 of a subject at x 40, y -30 mm, in the block body."""
    return place_in_body(subject_of(("L1", "L2", "L3", "L4"), shift_mm=(40, -30, 500)), block_body())


def test_the_subjects_vertebrae_lie_where_the_subject_has_them(placed: Body) -> None:
    for number, name in enumerate(("L1", "L2", "L3", "L4")):
        assert centre_mm(placed, name) == pytest.approx([40, -30, 500 - 16 * number], abs=0.4)


def test_the_subjects_voxels_replace_the_bodys(placed: Body) -> None:
    """The body's blocks are 9 voxels wide, the subject's 7: what was wider must be gone."""
    for name in ("L1", "L2", "L3", "L4"):
        voxels = np.argwhere(placed.labels == verse_id(name))
        assert (np.ptp(voxels, axis=0) + 1).tolist() == [7, 7, 5]
        # Smoothing by half a voxel takes the corners and little else.
        assert len(voxels) >= 0.9 * 7 * 7 * 5
        assert (placed.tissue[placed.labels == verse_id(name)] == BONE).all()


def test_levels_that_the_subject_lacks_stay_the_bodys_own(placed: Body) -> None:
    for name, z in (("T12", 516), ("L5", 436), ("sacrum", 420)):
        assert centre_mm(placed, name) == pytest.approx([40, -30, z], abs=MM)
        assert np.count_nonzero(placed.labels == verse_id(name)) == 9 * 9 * 5


def test_what_the_bodys_vertebrae_leave_free_becomes_disc_in_front_and_muscle_behind(placed: Body) -> None:
    i, j, k = np.rint((np.array([40, -30, 492]) - placed.affine[:3, 3]) / MM).astype(int)
    assert placed.labels[i, j, k] == 0
    assert placed.tissue[i, j + 1, k] == TISSUE_ID["disc"]
    assert placed.tissue[i, j - 1, k] == MUSCLE
    assert not (placed.tissue[placed.labels == 0] == BONE).any()


def test_outside_the_body_is_air(placed: Body) -> None:
    assert placed.tissue[0].max() == 0 and placed.tissue[-1].max() == 0
    assert placed.labels[placed.tissue == 0].max() == 0


def test_an_oblique_subject_lies_where_its_affine_says() -> None:
    """The same spine with its array turned by 10 degrees about the left-right axis, the affine turned back."""
    upright = subject_of(("L1", "L2", "L3", "L4"), shift_mm=(0, 0, 500)).to_ras()
    turn = np.eye(4)
    angle = np.deg2rad(10)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    body = place_in_body(Volume(upright.array, turn @ upright.affine), block_body())
    for number, name in enumerate(("L1", "L2", "L3", "L4")):
        expected = turn[:3, :3] @ [0, 0, 500 - 16 * number]
        assert centre_mm(body, name) == pytest.approx(expected, abs=MM / 4)


def test_cut_levels_of_the_subject_are_dropped() -> None:
    """L1 reaches the subject's first axial slice; the body's own L1 is kept, at its place above L2."""
    cut = subject_of(("L1", "L2", "L3"), top=63, shift_mm=(0, 0, 500))
    body = place_in_body(cut, block_body())
    assert centre_mm(body, "L1") == pytest.approx([0, 0, 500], abs=MM)
    assert np.count_nonzero(body.labels == verse_id("L1")) == 9 * 9 * 5
    assert centre_mm(body, "L2") == pytest.approx([0, 0, 484], abs=0.4)
    assert np.ptp(np.argwhere(body.labels == verse_id("L2"))[:, 0]) + 1 == 7


def test_l6_pushes_the_sacrum_down() -> None:
    """T12 to L6 are 96 mm where the body has 80 from T12 to L5: all is 1.2 times as large, the sacrum 19.2 below L6."""
    body = place_in_body(subject_of((*LUMBAR, "L6"), shift_mm=(0, 0, 500)), block_body())
    for number, name in enumerate((*LUMBAR, "L6")):
        assert centre_mm(body, name) == pytest.approx([0, 0, 500 - 16 * number], abs=MM / 2)
    assert centre_mm(body, "sacrum") == pytest.approx([0, 0, 500 - 96 - 19.2], abs=1.0)
    assert centre_mm(body, "sacrum")[2] < centre_mm(body, "L6")[2] < centre_mm(body, "L5")[2]


def test_t13_of_the_subject_is_kept_though_no_body_has_it() -> None:
    body = place_in_body(subject_of(("T12", "T13", "L1", "L2"), shift_mm=(0, 0, 500)), block_body())
    assert [round(float(centre_mm(body, n)[2])) for n in ("T12", "T13", "L1", "L2")] == [500, 484, 468, 452]


@pytest.mark.parametrize("levels", [("C1", "C2", "C3"), ("C7", "T1", "L3")])
def test_fewer_than_two_common_levels_are_refused(levels: tuple[str, ...]) -> None:
    with pytest.raises(ReadError, match=f"whole levels .*{levels[0]}.*two or more"):
        place_in_body(subject_of(levels), block_body())


def test_ids_that_are_no_level_are_refused() -> None:
    subject = subject_of(("L1", "L2"))
    with pytest.raises(ReadError, match=r"\[40\] are no VerSe levels"):
        place_in_body(Volume(np.where(subject.array == 20, 40, subject.array), subject.affine), block_body())


def test_cortex_is_one_voxel_thick_and_per_vertebra() -> None:
    """Two touching 5-voxel cubes: each keeps 27 inner voxels, the rest of its 125 is cortex."""
    labels = np.zeros((9, 9, 14), np.uint8)
    labels[2:7, 2:7, 2:7] = 20
    labels[2:7, 2:7, 7:12] = 21
    tissue = np.where(labels > 0, BONE, FAT).astype(np.uint8)
    made = with_cortex(Body(tissue, labels, MM, np.eye(4)))
    for value in (20, 21):
        assert np.count_nonzero(made.tissue[labels == value] == TISSUE_ID["vertebra_cortex"]) == 98
    inner = np.zeros(labels.shape, bool)
    inner[3:6, 3:6, 3:6] = inner[3:6, 3:6, 8:11] = True
    assert np.array_equal(made.tissue == BONE, inner)
    assert (made.tissue[labels == 0] == FAT).all()
    assert (tissue[labels > 0] == BONE).all(), "the input was changed"


def test_other_bones_get_their_own_cortex() -> None:
    tissue = np.zeros((5, 5, 5), np.uint8)
    tissue[1:4, 1:4, 1:4] = TISSUE_ID["bone_interior"]
    made = with_cortex(Body(tissue, np.zeros_like(tissue), MM, np.eye(4)))
    assert made.tissue[2, 2, 2] == TISSUE_ID["bone_interior"]
    assert np.count_nonzero(made.tissue == TISSUE_ID["bone_cortex"]) == 26


NAMES = {"0": "background", "5": "vertebrae_L1", "6": "vertebrae_S1", "7": "subcutaneous_fat", "8": "liver"}


def write_map(folder: Path, labels: NDArray[np.uint8], names: object, axcodes: str = "RAS") -> Path:
    path = folder / "a_labelmap.nii.gz"
    write_labels(Volume(labels, np.diag([MM, MM, MM, 1.0])).reoriented(axcodes), path)
    (folder / "a_labelmap.json").write_text(json.dumps(names))
    return path


def fat_box() -> NDArray[np.uint8]:
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[1:11, 1:11] = 7
    labels[4:8, 4:8, 6:10] = 5
    labels[4:8, 4:8, 1:4] = 6
    labels[2:4, 2:4, 2:4] = 8
    return labels


@pytest.mark.parametrize("names", [NAMES, {"labels": NAMES, "source": "here"}])
def test_a_body_is_read_by_its_names(tmp_path: Path, names: object) -> None:
    body = load_body(write_map(tmp_path, fat_box(), names, "LPI"), MM)
    assert body.labels.shape == (12, 12, 12)
    assert np.array_equal(body.affine[:3, :3], np.diag([MM] * 3))
    assert np.unique(body.labels[fat_box() == 5]).tolist() == [20]
    assert np.unique(body.labels[fat_box() == 6]).tolist() == [26]
    assert (body.tissue[fat_box() == 8] == TISSUE_ID["liver"]).all()
    assert (body.tissue[fat_box() == 7] == FAT).all()
    assert (body.tissue[fat_box() == 0] == TISSUE_ID["air"]).all(), "id 0 is air whatever its name"


def test_a_coarser_body_keeps_the_first_voxel_centre(tmp_path: Path) -> None:
    body = load_body(write_map(tmp_path, fat_box(), NAMES), 2 * MM)
    assert body.labels.shape == (7, 7, 7)
    assert np.array_equal(body.labels[:6, :6, :6] > 0, np.isin(fat_box()[::2, ::2, ::2], (5, 6)))
    assert body.affine[:3, 3].tolist() == [0, 0, 0]


def test_arms_beside_the_trunk_become_air(tmp_path: Path) -> None:
    labels = np.pad(fat_box(), ((0, 6), (0, 0), (0, 0)))
    labels[14:17, 4:8] = 7
    body = load_body(write_map(tmp_path, labels, NAMES), MM)
    spine = (labels == 5).any((0, 1)) | (labels == 6).any((0, 1))
    assert body.tissue[14:17, :, spine].max() == 0
    assert (body.tissue[14:17, 4:8][:, :, ~spine] == FAT).all()


def test_a_map_of_organs_alone_is_clothed_in_muscle_and_fat(tmp_path: Path) -> None:
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[15:25, 15:45, 15:45] = 8
    labels[35:45, 15:45, 15:45] = 8
    labels[28:32, 10:13, 18:42] = 5
    body = load_body(write_map(tmp_path, labels, NAMES), MM)
    assert (body.tissue[labels == 8] == TISSUE_ID["liver"]).all()
    row = body.tissue[:, 30, 30]
    order = [value for value, before in zip(row, [None, *row[:-1]], strict=True) if value != before]
    liver = TISSUE_ID["liver"]
    assert [int(v) for v in order] == [0, FAT, liver, MUSCLE, liver, FAT, 0]


def test_flesh_reaches_the_first_and_last_slice(tmp_path: Path) -> None:
    labels = np.zeros((60, 60, 30), np.uint8)
    labels[15:25, 15:45] = 8
    labels[35:45, 15:45] = 8
    labels[28:32, 10:13] = 5
    body = load_body(write_map(tmp_path, labels, NAMES), MM)
    assert (body.tissue[30, 30] == MUSCLE).all()
    assert (body.tissue[labels == 8] == TISSUE_ID["liver"]).all()


def test_a_body_map_without_names_is_refused(tmp_path: Path) -> None:
    path = write_map(tmp_path, fat_box(), NAMES)
    (tmp_path / "a_labelmap.json").unlink()
    with pytest.raises(ReadError, match=r"needs a_labelmap\.json beside it"):
        load_body(path, MM)


@pytest.mark.parametrize("names", [["L1"], {"one": "L1"}, {"labels": ["L1"]}, "L1"])
def test_names_of_another_form_are_refused(tmp_path: Path, names: object) -> None:
    with pytest.raises(ReadError, match=r"needs a_labelmap\.json"):
        load_body(write_map(tmp_path, fat_box(), names), MM)


def test_an_id_without_a_name_is_refused_not_taken_for_air(tmp_path: Path) -> None:
    names = {key: name for key, name in NAMES.items() if key != "8"}
    with pytest.raises(ReadError, match=r"ids \[8\] have no name"):
        load_body(write_map(tmp_path, fat_box(), names), MM)


def test_an_id_above_255_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"ids 300 .*above 255"):
        load_body(write_map(tmp_path, fat_box(), {**NAMES, "300": "spleen"}), MM)
