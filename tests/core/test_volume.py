from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vertebral.core.errors import GeometryError
from vertebral.core.volume import Affine, Grid, Volume

ORIENTATIONS = [
    "".join(letters)
    for pairs in permutations(("LR", "PA", "IS"))
    for letters in product(*pairs)
]  # fmt: skip

angles_deg = st.floats(-180, 180)
spacings_mm = st.tuples(*[st.floats(0.2, 6)] * 3)
points_mm = st.tuples(*[st.floats(-500, 500)] * 3)


def affine_of(spacing_mm: tuple[float, ...], euler_deg: tuple[float, ...], origin_mm: tuple[float, ...]) -> Affine:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", euler_deg, degrees=True).as_matrix() * spacing_mm
    affine[:3, 3] = origin_mm
    return affine


def numbered(shape: tuple[int, int, int], affine: Affine) -> Volume:
    return Volume(np.arange(np.prod(shape)).reshape(shape), affine)


def positions_by_value(volume: Volume) -> np.ndarray:
    """World position (voxels, 3) of each value, in the order of the values."""
    voxels = np.indices(volume.array.shape).reshape(3, -1).T
    return volume.grid.to_world(voxels)[np.argsort(volume.array.ravel())]


@given(spacings_mm, st.tuples(angles_deg, angles_deg, angles_deg), points_mm, points_mm)
@settings(max_examples=50, deadline=None)
def test_to_voxel_is_the_inverse_of_to_world(
    spacing_mm: tuple[float, ...],
    euler_deg: tuple[float, ...],
    origin_mm: tuple[float, ...],
    point_mm: tuple[float, ...],
) -> None:
    grid = Grid((4, 5, 6), affine_of(spacing_mm, euler_deg, origin_mm))
    assert np.allclose(grid.to_world(grid.to_voxel(np.array(point_mm))), point_mm, atol=1e-8)
    assert np.allclose(grid.spacing_mm, spacing_mm)


def test_to_world_by_hand() -> None:
    grid = Grid((10, 10, 10), np.array([[-2.0, 0, 0, 5], [0, 3, 0, 0], [0, 0, 1, -1], [0, 0, 0, 1]]))
    assert grid.to_world(np.array([1, 2, 3])).tolist() == [3, 6, 2]
    assert grid.axcodes == "LAS"
    assert grid.spacing_mm == (2, 3, 1)


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_reoriented_keeps_the_world_position_of_every_voxel(axcodes: str) -> None:
    assert len(set(ORIENTATIONS)) == 48
    volume = numbered((2, 3, 4), affine_of((0.5, 1, 2), (10, -15, 20), (7, -8, 9)))
    turned = volume.reoriented(axcodes)
    assert turned.grid.axcodes == axcodes
    assert np.allclose(positions_by_value(turned), positions_by_value(volume))
    assert turned.to_ras().grid.matches(volume.grid)
    assert np.array_equal(turned.to_ras().array, volume.array)


@given(st.tuples(angles_deg, angles_deg, angles_deg))
@settings(max_examples=50, deadline=None)
def test_to_ras_finds_the_closest_axes_of_any_oblique_grid(euler_deg: tuple[float, ...]) -> None:
    volume = numbered((2, 3, 4), affine_of((1, 2, 3), euler_deg, (0, 0, 0)))
    ras = volume.to_ras()
    assert ras.grid.axcodes == "RAS"
    assert sorted(ras.grid.world_axes) == [0, 1, 2]
    assert np.allclose(positions_by_value(ras), positions_by_value(volume))


@pytest.mark.parametrize("axcodes", ["", "RA", "RRS", "RLS", "XYZ", "RASS"])
def test_reoriented_refuses_what_is_no_orientation(axcodes: str) -> None:
    with pytest.raises(GeometryError, match="orientation"):
        numbered((2, 2, 2), np.eye(4)).reoriented(axcodes)


@given(spacings_mm, st.floats(0.3, 4), st.tuples(*[st.integers(1, 40)] * 3))
@settings(max_examples=100, deadline=None)
def test_resampled_keeps_the_first_voxel_and_covers_the_last(
    spacing_mm: tuple[float, ...], new_mm: float, shape: tuple[int, int, int]
) -> None:
    grid = Grid(shape, affine_of(spacing_mm, (5, 6, 7), (1, 2, 3)))
    new = grid.resampled(new_mm)
    assert np.allclose(new.spacing_mm, new_mm)
    assert np.allclose(new.affine[:3, 3], grid.affine[:3, 3])
    last = new.to_voxel(grid.to_world(np.array(shape) - 1))
    assert (last <= np.array(new.shape) - 1 + 2e-3).all()
    assert (last > np.array(new.shape) - 2).all()


def test_resampled_by_hand() -> None:
    assert Grid((11, 4, 1), np.diag([0.5, 1, 3, 1])).resampled(1.0).shape == (6, 4, 1)
    assert Grid((12, 4, 2), np.diag([0.5, 1, 3, 1])).resampled(1.0).shape == (7, 4, 4)


def test_resampled_ignores_the_rounding_of_single_precision_headers() -> None:
    assert Grid((600, 600, 600), np.diag([1.0000001, 0.9999999, 1.000001, 1])).resampled(1.0).shape == (600, 600, 600)


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.array([[1, 0.05, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "right angles"),
        (np.diag([1, np.nan, 1, 1]), "finite"),
        (np.diag([1, 1, np.inf, 1]), "finite"),
        (np.diag([1.0, 0, 1, 1]), "spacing"),
        (np.diag([1.0, 1, 1, 2]), "last row"),
        (np.eye(3), "4x4"),
    ],
)
def test_unusable_affines_are_refused(affine: Affine, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        Grid((2, 2, 2), affine)


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 2, 2), (2, 0, 2)])
def test_unusable_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="three axes"):
        Volume(np.zeros(shape), np.eye(4))


def test_a_tiny_shear_from_rounding_is_accepted() -> None:
    affine = np.eye(4)
    affine[0, 1] = np.sin(np.deg2rad(0.3))
    np.testing.assert_array_equal(Grid((2, 2, 2), affine).affine, affine)


def test_matches_compares_shape_and_corners() -> None:
    grid = Grid((100, 100, 100), np.eye(4))
    stretched = Grid((100, 100, 100), np.diag([1.001, 1, 1, 1]))
    moved = Grid((100, 100, 100), affine_of((1, 1, 1), (0, 0, 0), (0.005, 0, 0)))
    assert grid.matches(grid)
    assert grid.matches(moved)
    assert not grid.matches(stretched)
    assert grid.matches(stretched, tolerance_mm=0.2)
    assert not grid.matches(Grid((100, 100, 99), np.eye(4)))


def test_cropped_keeps_the_world_position() -> None:
    volume = numbered((5, 6, 7), affine_of((1, 2, 3), (20, 30, 40), (1, 2, 3)))
    crop = volume.cropped((slice(1, 3), slice(2, 6), slice(0, 7)))
    assert crop.array.shape == crop.grid.shape == (2, 4, 7)
    value = crop.array[1, 2, 3]
    voxel = np.argwhere(volume.array == value)[0]
    assert np.allclose(crop.grid.to_world(np.array([1, 2, 3])), volume.grid.to_world(voxel))


def test_the_affine_cannot_be_changed_from_outside() -> None:
    affine = np.eye(4)
    volume = Volume(np.zeros((2, 2, 2)), affine)
    affine[0, 3] = 5
    assert volume.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 3] = 1
