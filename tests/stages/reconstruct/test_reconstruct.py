from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rule_sets import undocumented
from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import GeometryError, InputError, VertebralError
from vertebral.core.mesh_checks import open_edges, split_vertices
from vertebral.core.mesh_intersections import self_intersections
from vertebral.core.records import Box, Instance, Spine, Surface, Vertebra
from vertebral.core.volume import Grid, Volume
from vertebral.stages.reconstruct import (
    RECONSTRUCT_RULES,
    ReconstructRules,
    check_surface,
    fields_of_labels,
    mesh_fields,
    reconstruct,
    surface_from_mask,
)
from vertebral.stages.reconstruct.config import MeshConfig
from vertebral.stages.reconstruct.contour import contour
from vertebral.stages.reconstruct.finishing import carved, solid_of

ALL_FACES = MeshConfig(max_error_mm=0)
L1, L2 = BY_NAME["L1"], BY_NAME["L2"]
Distance = Callable[[np.ndarray], np.ndarray]  # signed, in mm, negative inside


def sphere(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points, axis=-1) - 9


def ellipsoid(points: np.ndarray) -> np.ndarray:
    axes = np.array([12.0, 8.0, 6.0])
    near = np.linalg.norm(points / axes, axis=-1)
    return near * (near - 1) / (np.linalg.norm(points / axes**2, axis=-1) + 1e-9)


def torus(points: np.ndarray) -> np.ndarray:
    return np.hypot(np.hypot(points[..., 0], points[..., 1]) - 9, points[..., 2]) - 3.5


SHAPES: dict[str, tuple[Distance, float, int]] = {
    "sphere": (sphere, 4 / 3 * np.pi * 9**3, 2),
    "ellipsoid": (ellipsoid, 4 / 3 * np.pi * 12 * 8 * 6, 2),
    "torus": (torus, 2 * np.pi**2 * 9 * 3.5**2, 0),
}
TURN = np.linalg.qr(np.array([[2.0, 1, 0], [-1, 2, 1], [1, 0, 3]]))[0]


