import numpy as np
import pytest

from vertebral.core.anatomy import BY_NAME
from vertebral.core.records import Surface
from vertebral.stages.reconstruct import surface_from_mask
from vertebral.stages.reconstruct.cut import cut
from vertebral.stages.reconstruct.printing import print_check, wall_thickness_mm

CORNERS = np.array([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)])
FACES = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ]
)


def block(x: float, y: float, z: float) -> Surface:
    return Surface(BY_NAME["L1"], CORNERS * (x, y, z), FACES)


def test_a_block_worked_by_hand() -> None:
    check = print_check(block(20, 10, 2))
    assert (check.watertight, check.manifold, check.components, check.self_intersections) == (True, True, 1, 0)
    assert check.volume_ml == pytest.approx(0.4)
    assert check.area_cm2 == pytest.approx(5.2)
    assert check.size_mm == (20, 10, 2)
    assert check.overhang_share == pytest.approx(200 / 520, abs=1e-3)  # its bottom
    assert check.wall_min_mm == pytest.approx(2, abs=0.02)
    assert check.thin_share == 0
    assert print_check(block(20, 10, 1)).thin_share > 0.7


def test_walls_of_a_ball_are_its_diameter() -> None:
    ball = surface_from_mask(np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0) < 9, np.eye(4), BY_NAME["L1"])
    assert np.median(wall_thickness_mm(ball)) == pytest.approx(18, rel=0.05)
    assert print_check(ball).overhang_share == pytest.approx((1 - np.sqrt(0.5)) / 2, abs=0.02)  # a cap of 45 degrees


def test_a_cut_gives_two_closed_pieces_named_after_their_side() -> None:
    lower, upper = cut(block(20, 10, 2), "sagittal", 5.0)
    assert (lower.name, upper.name) == ("L1-left", "L1-right")
    assert [print_check(piece).volume_ml for piece in (lower, upper)] == pytest.approx([0.1, 0.3])
    assert print_check(lower).manifold
    assert lower.vertices_mm[:, 0].max() == pytest.approx(5)
    assert [piece.part for piece in cut(block(20, 10, 2), "coronal", 5.0)] == ["posterior", "anterior"]
    assert [piece.part for piece in cut(block(20, 10, 2), "axial", 1.0)] == ["inferior", "superior"]


def test_a_plane_beside_the_surface_leaves_it_whole() -> None:
    surface = block(20, 10, 2)
    assert cut(surface, "sagittal", 30.0) == (surface,)
    assert cut(surface, "sagittal", 0.001) == (surface,)
