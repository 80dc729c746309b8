import numpy as np
import pytest

from vertebral.core.anatomy import BY_NAME
from vertebral.core.mesh_checks import check_surface, open_edges, split_vertices, vertex_normals, volume
from vertebral.core.records import Surface

# The corner of a cube of 10 mm: volume 1000 / 6 mm3, three legs of 50 mm2 and a face of 50 * sqrt(3) mm2.
CORNER = np.array([[0.0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]])
CORNER_FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def surface(vertices: np.ndarray, faces: np.ndarray) -> Surface:
    return Surface(BY_NAME["L1"], np.asarray(vertices, np.float64), np.asarray(faces, np.int64))


def test_a_tetrahedron_worked_by_hand() -> None:
    check = check_surface(surface(CORNER, CORNER_FACES))
    assert (check.watertight, check.manifold, check.components, check.euler_number) == (True, True, 1, 2)
    assert check.volume_ml == pytest.approx(1 / 6)
    assert check.area_cm2 == pytest.approx(1.5 + np.sqrt(3) / 2)


def test_a_face_less_is_open() -> None:
    check = check_surface(surface(CORNER, CORNER_FACES[:3]))
    assert not check.watertight
    assert not check.manifold
    assert len(np.unique(np.sort(open_edges(CORNER_FACES[:3]), axis=1), axis=0)) == 3


def test_one_turned_face_is_not_watertight() -> None:
    turned = CORNER_FACES.copy()
    turned[0] = turned[0, ::-1]
    assert not check_surface(surface(CORNER, turned)).watertight


def test_turning_all_faces_gives_a_negative_volume() -> None:
    check = check_surface(surface(CORNER, CORNER_FACES[:, ::-1]))
    assert check.watertight
    assert check.volume_ml == pytest.approx(-1 / 6)


def test_two_tetrahedra_on_one_vertex_are_watertight_but_not_manifold() -> None:
    mirrored = np.where(CORNER_FACES == 0, 0, CORNER_FACES + 3)[:, ::-1]
    check = check_surface(surface(np.concatenate([CORNER, -CORNER[1:]]), np.concatenate([CORNER_FACES, mirrored])))
    assert check.watertight
    assert not check.manifold
    assert check.components == 1
    assert split_vertices(np.concatenate([CORNER_FACES, mirrored])).tolist() == [0]


def test_two_tetrahedra_on_one_edge_are_not_watertight() -> None:
    other = np.array([0, 1, 4, 5])[CORNER_FACES]
    vertices = np.concatenate([CORNER, [[0, -10, 0], [0, 0, -10.0]]])
    assert not check_surface(surface(vertices, np.concatenate([CORNER_FACES, other]))).watertight


def test_two_apart_are_two_components() -> None:
    far = surface(np.concatenate([CORNER, CORNER + 50]), np.concatenate([CORNER_FACES, CORNER_FACES + 4]))
    check = check_surface(far)
    assert (check.manifold, check.components, check.euler_number) == (True, 2, 4)
    assert check.volume_ml == pytest.approx(1 / 3)


def test_a_flat_tetrahedron_is_not_manifold() -> None:
    flat = CORNER.copy()
    flat[3] = flat[1]
    assert not check_surface(surface(flat, CORNER_FACES)).manifold


def test_an_unused_vertex_does_not_count() -> None:
    check = check_surface(surface(np.concatenate([CORNER, [[9.0, 9, 9]]]), CORNER_FACES))
    assert (check.components, check.euler_number) == (1, 2)


def test_an_empty_mesh_is_not_watertight() -> None:
    check = check_surface(surface(np.zeros((0, 3)), np.zeros((0, 3))))
    assert (check.watertight, check.manifold, check.components, check.volume_ml) == (False, False, 0, 0.0)


def test_volume_does_not_depend_on_the_place() -> None:
    assert volume(CORNER + 1e6, CORNER_FACES) == pytest.approx(1000 / 6)


def test_normals_look_outward() -> None:
    normals = vertex_normals(CORNER, CORNER_FACES)
    assert ((CORNER - CORNER.mean(axis=0)) * normals).sum(axis=1).min() > 0
    assert np.linalg.norm(normals, axis=1) == pytest.approx(1)
