import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mask_surfaces import hd95_mm
from vertebral.evaluation.metrics import dice

ISOTROPIC = (1.0, 1.0, 1.0)
masks = arrays(np.bool_, (4, 3, 5))


def mask(*voxels: tuple[int, int, int], shape: tuple[int, int, int] = (12, 6, 6)) -> np.ndarray:
    array = np.zeros(shape, bool)
    for voxel in voxels:
        array[voxel] = True
    return array


def test_dice_by_hand() -> None:
    a, b, c = (0, 0, 0), (1, 0, 0), (2, 0, 0)
    assert dice(mask(a, b), mask(a, b)) == 1
    assert dice(mask(a, b), mask(b, c)) == 0.5
    assert dice(mask(a, b, c), mask(b)) == 0.5
    assert dice(mask(a), mask(c)) == 0


def test_dice_of_empty_masks() -> None:
    assert dice(mask(), mask((0, 0, 0))) == 0
    assert dice(mask((0, 0, 0)), mask()) == 0
    assert np.isnan(dice(mask(), mask()))


def test_two_voxels_two_mm_apart() -> None:
    assert hd95_mm(mask((1, 1, 1)), mask((3, 1, 1)), ISOTROPIC) == 2


@pytest.mark.parametrize(
    ("voxel", "expected_mm"), [((2, 1, 1), 2), ((1, 2, 1), 3), ((1, 1, 2), 6), ((2, 2, 2), 7), ((3, 1, 1), 4)]
)
def test_spacing_counts_along_each_axis(voxel: tuple[int, int, int], expected_mm: float) -> None:
    """2, 3 and 6 mm: the diagonal of one voxel is 7 mm."""
    assert hd95_mm(mask((1, 1, 1)), mask(voxel), (2.0, 3.0, 6.0)) == pytest.approx(expected_mm)


def test_five_per_cent_of_one_direction_may_lie_anywhere() -> None:
    """Two surface voxels 0 and 10 mm away: linear between them, the 95th percentile is 9.5 mm."""
    assert hd95_mm(mask((0, 0, 0), (10, 0, 0)), mask((0, 0, 0)), ISOTROPIC) == pytest.approx(9.5)
    far = mask(*((i, j, 0) for i in range(5) for j in range(5)), (11, 5, 5))
    near = mask(*((i, j, 0) for i in range(5) for j in range(5)))
    assert hd95_mm(far, near, ISOTROPIC) == 0


def test_a_shifted_cube() -> None:
    cube, shifted = np.zeros((2, 12, 12, 12), bool)
    cube[2:7, 2:7, 2:7] = True
    shifted[4:9, 2:7, 2:7] = True
    assert hd95_mm(cube, shifted, ISOTROPIC) == 2
    assert dice(cube, shifted) == pytest.approx(0.6)


def test_the_inside_is_no_surface() -> None:
    """A cube of 7^3 and its middle voxel: every surface voxel lies at least 3 mm from it, the corners 5.2 mm."""
    cube = np.zeros((9, 9, 9), bool)
    cube[1:8, 1:8, 1:8] = True
    expected = np.percentile([np.hypot(np.hypot(*p[:2]), p[2]) for p in np.argwhere(cube) - 4 if abs(p).max() == 3], 95)
    assert hd95_mm(cube, mask((4, 4, 4), shape=(9, 9, 9)), ISOTROPIC) == pytest.approx(expected)


def test_the_border_of_the_image_is_a_surface() -> None:
    """A mask that fills its image has no background voxel to touch."""
    full = np.ones((4, 4, 4), bool)
    assert hd95_mm(full, full, ISOTROPIC) == 0
    assert hd95_mm(full, mask((0, 0, 0), shape=(4, 4, 4)), ISOTROPIC) > 3


def test_distance_to_empty_masks() -> None:
    assert hd95_mm(mask(), mask((0, 0, 0)), ISOTROPIC) == float("inf")
    assert hd95_mm(mask((0, 0, 0)), mask(), ISOTROPIC) == float("inf")
    assert np.isnan(hd95_mm(mask(), mask(), ISOTROPIC))


@settings(deadline=None, max_examples=40)
@given(masks, masks)
def test_both_are_symmetric(first: np.ndarray, second: np.ndarray) -> None:
    spacing = (0.5, 1.0, 3.0)
    np.testing.assert_equal(dice(first, second), dice(second, first))
    np.testing.assert_equal(hd95_mm(first, second, spacing), hd95_mm(second, first, spacing))


@settings(deadline=None, max_examples=40)
@given(masks.filter(np.any))
def test_a_mask_equals_itself(first: np.ndarray) -> None:
    assert dice(first, first) == 1
    assert hd95_mm(first, first, (0.5, 1.0, 3.0)) == 0


@settings(deadline=None, max_examples=40)
@given(masks.filter(np.any), masks.filter(np.any), st.floats(0.1, 10))
def test_distance_scales_with_the_grid(first: np.ndarray, second: np.ndarray, factor: float) -> None:
    once, scaled = hd95_mm(first, second, ISOTROPIC), hd95_mm(first, second, (factor, factor, factor))
    assert scaled == pytest.approx(factor * once)
