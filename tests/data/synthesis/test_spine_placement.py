"""Vertebrae of blocks at 2 mm in a body of blocks: every centre can be worked out by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import ReadError
from vertebral.core.volume import Volume
from vertebral.data.synthesis.body_map import BodyMap
from vertebral.data.synthesis.spine_placement import place_in_body
from vertebral.data.synthesis.tissues import TISSUE_ID

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


def block_body() -> BodyMap:
    """T12 to sacrum, 16 mm apart, in a box of fat in air. Its T12 is centred at (0, 0, 100) mm."""
    labels = column((*LUMBAR, "sacrum"), (31, 25, 64), (15, 12), 4, 60)
    tissue = np.zeros(labels.shape, np.uint8)
    tissue[2:-2, 2:-2] = FAT
    tissue[labels > 0] = BONE
    affine = np.diag([MM, MM, MM, 1.0])
    affine[:3, 3] = np.array([0, 0, 100]) - MM * np.array([15, 12, 58])
    return BodyMap(tissue, labels, MM, affine)


def subject_of(
    levels: tuple[str, ...], top: int = 60, shift_mm: tuple[float, float, float] = (0, 0, 0), half: int = 3
) -> Volume:
    """A vertebra-only map whose first level is centred at `shift_mm`, on a grid of its own, in LPS order."""
    labels = column(levels, (21, 21, 64), (10, 10), half, top)
    affine = np.diag([MM, MM, MM, 1.0])
    affine[:3, 3] = np.array(shift_mm) - MM * np.array([10, 10, top - 2])
    return Volume(labels, affine).reoriented("LPS")


def centre_mm(body: BodyMap, name: str) -> NDArray[np.float64]:
    voxels = np.argwhere(body.labels == verse_id(name))
    assert len(voxels), f"{name} is not in the body"
    return np.asarray(body.affine[:3, :3] @ voxels.mean(0) + body.affine[:3, 3])


@pytest.fixture(scope="module")
def placed() -> BodyMap:
    """L1 to L4 of a subject at x 40, y -30 mm, in the block body."""
    return place_in_body(subject_of(("L1", "L2", "L3", "L4"), shift_mm=(40, -30, 500)), block_body())


def test_the_subjects_vertebrae_lie_where_the_subject_has_them(placed: BodyMap) -> None:
    for number, name in enumerate(("L1", "L2", "L3", "L4")):
        assert centre_mm(placed, name) == pytest.approx([40, -30, 500 - 16 * number], abs=0.4)


def test_the_subjects_voxels_replace_the_bodys(placed: BodyMap) -> None:
    """The body's blocks are 9 voxels wide, the subject's 7: what was wider must be gone."""
    for name in ("L1", "L2", "L3", "L4"):
        voxels = np.argwhere(placed.labels == verse_id(name))
        assert (np.ptp(voxels, axis=0) + 1).tolist() == [7, 7, 5]
        # Smoothing by half a voxel takes the corners and little else.
        assert len(voxels) >= 0.9 * 7 * 7 * 5
        assert (placed.tissue[placed.labels == verse_id(name)] == BONE).all()


def test_levels_that_the_subject_lacks_stay_the_bodys_own(placed: BodyMap) -> None:
    for name, z in (("T12", 516), ("L5", 436), ("sacrum", 420)):
        assert centre_mm(placed, name) == pytest.approx([40, -30, z], abs=MM)
        assert np.count_nonzero(placed.labels == verse_id(name)) == 9 * 9 * 5


def test_what_the_bodys_vertebrae_leave_free_becomes_disc_in_front_and_muscle_behind(placed: BodyMap) -> None:
    i, j, k = np.rint((np.array([40, -30, 492]) - placed.affine[:3, 3]) / MM).astype(int)
    assert placed.labels[i, j, k] == 0
    assert placed.tissue[i, j + 1, k] == TISSUE_ID["disc"]
    assert placed.tissue[i, j - 1, k] == MUSCLE
    assert not (placed.tissue[placed.labels == 0] == BONE).any()


def test_outside_the_body_is_air(placed: BodyMap) -> None:
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
    with pytest.raises(ReadError, match=f"complete vertebrae .*{levels[0]}.*at least two"):
        place_in_body(subject_of(levels), block_body())


def test_ids_that_are_no_level_are_refused() -> None:
    subject = subject_of(("L1", "L2"))
    with pytest.raises(ReadError, match=r"\[40\] are not VerSe ids"):
        place_in_body(Volume(np.where(subject.array == 20, 40, subject.array), subject.affine), block_body())
