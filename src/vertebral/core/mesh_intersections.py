"""Where the triangles of a mesh cut each other.

Around a vertex whose faces all face one direction and go round it once, none can cut another: seen from that direction
they are side by side. Other candidate pairs come from a uniform grid of cells; bounding boxes and planes rule most of
them out, and the rest are tested as segments against triangles, in double precision. Triangles that only touch do not
count as cutting.
"""

import numpy as np
from numpy.typing import NDArray

from vertebral.core.mesh_checks import Faces, Points, face_normals

Pairs = NDArray[np.int64]

_EPSILON = 1e-9
_FOLD = -1 + 1e-10
_CELL_EXTENTS = 1.3
# Least cosine between a face and the mean normal around its corner for which the face is seen from its front.
_LEAST_FACING = 0.02
_TURN_ROUNDING = 1e-6


def self_intersections(vertices: Points, faces: Faces, moved: NDArray[np.bool_] | None = None) -> Pairs:
    """Return the pairs (P, 2) of faces that cut each other, or lie folded onto each other along a common edge.

    `vertices` (V, 3) in mm, `faces` (F, 3). For a mesh that had no such pairs, `moved` (V,) tells which vertices have
    moved since: pairs of faces without any of these are skipped.
    """
    changed = None if moved is None else np.asarray(moved[faces].any(axis=1))
    corners = vertices[faces]
    normals = face_normals(vertices, faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    pairs, count = _unsettled(faces, _close_pairs(corners, changed), _flat_fans(corners, normals, faces, len(vertices)))
    folded = (count == 2) & (np.einsum("pc,pc->p", normals[pairs[:, 0]], normals[pairs[:, 1]]) < _FOLD)
    pairs_apart, pairs_fan = pairs[count == 0], pairs[count == 1]
    return np.concatenate(
        [
            pairs_apart[_cut(corners, normals, pairs_apart)],
            pairs_fan[_fan_cut(vertices, faces, normals, pairs_fan)],
            pairs[folded],
        ]
    )


def _flat_fans(corners: Points, normals: Points, faces: Faces, count: int) -> NDArray[np.bool_]:
    """Return for each of `count` vertices whether its faces, seen along their mean normal, are side by side.

    They are if each shows its front and their angles at the vertex sum to one turn: each is within its own sector.
    """
    flat = faces.ravel()
    mean: Points = np.column_stack([np.bincount(flat, np.repeat(normals[:, axis], 3), count) for axis in range(3)])
    mean = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-30)
    turn, least = np.zeros(count), np.ones(count)
    for n in range(3):
        at, view = faces[:, n], mean[faces[:, n]]
        one, two = (corners[:, (n + step) % 3] - corners[:, n] for step in (1, 2))
        up_one, up_two = np.einsum("fc,fc->f", one, view), np.einsum("fc,fc->f", two, view)
        # Both edges as seen along the view: their cross and dot products in that plane.
        cross = np.einsum("fc,fc->f", np.cross(one, two), view)
        dot = np.einsum("fc,fc->f", one, two) - up_one * up_two
        turn += np.bincount(at, np.arctan2(cross, dot), count)
        np.minimum.at(least, at, np.einsum("fc,fc->f", normals, view))
    return np.asarray((least > _LEAST_FACING) & (np.abs(turn - 2 * np.pi) < _TURN_ROUNDING))


def _unsettled(faces: Faces, pairs: Pairs, flat: NDArray[np.bool_]) -> tuple[Pairs, NDArray[np.int64]]:
    """Return the pairs without a common vertex whose faces cannot cut (`flat`), and how many vertices each shares."""
    a, b = faces[pairs[:, 0]], faces[pairs[:, 1]]
    count = np.zeros(len(pairs), np.int64)
    settled = np.zeros(len(pairs), bool)
    for n in range(3):
        shared = (a[:, n] == b[:, 0]) | (a[:, n] == b[:, 1]) | (a[:, n] == b[:, 2])
        count += shared
        settled |= shared & flat[a[:, n]]
    return pairs[~settled], count[~settled]


def _close_pairs(corners: Points, changed: NDArray[np.bool_] | None) -> Pairs:
    """Return the pairs of triangles (T, 3, 3) whose bounding boxes meet, each once; of `changed` (T,) ones only.

    Triangles are entered in all cells of a grid that their boxes touch; a pair counts only in the lowest cell of the
    intersection of the two boxes.
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    size = max(float(np.median((high - low).max(axis=1))) * _CELL_EXTENTS, 1e-6)
    first = ((low - low.min(axis=0)) / size).astype(np.int64)
    span = ((high - low.min(axis=0)) / size).astype(np.int64) - first + 1
    shape = (first + span).max(axis=0)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    triangle, key = _entries(first @ strides, span, strides)
    if changed is not None:
        near = np.isin(key, key[changed[triangle]])
        triangle, key = triangle[near], key[near]
    followers = np.searchsorted(key, key, side="right") - np.arange(len(key)) - 1
    lows, highs = (np.ascontiguousarray(corner[triangle].T) for corner in (low, high))
    firsts = np.ascontiguousarray((first * strides)[triangle].T)
    found = [np.zeros((0, 2), np.int64)]
    here, ahead = np.flatnonzero(followers > 0), 1
    while len(here):
        one, other = here, here + ahead
        for axis in range(3):
            meet = np.maximum(lows[axis, one], lows[axis, other]) <= np.minimum(highs[axis, one], highs[axis, other])
            one, other = one[meet], other[meet]
        own = sum(np.maximum(firsts[axis, one], firsts[axis, other]) for axis in range(3)) == key[one]
        found.append(np.column_stack([triangle[one[own]], triangle[other[own]]]))
        ahead += 1
        here = here[followers[here] >= ahead]
    pairs = np.concatenate(found)
    return pairs if changed is None else pairs[changed[pairs].any(axis=1)]


def _entries(
    first_key: NDArray[np.int64], span: NDArray[np.int64], strides: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (triangle, cell) (N,), (N,) sorted by cell: all cells from `first_key` (T,) over `span` (T, 3) on."""
    count = span.prod(axis=1)
    triangle = np.repeat(np.arange(len(span)), count)
    step = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    wide, deep = span[triangle, 1], span[triangle, 2]
    key = first_key[triangle] + step // (wide * deep) * strides[0] + step // deep % wide * strides[1] + step % deep
    order = np.argsort(key, kind="stable")
    return triangle[order], key[order]


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
    """Return which pairs have a second triangle that is not wholly on one side of the first one's plane."""
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
    """Return which segments cross their triangle (N, 3, 3) from one side to the other, borders included."""
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
