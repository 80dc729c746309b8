from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from rule_sets import undocumented
from vertebral.core.anatomy import level_named
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import GeometryError, InputError
from vertebral.core.records import Box, Instance, Spine, Vertebra
from vertebral.core.volume import Affine, Grid, Volume
from vertebral.stages.preprocess import PreprocessRules, centre_mark, prepare, prepare_labels, smoothing_sigma_mm
from vertebral.stages.restore import restore

RAW_HU = {"window_hu": (-5000.0, 5000.0), "scaling": "zscore"}
OLD_MM = np.array([0.7, 0.8, 1.2])


def hu_config(spacing_mm: float) -> PreprocessConfig:
    """A config whose output is in HU."""
    return PreprocessConfig.model_validate({"spacing_mm": spacing_mm, **RAW_HU})


def smooth_scan(shape: tuple[int, int, int] = (60, 50, 40)) -> Volume:
    x, y, z = np.indices(shape) * OLD_MM[:, None, None, None]
    return Volume(300 * np.sin(x / 6) * np.cos(y / 7) + 200 * np.sin(z / 9), np.diag([*OLD_MM, 1.0]))


def oblique(spacing_mm: tuple[float, ...], angle_deg: float = 20) -> Affine:
    affine = np.eye(4)
    euler_deg = (angle_deg, angle_deg / 2, -angle_deg / 3)
    affine[:3, :3] = Rotation.from_euler("xyz", euler_deg, degrees=True).as_matrix() * spacing_mm
    affine[:3, 3] = (5, -7, 9)
    return affine


def vertebra(name: str, occupancy: NDArray[np.float32], start: tuple[int, int, int] = (0, 0, 0)) -> Vertebra:
    i, j, k = (slice(s, s + n) for s, n in zip(start, occupancy.shape, strict=True))
    box: Box = (i, j, k)
    return Vertebra(level_named(name), 1.0, Instance(occupancy, box, np.zeros(3), (0, 0, 0), False))


@pytest.mark.parametrize("spacing_mm", [0.5, 1.0, 2.5])
def test_agrees_with_scipy(spacing_mm: float) -> None:
    scan = smooth_scan()
    ours = prepare(scan, hu_config(spacing_mm)).volume
    sigma_voxels = [smoothing_sigma_mm(old, spacing_mm) / old for old in OLD_MM]
    smooth = ndimage.gaussian_filter(scan.array, sigma_voxels, mode="nearest")
    theirs = ndimage.affine_transform(smooth, spacing_mm / OLD_MM, output_shape=ours.array.shape, mode="mirror")
    inside = tuple(slice(0, int((n - 1) * old / spacing_mm) + 1) for n, old in zip(smooth.shape, OLD_MM, strict=True))
    assert np.abs(ours.array - theirs)[inside].max() < 0.05


def test_a_smooth_image_keeps_its_values_between_the_voxels() -> None:
    ours = prepare(smooth_scan(), hu_config(0.5)).volume
    x, y, z = np.indices(ours.array.shape) * 0.5
    truth = 300 * np.sin(x / 6) * np.cos(y / 7) + 200 * np.sin(z / 9)
    assert np.abs(ours.array - truth)[10:-10, 10:-10, 10:-10].max() < 0.5


def test_coarser_voxels_do_not_alias_noise() -> None:
    """Noise of 100 HU: a voxel of 2.5 mm spans 15.6 voxels of 1 mm, so an average would leave 25 HU."""
    noise = np.random.default_rng(0).normal(0, 100, (60, 60, 60)).astype(np.float32)
    ours = prepare(Volume(noise, np.eye(4)), hu_config(2.5)).volume.array
    assert ours[2:-2, 2:-2, 2:-2].std() < 30


def test_sigma_by_hand() -> None:
    assert smoothing_sigma_mm(1, 1) == smoothing_sigma_mm(2, 1) == 0
    assert smoothing_sigma_mm(3, 5) == pytest.approx(4 / 2.3548, rel=1e-4)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.float64])