def grid_around_zero(shape: tuple[int, int, int], axes: np.ndarray) -> Grid:
    """A grid whose middle, less a third of a voxel, lies at 0 mm."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ (np.array(shape) / 2 - 0.33)
    return Grid(shape, affine)


def distances(shape: Distance, grid: Grid) -> np.ndarray:
    return shape(grid.to_world(np.stack(np.indices(grid.shape), axis=-1)))


def spine_of(occupancy: np.ndarray, grid: Grid, box: Box | None = None) -> Spine:
    return spine_of_many([(occupancy, box or tuple(slice(0, n) for n in grid.shape))], grid)


def spine_of_many(parts: list[tuple[np.ndarray, Box]], grid: Grid) -> Spine:
    levels = (L1, L2)
    instances = [Instance(values.astype(np.float32), box, np.zeros(2), (0, 0, 0), False) for values, box in parts]
    return Spine(tuple(Vertebra(level, 1.0, i) for level, i in zip(levels, instances, strict=False)), grid)


def assert_printable(surface: Surface, euler_number: int) -> None:
    check = check_surface(surface)
    assert check.watertight
    assert check.manifold
    assert (check.components, check.euler_number) == (1, euler_number)
    assert check.volume_ml > 0
    assert len(self_intersections(surface.vertices_mm, surface.faces)) == 0
    assert (surface.vertices_mm == surface.vertices_mm.astype(np.float32)).all()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", list(SHAPES))
def test_soft_occupancy_of_known_shapes(name: str, turned: bool) -> None:
    shape, volume_mm3, euler_number = SHAPES[name]
    grid = grid_around_zero((36, 36, 36), TURN if turned else np.eye(3))
    occupancy = 1 / (1 + np.exp(np.clip(2.5 * distances(shape, grid), -50, 50)))
    (surface,) = reconstruct(spine_of(occupancy, grid), ALL_FACES)
    assert_printable(surface, euler_number)
    error_mm = shape(surface.vertices_mm)
    assert check_surface(surface).volume_ml * 1000 == pytest.approx(volume_mm3, rel=0.012)
    assert np.sqrt((error_mm**2).mean()) < 0.05
    assert np.abs(error_mm).max() < 0.15


@pytest.mark.parametrize("name", list(SHAPES))
def test_masks_of_known_shapes(name: str) -> None:
    shape, volume_mm3, euler_number = SHAPES[name]
    grid = grid_around_zero((36, 36, 36), TURN)
    surface = surface_from_mask(distances(shape, grid) < 0, grid.affine, L2)
    assert surface.level is L2
    assert_printable(surface, euler_number)
    error_mm = shape(surface.vertices_mm)
    assert check_surface(surface).volume_ml * 1000 == pytest.approx(volume_mm3, rel=0.01)
    assert np.sqrt((error_mm**2).mean()) < 0.13
    assert np.abs(error_mm).max() < 0.6


@pytest.mark.parametrize("axes", [np.diag([1.0, 1.0, 2.0]), np.diag([-1.0, 1.0, 2.0]), -TURN @ np.diag([1, 0.7, 1.5])])
def test_anisotropic_and_left_handed_grids_keep_size_and_place(axes: np.ndarray) -> None:
    grid = grid_around_zero((36, 44, 30), axes)
    mask = distances(sphere, grid) < 0
    surface = surface_from_mask(mask, grid.affine, L1)
    assert_printable(surface, 2)
    voxel_mm3 = abs(np.linalg.det(axes))
    assert check_surface(surface).volume_ml * 1000 == pytest.approx(mask.sum() * voxel_mm3, rel=1e-3)
    assert np.abs(sphere(surface.vertices_mm)).max() < max(grid.spacing_mm) / 2 + 0.2


def test_the_box_places_the_surface_on_the_spine_grid() -> None:
    grid = grid_around_zero((40, 40, 40), np.eye(3))
    occupancy = (1 / (1 + np.exp(2.5 * np.clip(distances(sphere, grid), -10, 10)))).astype(np.float32)
    box = (slice(6, 36), slice(8, 35), slice(7, 34))
    (whole,), (cropped,) = reconstruct(spine_of(occupancy, grid)), reconstruct(spine_of(occupancy[box], grid, box))
    assert np.abs(sphere(cropped.vertices_mm)).max() < 0.15
    assert check_surface(cropped).volume_ml == pytest.approx(check_surface(whole).volume_ml, rel=1e-3)


def test_a_mask_that_fills_its_array_is_closed_at_the_border() -> None:
    surface = surface_from_mask(np.ones((12, 10, 14), bool), np.eye(4), L1)
    assert_printable(surface, 2)
    assert check_surface(surface).volume_ml == pytest.approx(1.680, rel=1e-3)
    assert np.abs(surface.vertices_mm.min(axis=0) + 0.5).max() < 0.5  # half a voxel


def test_a_cut_occupancy_is_closed_at_the_border_of_its_box() -> None:
    grid = grid_around_zero((36, 36, 36), np.eye(3))
    occupancy = 1 / (1 + np.exp(2.5 * np.clip(distances(sphere, grid), -10, 10)))
    box = (slice(0, 36), slice(0, 36), slice(18, 36))
    (surface,) = reconstruct(spine_of(occupancy[box], grid, box))
    assert_printable(surface, 2)
    assert surface.vertices_mm[:, 2].min() == pytest.approx(grid.to_world(np.array([0, 0, 17.5]))[2], abs=0.3)


def test_islands_are_dropped_and_cavities_filled() -> None:
    grid = grid_around_zero((36, 36, 36), np.eye(3))
    solid = distances(sphere, grid) < 0
    mask = solid.copy()
    mask[1:3, 1:3, 1:3] = True
    mask[17:20, 17:20, 17:20] = False
    surface = surface_from_mask(mask, grid.affine, L1)
    assert_printable(surface, 2)
    assert check_surface(surface).volume_ml * 1000 == pytest.approx(solid.sum(), rel=1e-3)


def test_an_island_on_a_corner_of_the_bone_is_dropped() -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[2:8, 2:8, 2:8] = True
    mask[8, 8, 8] = True
    surface = surface_from_mask(mask, np.eye(4), L1)
    assert_printable(surface, 2)
    assert surface.vertices_mm.max() < 8.1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_no_pair_of_neighbouring_cells_makes_an_edge_with_four_faces(axis: int) -> None:
    # Such an edge lies in the face between two cells and needs four contour points there: opposite corners inside.
    outer = ((np.arange(256)[:, None] >> np.arange(8)) & 1).reshape(256, 2, 2, 2)
    shared = np.broadcast_to(np.eye(2, dtype=int), (256, 2, 2))
    pairs = np.stack([outer[..., 0], shared, outer[..., 1]], axis=-1)
    pairs = np.concatenate([pairs, np.stack([outer[..., 0], 1 - shared, outer[..., 1]], axis=-1)])
    blocks = np.pad(np.moveaxis(pairs, 3, axis + 1), ((0, 0), (1, 1), (1, 1), (1, 1)))
    faces = contour(blocks.reshape(-1, *blocks.shape[2:]).astype(np.float32))[1]
    assert len(faces) > 10_000
    assert len(open_edges(faces)) == 0
    assert len(split_vertices(faces)) == 0


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, st.tuples(*[st.integers(1, 6)] * 3), elements=st.floats(0, 1, width=32)))
def test_any_occupancy_with_an_inside_gives_one_closed_manifold_surface(occupancy: np.ndarray) -> None:
    occupancy.flat[0] = 0.5
    grid = Grid(occupancy.shape, np.diag([0.8, -0.8, 0.8, 1]))
    (surface,) = reconstruct(spine_of(occupancy, grid))
    check = check_surface(surface)
    assert check.manifold
    assert check.components == 1
    assert check.volume_ml > 0


def test_touching_neighbours_do_not_overlap() -> None:
    grid = Grid((24, 16, 30), np.eye(4))
    lower, upper = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    lower[4:20, 4:12, 3:15] = True
    upper[4:20, 4:12, 15:27] = True
    boxes = ((slice(0, 24), slice(0, 16), slice(0, 17)), (slice(0, 24), slice(0, 16), slice(13, 30)))
    first, second = reconstruct(spine_of_many([(upper[boxes[1]], boxes[1]), (lower[boxes[0]], boxes[0])], grid))
    assert (first.level, second.level) == (L1, L2)
    assert_printable(first, 2)
    assert_printable(second, 2)
    assert 0.05 < first.vertices_mm[:, 2].min() - second.vertices_mm[:, 2].max() < 0.6
    assert check_surface(first).volume_ml == pytest.approx(upper.sum() / 1000, rel=0.02)


def test_neighbours_apart_are_left_alone() -> None:
    grid = grid_around_zero((36, 36, 36), np.eye(3))
    occupancy = (distances(sphere, grid) < 0).astype(np.float32)
    far = Grid((36, 36, 80), grid.affine)
    boxes = [tuple(slice(a, a + 36) for a in start) for start in ((0, 0, 0), (0, 0, 44))]
    first, second = reconstruct(spine_of_many([(occupancy, boxes[0]), (occupancy, boxes[1])], far), ALL_FACES)
    assert second.vertices_mm - first.vertices_mm == pytest.approx(np.tile([0, 0, 44.0], (len(first.vertices_mm), 1)))


def test_an_empty_spine_has_no_surfaces() -> None:
    assert reconstruct(Spine((), Grid((4, 4, 4), np.eye(4)))) == ()


def test_an_empty_occupancy_is_refused_by_name() -> None:
    grid = Grid((4, 4, 4), np.eye(4))
    with pytest.raises(VertebralError, match=r"L1: it has no voxels \(highest probability 0.400, 0.5 is needed\)"):
        reconstruct(spine_of(np.full(grid.shape, 0.4), grid))
    with pytest.raises(VertebralError, match="L2: it has no voxels"):
        surface_from_mask(np.zeros((4, 4, 4), bool), np.eye(4), L2)


def test_values_that_are_not_finite_are_refused() -> None:
    occupancy = np.ones((4, 4, 4))
    occupancy[1, 2, 3] = np.nan
    with pytest.raises(
        VertebralError, match="L1: its probabilities contain NaN or infinite values; run `vertebral run` again"
    ):
        reconstruct(spine_of(occupancy, Grid((4, 4, 4), np.eye(4))))


def test_voxels_too_flat_for_a_triangle_are_refused() -> None:
    with pytest.raises(VertebralError, match="L1: nothing is left of it"):
        surface_from_mask(np.ones((1, 1, 1), bool), np.diag([2e-6, 2e-6, 2e-6, 1]), L1)


def test_an_affine_without_extent_is_refused() -> None:
    with pytest.raises(GeometryError):
        surface_from_mask(np.ones((3, 3, 3), bool), np.zeros((4, 4)), L1)


def test_a_flat_mask_is_refused() -> None:
    with pytest.raises(GeometryError, match="three axes"):
        surface_from_mask(np.ones((3, 3), bool), np.eye(4), L1)


def test_thick_slices_give_a_smooth_sphere_of_the_right_size() -> None:
    grid = grid_around_zero((60, 60, 14), np.diag([0.7, 0.7, 3.0]))
    mask = distances(lambda points: np.linalg.norm(points, axis=-1) - 14, grid) < 0
    surface = surface_from_mask(mask, grid.affine, L1)
    assert_printable(surface, 2)
    error_mm = np.linalg.norm(surface.vertices_mm, axis=1) - 14
    assert check_surface(surface).volume_ml * 1000 == pytest.approx(mask.sum() * 0.7 * 0.7 * 3, rel=0.01)
    assert np.sqrt((error_mm**2).mean()) < 0.2
    assert np.abs(error_mm).max() < 1.5  # half a slice


def test_decimated_surfaces_stay_within_the_bound_and_keep_the_volume() -> None:
    grid = grid_around_zero((36, 36, 36), TURN)
    mask = distances(sphere, grid) < 0
    parts = [(mask.astype(np.float32), tuple(slice(0, n) for n in grid.shape))]
    (all_faces,) = reconstruct(spine_of_many(parts, grid), ALL_FACES)
    (fewer,) = reconstruct(spine_of_many(parts, grid), MeshConfig(max_error_mm=0.2))
    assert_printable(fewer, 2)
    assert len(fewer.faces) < len(all_faces.faces) / 2
    assert check_surface(fewer).volume_ml == pytest.approx(check_surface(all_faces).volume_ml, rel=0.01)


@pytest.mark.parametrize("clearance_mm", [0.0, 0.1, 0.5])
def test_a_ball_in_a_socket_keeps_its_clearance(clearance_mm: float) -> None:
    grid = grid_around_zero((30, 30, 34), np.eye(3))
    ball = distances(lambda points: np.linalg.norm(points - (0, 0, 2), axis=-1) - 9, grid) < 0
    block = distances(lambda points: np.abs(points - (0, 0, -6)).max(axis=-1) - 9, grid) < 0
    labels = np.where(ball, 20, np.where(block, 21, 0)).astype(np.uint8)
    config = MeshConfig(clearance_mm=clearance_mm)
    made = mesh_fields(fields_of_labels(Volume(labels, grid.affine)), config)
    assert [surface.level for surface in made.surfaces] == [L1, L2]
    for surface in made.surfaces:
        assert_printable(surface, 2)
    (gap,) = made.gaps
    assert (gap.first, gap.second) == (L1, L2)
    assert max(clearance_mm, 1e-3) <= gap.mm < clearance_mm + 0.6
    low = made.surfaces[0].vertices_mm[:, 2].min()
    assert low < made.surfaces[1].vertices_mm[:, 2].max() - 2  # still a socket


def test_smooth_zero_is_the_stairs() -> None:
    mask = np.zeros((14, 14, 14), bool)
    mask[2:12, 2:12, 2:7] = mask[2:12, 2:7, 7:12] = True
    field = fields_of_labels(Volume((mask * 20).astype(np.uint8), np.eye(4)))
    stairs, smooth = (mesh_fields(field, MeshConfig(smooth=share, max_error_mm=0)).surfaces[0] for share in (0.0, 1.0))
    assert (stairs.faces == smooth.faces).all()
    steps = np.unique(np.round(stairs.vertices_mm[:, 2], 1))
    assert len(steps) < len(np.unique(np.round(smooth.vertices_mm[:, 2], 1)))
    assert 0.05 < np.abs(stairs.vertices_mm - smooth.vertices_mm).max() < 1


def test_a_target_edge_sets_the_size_of_the_triangles() -> None:
    grid = grid_around_zero((36, 36, 36), np.eye(3))
    labels = Volume((20 * (distances(sphere, grid) < 0)).astype(np.uint8), grid.affine)
    for edge_mm in (0.8, 2.0):
        (surface,) = mesh_fields(fields_of_labels(labels, spacing_mm=edge_mm), ALL_FACES).surfaces
        assert_printable(surface, 2)
        sides = surface.vertices_mm[surface.faces] - surface.vertices_mm[np.roll(surface.faces, 1, axis=1)]
        assert np.linalg.norm(sides, axis=2).mean() == pytest.approx(edge_mm, rel=0.25)


def test_labels_come_from_head_to_tail_and_only_those_asked_for() -> None:
    array = np.zeros((8, 8, 20), np.uint8)
    for start, value in ((2, 20), (8, 28), (14, 19)):  # L1, T13, T12
        array[2:6, 2:6, start : start + 4] = value
    labels = Volume(array, np.eye(4))
    assert [field.level.name for field in fields_of_labels(labels)] == ["T12", "T13", "L1"]
    assert [field.level.name for field in fields_of_labels(labels, [BY_NAME["T13"]])] == ["T13"]
    with pytest.raises(InputError, match="it has T12, T13, L1"):
        fields_of_labels(labels, [L2])
    with pytest.raises(InputError, match="no label at all"):
        fields_of_labels(Volume(np.zeros((4, 4, 4), np.uint8), np.eye(4)))
    with pytest.raises(InputError, match="label 77 is not a VerSe id"):
        fields_of_labels(Volume(np.full((4, 4, 4), 77, np.uint8), np.eye(4)))


def test_loose_pieces_are_counted() -> None:
    array = np.zeros((16, 8, 8), np.uint8)
    array[1:7, 1:7, 1:7] = 20
    array[10:12, 2:4, 2:4] = 20
    (field,) = fields_of_labels(Volume(array, np.diag([1, 1, 1.5, 1])))
    assert (field.volume_mm3, field.dropped_mm3) == pytest.approx((216 * 1.5, 8 * 1.5))


def test_entangled_neighbours_are_carved() -> None:
    grid = Grid((30, 30, 30), np.eye(4))
    ball = np.linalg.norm(np.indices(grid.shape).T - [10.0, 14, 14], axis=-1).T < 7
    other = np.linalg.norm(np.indices(grid.shape).T - [18.0, 14, 14], axis=-1).T < 7
    first, second = (surface_from_mask(mask, grid.affine, L1) for mask in (ball, other))
    left = carved(first, second, 0.1, RECONSTRUCT_RULES)
    assert left is not None
    assert_printable(left, 2)
    assert check_surface(left).volume_ml < check_surface(first).volume_ml
    assert 0.05 < solid_of(left).min_gap(solid_of(second), 2.0) < 0.2


def test_every_rule_has_a_unit_and_a_source() -> None:
    assert undocumented(ReconstructRules) == []


def test_a_rule_can_be_varied() -> None:
    mask = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0) < 9
    stairs = surface_from_mask(mask, np.eye(4), L1, replace(RECONSTRUCT_RULES, mask_filter=(0, 0, 0.1)))
    smooth = surface_from_mask(mask, np.eye(4), L1)
    away = [np.linalg.norm(surface.vertices_mm - 11.5, axis=1).std() for surface in (stairs, smooth)]
    assert away[0] > 1.5 * away[1]
