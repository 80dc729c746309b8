import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebral.core.mesh_intersections import self_intersections

FLAT = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])
PAIR = np.array([[0, 1, 2], [3, 4, 5]])
CUBE = np.array([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)])
CUBE_FACES = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ]
)


def two(second: list[list[float]]) -> int:
    return len(self_intersections(np.concatenate([FLAT, np.array(second, float)]), PAIR))


def test_one_triangle_through_another() -> None:
    assert two([[1, 1, -1], [1, 1, 1], [5, 5, 1]]) == 1


@pytest.mark.parametrize(
    "second",
    [
        [[3, 3, -1], [3, 3, 1], [6, 6, 0]],  # crosses the plane outside of the triangle
        [[0, 0, 1], [4, 0, 1], [0, 4, 1]],  # parallel above
        [[1, 1, 0], [1, 1, 1], [2, 2, 1]],  # stands on it with one corner
        [[9, 9, 9], [10, 9, 9], [9, 10, 9]],
    ],
)
def test_triangles_that_do_not_cut(second: list[list[float]]) -> None:
    assert two(second) == 0


def test_a_cube_is_sound_and_two_that_overlap_are_not() -> None:
    assert len(self_intersections(CUBE, CUBE_FACES)) == 0
    for shift, cuts in ((0.5, True), (1.5, False)):
        vertices = np.concatenate([CUBE, CUBE + np.array([shift, shift / 2, shift / 3])])
        assert (len(self_intersections(vertices, np.concatenate([CUBE_FACES, CUBE_FACES + 8]))) > 0) == cuts


def test_a_corner_pushed_through_the_opposite_side() -> None:
    vertices = CUBE.copy()
    vertices[7] = (0.3, 0.3, -0.5)
    pairs = self_intersections(vertices, CUBE_FACES)
    assert len(pairs) > 0
    assert (pairs < len(CUBE_FACES)).all()


def test_faces_with_one_common_corner_that_cut() -> None:
    vertices = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [2, 2, -2], [0.5, 0.5, 2]])
    assert len(self_intersections(vertices, np.array([[0, 1, 2], [0, 3, 4]]))) == 1
    vertices[3:, 2] += 3
    assert len(self_intersections(vertices, np.array([[0, 1, 2], [0, 3, 4]]))) == 0


def test_a_face_folded_onto_its_neighbour() -> None:
    vertices = np.array([[0.0, 0, 0], [4, 0, 0], [1, 3, 0], [2, 2, 0]])
    assert len(self_intersections(vertices, np.array([[0, 1, 2], [1, 0, 3]]))) == 1
    vertices[3] = (2, -2, 0)
    assert len(self_intersections(vertices, np.array([[0, 1, 2], [1, 0, 3]]))) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_any_two_triangles_agree_with_sampling(seed: int) -> None:
    # Where an edge of one changes its side of the other's plane, by sampling: is it inside of the other there?
    random = np.random.default_rng(seed)
    a, b = random.uniform(-1, 1, (2, 3, 3))
    hits = 0
    for one, other in ((a, b), (b, a)):
        normal = np.cross(other[1] - other[0], other[2] - other[0])
        for n in range(3):
            start, end = one[n], one[(n + 1) % 3]
            points = start + np.linspace(0, 1, 4001)[:, None] * (end - start)
            side = np.sign((points - other[0]) @ normal)
            for at in np.flatnonzero(side[1:] * side[:-1] < 0):
                weights = np.linalg.solve(
                    np.column_stack([other[1] - other[0], other[2] - other[0], normal]), points[at] - other[0]
                )
                inside = min(weights[0], weights[1], 1 - weights[0] - weights[1])
                if abs(inside) < 0.01:
                    return  # too near the border to tell by sampling
                hits += inside > 0
    assert (len(self_intersections(np.concatenate([a, b]), PAIR)) > 0) == (hits > 0)


def test_only_what_moved_is_looked_at() -> None:
    vertices = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [1, 1, -1], [1, 1, 1], [2, 1, 1]])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    assert len(self_intersections(vertices, faces)) == 1
    assert len(self_intersections(vertices, faces, np.arange(6) == 5)) == 1
    assert len(self_intersections(vertices, faces, np.zeros(6, bool))) == 0


def test_a_fan_that_goes_round_twice_cuts_itself() -> None:
    # Eight triangles around a corner that climb like a spiral staircase of two turns, its ends joined: all face up.
    angle = np.arange(8) * np.pi / 2 + 0.1
    height = np.where(np.arange(8) < 7, np.arange(8) * 0.1, 0.35)
    rim = np.column_stack([np.cos(angle), np.sin(angle), height])
    faces = np.array([[0, 1 + n, 1 + (n + 1) % 8] for n in range(8)])
    assert len(self_intersections(np.concatenate([np.zeros((1, 3)), rim]), faces)) > 0