def test_equal_spacing_is_exact(dtype: type) -> None:
    hu: NDArray[Any] = np.random.default_rng(0).integers(0, 1000, (7, 8, 9)).astype(dtype)
    before = hu.copy()
    prepared = prepare(Volume(hu, np.diag([1.0000001, 1, 1, 1])), hu_config(1.0))
    assert np.array_equal(prepared.volume.array, hu)
    assert np.array_equal(hu, before)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SLP", "PIR"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_orientation_and_memory_layout_do_not_matter(axcodes: str, order: str) -> None:
    scan = Volume(smooth_scan((20, 18, 16)).array.astype(np.int16), oblique((0.7, 0.8, 1.2)))
    turned = scan.reoriented(axcodes)
    turned = Volume(np.array(turned.array, order=order), turned.affine)  # type: ignore[call-overload]
    expected, ours = prepare(scan, hu_config(1.0)), prepare(turned, hu_config(1.0))
    assert ours.volume.grid.axcodes == "RAS"
    assert ours.volume.grid.matches(expected.volume.grid)
    assert np.allclose(ours.volume.array, expected.volume.array, atol=1e-2)
    assert ours.source.matches(turned.grid)
    assert ours.volume.array.flags.c_contiguous
    assert ours.volume.array.dtype == np.float32


def test_scaling_by_hand() -> None:
    hu = np.array([-3000, -100, 450, 1000, 4000], np.int16).reshape(5, 1, 1)
    unit = prepare(Volume(hu, np.eye(4)), PreprocessConfig())
    assert unit.volume.array.ravel().tolist() == [0, 0, 0.5, 1, 1]
    config = PreprocessConfig(scaling="zscore", mean_hu=200, std_hu=50)
    assert prepare(Volume(hu, np.eye(4)), config).volume.array.ravel().tolist() == [-6, -6, 5, 16, 16]


def test_metal_does_not_darken_its_surroundings() -> None:
    hu = np.zeros((21, 21, 21), np.int16)
    hu[10, 10, 10] = 30000
    assert prepare(Volume(hu, np.eye(4)), hu_config(0.5)).volume.array.min() > -0.25 * 3071


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 30, 2), (3, 2, 1)])
def test_thin_scans(shape: tuple[int, int, int]) -> None:
    for spacing_mm in (0.4, 3.0):
        prepared = prepare(Volume(np.full(shape, 50, np.int16), np.eye(4)), hu_config(spacing_mm))
        assert np.allclose(prepared.volume.array, 50, atol=1e-3)


