"""Where the triangles of a mesh cut each other.

Candidates come from a uniform grid of cells, then bounding boxes, then planes; the last word has the test of segments
against triangles, in double precision. Triangles that only touch do not count as cutting.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vertebral.mesh_checks import Faces, Points, face_normals

Pairs = NDArray[np.int64]

_EPSILON = 1e-9
_FOLD = -1 + 1e-10
_CELL_EXTENTS = 1.5


def self_intersections(vertices: Points, faces: Faces) -> Pairs:
    """Return the pairs (P, 2) of faces that cut each other, or lie folded onto each other along a common edge.

    `vertices` (V, 3) in mm, `faces` (F, 3).
    """
    corners = vertices[faces]
    pairs = _close_pairs(corners)
    shared = (faces[pairs[:, 0], :, None] == faces[pairs[:, 1], None, :]).any(axis=2)
    count = shared.sum(axis=1)
    normals = face_normals(vertices, faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    folded = (count == 2) & (np.einsum("pc,pc->p", normals[pairs[:, 0]], normals[pairs[:, 1]]) < _FOLD)
    pairs_apart, pairs_fan = pairs[count == 0], pairs[count == 1]
    return np.concatenate(
        [
            pairs_apart[_cut(corners, normals, pairs_apart)],
            pairs_fan[_fan_cut(vertices, faces, normals, pairs_fan)],
            pairs[folded],
        ]
    )


def _close_pairs(corners: Points) -> Pairs:
    """Return the pairs of triangles (T, 3, 3) whose bounding boxes meet, each once, the lower index first."""
    low, high = corners.min(axis=1), corners.max(axis=1)
    size = max(float(np.median((high - low).max(axis=1))) * _CELL_EXTENTS, 1e-6)
    origin = low.min(axis=0)
    first = ((low - origin) / size).astype(np.int64)
    span = ((high - origin) / size).astype(np.int64) - first + 1
    count = span.prod(axis=1)
    triangle = np.repeat(np.arange(len(corners)), count)
    step = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    wide, deep = span[triangle, 1], span[triangle, 2]
    cell = first[triangle] + np.column_stack([step // (wide * deep), step // deep % wide, step % deep])
    shape = cell.max(axis=0) + 1
    key = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
    within = csr_matrix((np.ones(len(triangle), np.int8), (triangle, key)), shape=(len(corners), int(shape.prod())))
    together = (within @ within.T).tocoo()  # entry (a, b): in how many cells both are
    upper = together.row < together.col
    a, b = together.row[upper].astype(np.int64), together.col[upper].astype(np.int64)
    meet = (np.maximum(low[a], low[b]) <= np.minimum(high[a], high[b])).all(axis=1)
    return np.column_stack([a[meet], b[meet]])


def _cut(corners: Points, normals: Points, pairs: Pairs) -> NDArray[np.bool_]:
    """Return which pairs (P, 2) of triangles without a common vertex cut each other."""
    result = np.zeros(len(pairs), bool)
    possible = np.flatnonzero(_straddles(corners, normals, pairs))
    possible = possible[_straddles(corners, normals, pairs[possible][:, ::-1])]
    for one, other in ((0, 1), (1, 0)):
        triangles = corners[pairs[possible, other]]
        for n in range(3):
            start, end = corners[pairs[possible, one], n], corners[pairs[possible, one], (n + 1) % 3]
            result[possible] |= _pierces(start, end, triangles)
    return result


def _straddles(corners: Points, normals: Points, pairs: Pairs) -> NDArray[np.bool_]:
    """True where the second triangle of a pair is not wholly on one side of the first one's plane."""
    away = np.einsum("pnc,pc->pn", corners[pairs[:, 1]] - corners[pairs[:, 0], :1], normals[pairs[:, 0]])
    return np.asarray((away.min(axis=1) < _EPSILON) & (away.max(axis=1) > -_EPSILON))


def _fan_cut(vertices: Points, faces: Faces, normals: Points, pairs: Pairs) -> NDArray[np.bool_]:
    """Return which pairs (P, 2) of faces with one common vertex cut each other: an opposite edge pierces the other."""
    result = np.zeros(len(pairs), bool)
    for one, other in ((0, 1), (1, 0)):
        mine, theirs = faces[pairs[:, one]], faces[pairs[:, other]]
        common = (mine[:, :, None] == theirs[:, None, :]).any(axis=2).argmax(axis=1)
        rows = np.arange(len(pairs))
        start = vertices[mine[rows, (common + 1) % 3]]
        end = vertices[mine[rows, (common + 2) % 3]]
        normal, base = normals[pairs[:, other]], vertices[mine[rows, common]]
        sides = [np.einsum("pc,pc->p", point - base, normal) for point in (start, end)]
        crossing = np.flatnonzero(sides[0] * sides[1] < 0)
        result[crossing] |= _pierces(start[crossing], end[crossing], vertices[theirs[crossing]])
    return result


def _pierces(start: Points, end: Points, triangles: Points) -> NDArray[np.bool_]:
    """True where a segment crosses its triangle (N, 3, 3) from one side to the other, borders included."""
    a, b, c = (triangles[:, n] for n in range(3))
    normal = np.cross(b - a, c - a)
    length = np.maximum(np.linalg.norm(normal, axis=1), 1e-30)
    before = np.einsum("nc,nc->n", start - a, normal) / length
    after = np.einsum("nc,nc->n", end - a, normal) / length
    crossing = (np.minimum(before, after) < -_EPSILON) & (np.maximum(before, after) > _EPSILON)
    share = before / np.where(crossing, before - after, 1)
    point = start + share[:, None] * (end - start)
    inside = crossing
    for one, two in ((a, b), (b, c), (c, a)):
        inside = inside & (np.einsum("nc,nc->n", np.cross(two - one, point - one), normal) >= 0)
    return np.asarray(inside)
