"""Clearance between neighbours: where two surfaces are too close, move each back by half the missing clearance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vertebral.core.mesh_checks import Faces, Points, vertex_normals
from vertebral.stages.reconstruct.fairing import Draft
from vertebral.stages.reconstruct.rules import ReconstructRules

Indices = NDArray[np.int64]


def separated(drafts: Sequence[Draft], gaps_mm: dict[tuple[int, int], float], rules: ReconstructRules) -> list[Draft]:
    """Return `drafts` with their vertices moved so that each pair in `gaps_mm` keeps its distance.

    Keys are pairs of indices, the lower one first. Vertices move along the neighbour's normals, and only where they are
    nearer than the gap. Where bone is thinner than half the missing clearance, less is kept.
    """
    moved = list(drafts)
    for (first, second), gap_mm in gaps_mm.items():
        moved[first], moved[second] = _separated_pair(moved[first], moved[second], gap_mm + rules.plane_slack_mm, rules)
    return moved


def neighbouring_pairs(surfaces: Sequence[Points], distance_mm: float) -> list[tuple[int, int]]:
    """Return the pairs of indices of vertex sets (V, 3) whose bounding boxes are nearer than `distance_mm`."""
    low, high = (np.array([side(points, axis=0) for points in surfaces]) for side in (np.min, np.max))
    return [
        (a, b)
        for a, b in combinations(range(len(surfaces)), 2)
        if (np.maximum(low[a], low[b]) - np.minimum(high[a], high[b]) < distance_mm).all()
    ]


def _separated_pair(first: Draft, second: Draft, gap_mm: float, rules: ReconstructRules) -> tuple[Draft, Draft]:
    """Move vertices apart, then faces."""
    drafts = (first, second)
    reach = gap_mm + rules.contact_reach_mm
    near = _close(drafts, [_near_box(a.vertices, b.vertices, reach) for a, b in (drafts, drafts[::-1])], reach)
    if min(map(len, near)) == 0:
        return drafts
    pair = [draft.vertices[chosen] for draft, chosen in zip(drafts, near, strict=True)]
    # Vertices move by a fraction of an edge, so the first normals stay good enough.
    normals = [_normals(draft, chosen) for draft, chosen in zip(drafts, near, strict=True)]
    between_mm = [rules.between_vertices * max(draft.field.grid.spacing_mm) for draft in drafts]
    for _ in range(rules.vertex_steps):
        steps = [_step(pair[n], pair[1 - n], normals[1 - n], gap_mm, between_mm[1 - n], rules) for n in range(2)]
        if not any(step.any() for step in steps):
            break
        pair = [points + step for points, step in zip(pair, steps, strict=True)]
    moved = [draft.vertices.copy() for draft in drafts]
    for n in range(2):
        moved[n][near[n]] = pair[n]
    first, second = (replace(draft, vertices=points) for draft, points in zip(drafts, moved, strict=True))
    return _separated_faces(first, second, gap_mm, rules)


def _separated_faces(first: Draft, second: Draft, gap_mm: float, rules: ReconstructRules) -> tuple[Draft, Draft]:
    """Separate faces that are too near between their vertices: sides and middles of triangles move their corners."""
    drafts = (first, second)
    reach = gap_mm + max(max(draft.field.grid.spacing_mm) for draft in drafts)
    box_reach = gap_mm + rules.contact_reach_mm
    touching = _close(drafts, [_near_box(a.vertices, b.vertices, box_reach) for a, b in (drafts, drafts[::-1])], reach)
    if min(map(len, touching)) == 0:
        return drafts
    faces = [_faces_at(draft, chosen) for draft, chosen in zip(drafts, touching, strict=True)]
    samples = [_samples(near) for near in faces]
    normals = [
        sample.of(vertex_normals(draft.vertices, near))
        for draft, near, sample in zip(drafts, faces, samples, strict=True)
    ]
    normals = [normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9) for normal in normals]
    between_mm = [rules.between_samples * max(draft.field.grid.spacing_mm) for draft in drafts]
    points = [draft.vertices.copy() for draft in drafts]
    moving = list(samples)
    for _ in range(rules.face_steps):
        placed = [sample.of(own) for own, sample in zip(points, samples, strict=True)]
        steps = [
            _step(moving[n].of(points[n]), placed[1 - n], normals[1 - n], gap_mm, between_mm[1 - n], rules)
            for n in range(2)
        ]
        if not any(step.any() for step in steps):
            break
        moving = [_moved_corners(*side) for side in zip(points, samples, moving, steps, strict=True)]
    return replace(first, vertices=points[0]), replace(second, vertices=points[1])


@dataclass(frozen=True, eq=False)
class _Samples:
    """Points on a mesh: `shares` (S, 3) of the vertices `corners` (S, 3)."""

    corners: Indices
    shares: NDArray[np.float64]

    def of(self, values: Points) -> Points:
        """Return `values` (V, 3) interpolated at the points, (S, 3)."""
        return np.asarray(np.einsum("sk,skd->sd", self.shares, values[self.corners]))


def _samples(faces: Faces) -> _Samples:
    """Return the corners, the middles of the sides and the middles of `faces`, each once."""
    sides = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0)
    corners = [np.repeat(np.unique(faces)[:, None], 3, axis=1), sides[:, [0, 1, 0]], faces]
    shares = [[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]]
    return _Samples(np.concatenate(corners), np.repeat(np.array(shares), [len(points) for points in corners], axis=0))


def _moved_corners(points: Points, samples: _Samples, moving: _Samples, steps: Points) -> _Samples:
    """Move the corners in `points` by the longest of the `steps` (S, 3) of `moving`; return the samples that moved."""
    sample, corner = np.nonzero(moving.shares)
    vertex = moving.corners[sample, corner]
    longest = np.argsort(np.linalg.norm(steps, axis=1)[sample], kind="stable")
    way = np.zeros_like(points)
    way[vertex[longest]] = steps[sample[longest]]  # the last one written stays
    points += way
    with_moved = (way != 0).any(axis=1)[samples.corners].any(axis=1)
    return _Samples(samples.corners[with_moved], samples.shares[with_moved])


def _near_box(points: Points, others: Points, reach: float) -> Indices:
    """Return the indices of the points within `reach` of the bounding box of `others`."""
    low, high = others.min(axis=0) - reach, others.max(axis=0) + reach
    inside = [(points[:, axis] > low[axis]) & (points[:, axis] < high[axis]) for axis in range(3)]
    return np.flatnonzero(inside[0] & inside[1] & inside[2])


def _close(drafts: tuple[Draft, Draft], near: list[Indices], reach: float) -> list[Indices]:
    """Keep the indices of vertices within `reach` of a vertex of the other draft."""
    points = [draft.vertices[chosen] for draft, chosen in zip(drafts, near, strict=True)]
    if min(map(len, near)) == 0:
        return near
    found = [cKDTree(b).query(a, distance_upper_bound=reach)[0] for a, b in (points, points[::-1])]
    return [chosen[np.isfinite(distance)] for chosen, distance in zip(near, found, strict=True)]


def _normals(draft: Draft, chosen: Indices) -> Points:
    """Return the outward unit normals of the chosen vertices."""
    return vertex_normals(draft.vertices, _faces_at(draft, chosen))[chosen]


def _faces_at(draft: Draft, chosen: Indices) -> Faces:
    """Return the faces with one of the chosen vertices."""
    flag = np.zeros(len(draft.vertices), bool)
    flag[chosen] = True
    return draft.faces[flag[draft.faces].any(axis=1)]


def _step(
    points: Points, others: Points, normals: Points, gap_mm: float, between_mm: float, rules: ReconstructRules
) -> Points:
    """Return half the displacement of `points` (P, 3) to be `gap_mm` outside `others` (Q, 3) with outward `normals`.

    The distance to the surface comes from the nearest vertex: the height over the tangent plane there, and the distance
    along that plane beyond `between_mm`, within which another vertex would be nearer.
    """
    distance, nearest = cKDTree(others).query(points, distance_upper_bound=gap_mm + rules.contact_reach_mm)
    step = np.zeros_like(points)
    hit = np.flatnonzero(np.isfinite(distance))
    normal = normals[nearest[hit]]
    away = points[hit] - others[nearest[hit]]
    height = np.einsum("pc,pc->p", away, normal)
    along = away - height[:, None] * normal
    length = np.linalg.norm(along, axis=1)
    past_end = np.maximum(length - between_mm, 0)
    way = height[:, None] * normal + along * (past_end / np.maximum(length, 1e-9))[:, None]
    # Above or below the plane, the way out is along the normal; past the end of a surface, it is away from that end.
    out = np.where(past_end > 0, np.linalg.norm(way, axis=1), height)
    direction = np.where((past_end > 0)[:, None], way / np.maximum(np.abs(out), 1e-9)[:, None], normal)
    step[hit] = direction * (np.maximum(gap_mm - out, 0) / 2)[:, None]
    return step