@pytest.mark.parametrize("spacing_mm", [1.0, 1.5])
def test_nan_is_refused(spacing_mm: float) -> None:
    hu = np.zeros((5, 5, 5), np.float32)
    hu[2, 2, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        prepare(Volume(hu, np.eye(4)), PreprocessConfig(spacing_mm=spacing_mm))


def test_labels_take_the_nearest_voxel_on_the_grid_of_the_image() -> None:
    labels = np.array([1, 2, 3, 4, 5], np.uint8).reshape(5, 1, 1)
    coarse = prepare_labels(Volume(labels, np.eye(4)), 1.6)
    assert coarse.array.ravel().tolist() == [1, 3, 4, 5]  # at 0, 1.6, 3.2 and 4.8, held inside
    assert coarse.array.dtype == np.uint8
    flipped = prepare_labels(Volume(labels, np.diag([-0.5, 1, 1, 1])), 0.25)
    assert flipped.array.ravel().tolist() == [5, 4, 4, 3, 3, 2, 2, 1, 1]
    scan = Volume(np.zeros((9, 8, 7), np.int16), oblique((0.7, 0.8, 1.2))).reoriented("PIR")
    grid = prepare(scan, hu_config(1.0)).volume.grid
    assert prepare_labels(Volume(scan.array.astype(np.uint8), scan.affine), 1.0).grid.matches(grid)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SLP", "PIR", "ASL"])
@pytest.mark.parametrize("angle_deg", [0, 20])
def test_round_trip_at_equal_spacing_is_exact(axcodes: str, angle_deg: float) -> None:
    truth = np.random.default_rng(0).choice(np.array([0, 20, 28], np.uint8), (12, 14, 16))
    scan = Volume(truth, oblique((1, 1, 1), angle_deg)).reoriented(axcodes)
    prepared = prepare_labels(scan, 1.0)
    items = tuple(vertebra(n, (prepared.array == i).astype(np.float32)) for n, i in (("T13", 28), ("L1", 20)))
    segmentation = restore(Spine(items, prepared.grid), scan.grid)
    assert np.array_equal(segmentation.labels.array, scan.array)
    assert segmentation.labels.array.dtype == np.uint8
    assert segmentation.labels.grid.matches(scan.grid)
    assert segmentation.volume_ml["L1"] == pytest.approx(np.count_nonzero(truth == 20) / 1000)


@pytest.mark.parametrize("spacing_mm", [(0.4, 0.5, 0.8), (1, 1, 3), (2, 0.5, 1)])
def test_a_soft_ball_keeps_its_volume_and_place(spacing_mm: tuple[float, float, float]) -> None:
    shape = tuple(int(40 / s) for s in spacing_mm)
    source = Volume(np.zeros(shape, np.uint8), oblique(spacing_mm)).reoriented("SLP").grid
    grid = Volume(np.zeros(source.shape, np.uint8), source.affine).to_ras().grid.resampled(1.0)
    middle = np.array([18, 20, 19])
    offset = np.indices((27, 27, 27)) - 13
    ball = np.clip(12.5 - np.linalg.norm(offset, axis=0), 0, 1).astype(np.float32)  # 0.5 at 12 mm
    i, j, k = (int(n) for n in middle - 13)
    segmentation = restore(Spine((vertebra("L3", ball, (i, j, k)),), grid), source)
    voxels = np.argwhere(segmentation.labels.array == 22)
    assert np.allclose(source.to_world(voxels).mean(axis=0), grid.to_world(middle), atol=0.1)
    assert segmentation.volume_ml["L3"] == pytest.approx(4 / 3 * np.pi * 1.2**3, rel=0.03)


def test_the_higher_occupancy_wins_and_half_is_enough() -> None:
    def row(*values: float) -> NDArray[np.float32]:
        return np.array(values, np.float32).reshape(-1, 1, 1)

    items = (vertebra("L1", row(0.49, 0.5, 0.9, 0.6, 0)), vertebra("L2", row(0.8, 0.7, 1.0), (2, 0, 0)))
    grid = Grid((6, 1, 1), np.eye(4))
    segmentation = restore(Spine(items, grid), grid)
    assert segmentation.labels.array.ravel().tolist() == [0, 20, 20, 21, 21, 0]
    assert segmentation.volume_ml == {"L1": pytest.approx(0.002), "L2": pytest.approx(0.002)}


def test_restore_from_a_cropped_prepared_grid() -> None:
    grid = Grid((10, 10, 10), np.eye(4))
    crop = grid.cropped((slice(3, 8), slice(2, 9), slice(4, 10)))
    occupancy = np.ones((2, 2, 2), np.float32)
    labels = restore(Spine((vertebra("C2", occupancy, (1, 1, 1)),), crop), grid).labels.array
    assert np.argwhere(labels).min(axis=0).tolist() == [4, 3, 5]
    assert np.count_nonzero(labels == 2) == 8


def test_empty_spine_and_vertebra_outside() -> None:
    grid = Grid((5, 5, 5), np.eye(4))
    assert not restore(Spine((), grid), grid).labels.array.any()
    far = Grid((5, 5, 5), np.array([[1, 0, 0, 50], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    segmentation = restore(Spine((vertebra("L1", np.ones((3, 3, 3), np.float32)),), grid), far)
    assert segmentation.volume_ml == {"L1": 0}


def test_restore_refuses_a_rotated_grid() -> None:
    with pytest.raises(GeometryError, match="grid of the scan"):
        restore(Spine((), Grid((50, 50, 50), np.eye(4))), Grid((50, 50, 50), oblique((1, 1, 1), 5)))


def test_the_mark_is_a_gaussian_around_the_middle() -> None:
    """8 mm from the middle, one standard deviation, it is exp(-1/2)."""
    mark = centre_mark((9, 11, 13), 2.0)
    assert mark.shape == (9, 11, 13) and mark.dtype == np.float32
    assert mark[4, 5, 6] == 1 and mark.argmax() == np.ravel_multi_index((4, 5, 6), mark.shape)
    assert mark[0, 5, 6] == pytest.approx(np.exp(-0.5))
    assert mark[4, 1, 6] == mark[4, 5, 2] == pytest.approx(np.exp(-0.5))


def test_every_rule_has_a_unit_and_a_source() -> None:
    assert undocumented(PreprocessRules) == []
