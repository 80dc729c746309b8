"""Checks of triangle meshes: closed, manifold, number of pieces, volume and area."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from vertebral.core.records import Surface

Points = NDArray[np.float64]
Faces = NDArray[np.int64]

_MIN_AREA_MM2 = 1e-9


@dataclass(frozen=True)
class SurfaceCheck:
    """Properties of a triangle mesh.

    `watertight`: each edge has exactly two faces, which run along it in opposite directions. `manifold`: in addition,
    the faces around each vertex form one fan and no triangle has an area of zero. `volume_ml` is signed: positive if
    the faces look outward. `euler_number` is V - E + F: 2 for a ball, 0 for one ring.
    """

    watertight: bool
    manifold: bool
    volume_ml: float
    area_cm2: float
    components: int
    euler_number: int


def check_surface(surface: Surface) -> SurfaceCheck:
    """Count edges, fans and pieces of `surface`, and measure it."""
    vertices, faces = surface.vertices_mm, surface.faces
    start, end = _directed_edges(faces)
    used = np.flatnonzero(np.bincount(faces.ravel()))
    joined = coo_matrix((np.ones(len(start), bool), (start, end)), shape=(len(vertices), len(vertices)))
    pieces = connected_components(joined, directed=False)[1]
    face_areas = areas(vertices, faces)
    watertight = len(faces) > 0 and len(open_edges(faces)) == 0
    undirected = np.minimum(start, end) * len(vertices) + np.maximum(start, end)
    edge_count = len(start) // 2 if watertight else len(np.unique(undirected))
    return SurfaceCheck(
        watertight=watertight,
        manifold=watertight and len(split_vertices(faces)) == 0 and bool((face_areas > _MIN_AREA_MM2).all()),
        volume_ml=volume(vertices, faces) / 1000,
        area_cm2=float(face_areas.sum()) / 100,
        components=len(np.unique(pieces[used])),
        euler_number=len(used) - edge_count + len(faces),
    )


def _directed_edges(faces: Faces) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the start and end vertices (3F,) of the faces' edges: all first edges, then all second, all third."""
    return faces.T.ravel(), np.roll(faces, -1, axis=1).T.ravel()


def open_edges(faces: Faces) -> NDArray[np.int64]:
    """Return the edges (E, 2) that do not have exactly two faces, one in each direction."""
    start, end = _directed_edges(faces)
    size = int(faces.max(initial=0)) + 1
    forward, backward = np.sort(start * size + end), np.sort(end * size + start)
    twice = forward[1:] == forward[:-1]
    if not twice.any() and np.array_equal(forward, backward):
        return np.zeros((0, 2), np.int64)
    bad = np.unique(np.concatenate([forward[1:][twice], np.setxor1d(forward, backward)]))
    return np.column_stack([bad // size, bad % size])


def split_vertices(faces: Faces) -> NDArray[np.int64]:
    """Return the vertices whose faces form more than one fan. It is meaningful only for a mesh without open edges.

    The graph's nodes are the corners of all faces; an edge between two faces joins their corners at both of its ends.
    """
    count = len(faces)
    start, end = _directed_edges(faces)
    size = int(faces.max(initial=0)) + 1
    order, mirror = np.argsort(start * size + end), np.argsort(end * size + start)
    corner_at_start = np.arange(3 * count)
    corner_at_end = (corner_at_start + count) % (3 * count)
    links = coo_matrix(
        (np.ones(3 * count, bool), (corner_at_start[order], corner_at_end[mirror])), shape=(3 * count, 3 * count)
    )
    fans = connected_components(links, directed=False)[1]
    # Each fan belongs to one vertex; a vertex with several fans is split.
    vertex_of_fan = np.zeros(int(fans.max(initial=-1)) + 1, np.int64)
    vertex_of_fan[fans] = start
    return np.flatnonzero(np.bincount(vertex_of_fan) > 1)


def face_normals(vertices: Points, faces: Faces) -> Points:
    """Return the normals (F, 3); their lengths are the areas of the triangles."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.asarray(np.cross(b - a, c - a) / 2, np.float64)


def areas(vertices: Points, faces: Faces) -> NDArray[np.float64]:
    """Return the areas (F,)."""
    return np.asarray(np.linalg.norm(face_normals(vertices, faces), axis=1), np.float64)


def has_flat_faces(vertices: Points, faces: Faces) -> bool:
    """Tell whether a triangle has no area: its corners are on one point or line."""
    return bool((areas(vertices, faces) <= _MIN_AREA_MM2).any())


def vertex_normals(vertices: Points, faces: Faces) -> Points:
    """Return unit normals (V, 3), weighted by the area of the faces around each vertex."""
    normals = face_normals(vertices, faces)
    sums = np.column_stack(
        [np.bincount(faces.ravel(), np.repeat(normals[:, axis], 3), len(vertices)) for axis in range(3)]
    )
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12), np.float64)


def volume(vertices: Points, faces: Faces) -> float:
    """Return the enclosed volume, positive if faces look outward (sum of signed tetrahedra about the centre)."""
    centred = vertices - vertices.mean(axis=0) if len(vertices) else vertices
    a, b, c = (centred[faces[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6
