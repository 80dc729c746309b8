"""What passes for HU and what does not, on images made of known parts."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from vertebral.core.errors import ReadError
from vertebral.io.ct.hounsfield import check_hounsfield, rescale, to_hounsfield, to_labels

SHAPE = (30, 30, 30)


def body(seed: int = 0) -> np.ndarray:
    """int16: 50 % air, 40 % tissue, 10 % bone, with noise."""
    rng = np.random.default_rng(seed)
    part = rng.random(SHAPE)
    hu = np.where(part < 0.5, rng.normal(-990, 15, SHAPE), rng.normal(20, 60, SHAPE))
    return np.rint(np.where(part > 0.9, rng.normal(500, 150, SHAPE), hu)).clip(-1024).astype(np.int16)


def bone_only() -> np.ndarray:
    """int16: bone in one tenth of the voxels, 0 elsewhere."""
    rng = np.random.default_rng(1)
    bone = np.minimum(200 + rng.exponential(220, SHAPE), 1900)
    return np.where(rng.random(SHAPE) < 0.1, bone, 0).astype(np.int16)


def test_int16_stays_as_it_is():
    hu = body()
    array, notes = to_hounsfield(hu.copy())
    assert array.dtype == np.int16
    assert notes == ()
    assert_array_equal(array, hu)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
def test_whole_values_become_int16(dtype):
    array, _ = to_hounsfield(body().astype(dtype))
    assert array.dtype == np.int16
    assert_array_equal(array, body())


def test_fractions_become_float32():
    array, _ = to_hounsfield(body() + 0.25)
    assert array.dtype == np.float32
    assert_array_equal(array, body() + np.float32(0.25))


@pytest.mark.parametrize("order", ["C", "F"])
def test_padding_becomes_air_with_a_note(order):
    hu = body().astype(np.float64, order=order)
    hu[:3] = -3024
    hu[3, 0, 0] = -100000
    array, notes = to_hounsfield(hu)
    assert array.dtype == np.int16
    assert (array[:3] == -1024).all()
    assert array[3, 0, 0] == -1024
    assert_array_equal(array[4:], body()[4:])
    assert notes == ("10 % of the voxels (2701) were below -1024 HU and were set to -1024",)


def test_read_only_values_are_copied():
    hu = body()
    hu[0] = -2000
    hu.setflags(write=False)
    array, _ = to_hounsfield(hu)
    assert (hu[0] == -2000).all()
    assert (array[0] == -1024).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_values_are_counted(bad):
    hu = body().astype(np.float32)
    hu[0, 0, :7] = bad
    with pytest.raises(ReadError, match=r"7 of 27000 voxels are NaN or infinite: replace them with -1024"):
        to_hounsfield(hu)


def test_bone_alone_passes_with_a_note():
    assert "0 outside bone" in to_hounsfield(bone_only())[1][0]


def test_a_crop_without_air_passes():
    rng = np.random.default_rng(2)
    hu = np.where(rng.random(SHAPE) < 0.2, rng.normal(400, 200, SHAPE), rng.normal(10, 50, SHAPE))
    assert check_hounsfield(hu.astype(np.int16)) == ()


def test_metal_passes():
    hu = body()
    hu[10, 10, :] = 30710
    assert check_hounsfield(hu) == ()


def labels() -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[5:15, 5:15, 5:15], array[15:25, 5:15, 5:15] = 20, 21
    return array


def mr() -> np.ndarray:
    """Skin, fat and marrow of a T1 image with Rician noise in the air."""
    rng = np.random.default_rng(3)
    return np.where(rng.random(SHAPE) < 0.5, rng.rayleigh(20, SHAPE), rng.normal(600, 200, SHAPE)).clip(0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (labels(), r"a label map, not a CT \(2 distinct values up to 21 in flat regions\)"),
        (labels().astype(np.int16) * 100, "a label map"),
        (labels().astype(np.float64), "a label map"),
        (np.zeros(SHAPE, np.int16), "all voxels are 0 or padding: the image is empty"),
        (np.full(SHAPE, -1024, np.int16), "the image is empty"),
        (np.full(SHAPE, -5000, np.int16), "the image is empty"),
        (np.zeros((0, 3, 3), np.int16), "no voxels"),
        (mr(), "not a CT in HU .an MR"),
        (np.rint(mr()), "not a CT in HU .an MR"),
        (np.random.default_rng(0).normal(0, 1, SHAPE), "rescaled"),
        (np.clip(body() + 1000, 0, 2000) / 2000, "from 0 to 1: a rescaled image"),
        (np.rint(np.clip(body() + 1000, 0, 2000) / 2000 * 255).astype(np.uint8), "0-1, 0-255"),
        (np.rint(np.clip(body() + 1000, 0, 2000) / 2000 * 65535), "the highest value is 65535, above 32767"),
        ((body() + 1024).astype(np.uint16), "intercept .* was not applied"),
        (np.where(body() < -980, -2000, body() + 1024), "intercept .* was not applied"),
        (np.where(body() > 700, 1250, body()) - 1024, "was the rescale intercept applied twice"),
        (body() * np.float32(10), "not in HU"),
        (np.minimum(body(), 120), "no bone: the highest value is 120"),
    ],
)
def test_what_is_not_hu(values, words):
    with pytest.raises(ReadError, match=words):
        to_hounsfield(values)


def test_rescale_by_hand():
    stored = np.array([[[0, 1, 2]]], np.uint16)
    assert rescale(stored, 1, 0) is stored
    assert_array_equal(rescale(stored, 2, -1024), [[[-1024, -1022, -1020]]])
    assert rescale(stored, 0.1, 0).dtype == np.float32


@pytest.mark.parametrize(("greatest", "dtype"), [(28, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_labels_take_the_smallest_type(greatest, dtype):
    result = to_labels(np.array([[[0.0, greatest]]]))
    assert result.dtype == dtype
    assert result.max() == greatest


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 1.5], "some values are not whole"),
        ([-1, 3], "values from -1 to 3"),
        ([0, 65536], "from 0 to 65536"),
        ([0, np.nan], "1 of 2 voxels are NaN"),
    ],
)
def test_what_is_no_label_map(values, words):
    with pytest.raises(ReadError, match=words):
        to_labels(np.array([[values]], np.float64))
