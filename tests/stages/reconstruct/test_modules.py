from dataclasses import replace

import numpy as np
import pytest

from vertebral.core.anatomy import BY_NAME
from vertebral.core.mesh_checks import check_surface, open_edges, volume
from vertebral.core.records import Surface
from vertebral.core.volume import Grid
from vertebral.stages.reconstruct import RECONSTRUCT_RULES as RULES
from vertebral.stages.reconstruct.contour import distances
from vertebral.stages.reconstruct.decimation import decimated, without_fins
from vertebral.stages.reconstruct.fairing import faired, repaired, with_volume_restored
from vertebral.stages.reconstruct.field import Field, field_of

BALL = np.linalg.norm(np.indices((28, 28, 28)) - 13.5, axis=0) < 11


def field(mask: np.ndarray, *spacing_mm: float, wanted_mm: float | None = None) -> Field:
    grid = Grid(mask.shape, np.diag([*spacing_mm, 1.0]))
    return field_of(mask, tuple(slice(0, n) for n in mask.shape), grid, BY_NAME["L1"], wanted_mm)


@pytest.mark.parametrize(
    ("spacing_mm", "expected_mm"),
    [
        ((1.0, 1.0, 1.0), 1.0),
        ((1.5, 1.5, 1.5), 1.5),
        ((3.0, 3.0, 3.0), 1.0),
        ((0.7, 0.7, 5.0), 1.0),
        ((3.0, 0.6, 0.6), 1.0),
        ((0.3, 0.3, 1.25), 0.9),
        ((0.8, 0.8, 0.8), 0.8),
        ((0.3, 0.3, 0.3), 0.9),
    ],
)
def test_the_spacing_of_a_field(spacing_mm: tuple[float, float, float], expected_mm: float) -> None:
    assert field(BALL, *spacing_mm).grid.spacing_mm[0] == pytest.approx(expected_mm)


def test_a_field_knows_stairs_from_soft_borders() -> None:
    soft = 1 / (1 + np.exp(2 * (np.linalg.norm(np.indices((28, 28, 28)) - 13.5, axis=0) - 11)))
    assert field(BALL, 1.0, 1.0, 1.0).is_binary
    assert not field(soft, 1.0, 1.0, 1.0).is_binary


def test_no_vertex_leaves_the_cage_by_smoothing() -> None:
    ramp = np.zeros((20, 20, 20), bool)
    for z in range(4, 16):
        ramp[2:18, 2:18, z] = np.arange(2, 18)[:, None] < 4 + z
    draft = faired(field(ramp, 1.0, 1.0, 1.0), 1.0, RULES)
    away = np.linalg.norm(draft.vertices - draft.contour, axis=1)
    assert away.max() < 0.5 + 0.25 + 1e-6  # the cage, then the shift that keeps the volume
    assert away.mean() > 0.05


def test_repair_goes_back_to_the_contour_near_the_fault_only() -> None:
    draft = faired(field(BALL, 1.0, 1.0, 1.0), 1.0, RULES)
    fault = draft.vertices[:1]
    after = repaired(draft, fault, 3, RULES)
    near = np.linalg.norm(draft.vertices - fault, axis=1)
    assert after.vertices[near < 2.9] == pytest.approx(draft.contour[near < 2.9])
    assert (after.vertices[near > 6.1] == draft.vertices[near > 6.1]).all()


def test_decimation_keeps_to_its_bound() -> None:
    draft = faired(field(BALL, 1.0, 1.0, 1.0), 1.0, RULES)
    vertices, faces = decimated(draft.vertices, draft.faces, 0.1, RULES)
    assert len(faces) < len(draft.faces) * 0.7
    assert distances(draft.vertices, vertices, faces).max() <= 0.1
    assert check_surface(Surface(BY_NAME["L1"], vertices, faces)).manifold
    more = decimated(draft.vertices, draft.faces, 0.1, RULES, attempt=1)[1]
    assert len(faces) < len(more) <= len(draft.faces)
    assert decimated(draft.vertices, draft.faces, 0, RULES)[1] is draft.faces
    assert decimated(draft.vertices, draft.faces, 1e-6, RULES)[1] is draft.faces


def test_distances_worked_by_hand() -> None:
    vertices, faces = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]]), np.array([[0, 1, 2]])
    points = np.array([[1.0, 1, 2], [-3, 0, 4], [1, 1, 0]])
    assert distances(points, vertices, faces) == pytest.approx([2, 5, 0])


def test_a_fin_on_a_tetrahedron_is_dropped_with_its_vertex() -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]])
    solid = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    fin = np.array([[0, 1, 4], [1, 0, 4]])  # two faces back to back on the edge 0-1, which then has four
    finned = np.concatenate([solid, fin])
    assert len(open_edges(finned)) > 0
    left, faces = without_fins(points, finned)
    assert len(left) == 4
    assert np.array_equal(faces, solid)
    assert without_fins(points[:4], solid)[1] is solid


def test_volume_lost_at_a_contact_is_restored_elsewhere() -> None:
    draft = faired(field(np.ones((20, 20, 20), bool), 1, 1, 1), 1.0, RULES)
    pressed = draft.vertices.copy()
    top = pressed[:, 2] > pressed[:, 2].max() - 1
    pressed[top, 2] -= 0.3  # 2 % of 8 ml are gone
    after = with_volume_restored(replace(draft, vertices=pressed), draft.vertices, RULES)
    assert volume(pressed, draft.faces) < 7900
    assert volume(after.vertices, draft.faces) == pytest.approx(8000, rel=2e-3)
    assert np.array_equal(after.vertices[top], pressed[top])
    assert with_volume_restored(draft, draft.vertices, RULES) is draft
