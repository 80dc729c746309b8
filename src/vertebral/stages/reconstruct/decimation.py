"""Fewer triangles where the surface is flat, within an error bound that is measured, not hoped for."""

import fast_simplification
import numpy as np
from numpy.typing import NDArray

from vertebral.core.mesh_checks import Faces, Points, areas, open_edges
from vertebral.stages.reconstruct.contour import distances

# How large triangles may be on a bone so that most pass at once, measured: mm2 a face for each mm of error.
_AREA_PER_ERROR_MM = 6.0
_MORE_FACES = 1.4
# How steeply its threshold rises: the default, 7, is a quarter faster and leaves larger single errors and open edges.
_AGGRESSION = 4
_TRIES = 3
_LEAST_FACES = 200
# Vertices that may be thorns at most, as a share of all, and how far these may be from the new mesh, in errors.
_THORNS, _THORN_ERRORS = 0.001, 5.0
# No bone has as many vertices; a surface of noise does, and measuring every step of its decimation takes minutes.
_MOST_VERTICES = 100_000
# Below this, decimation saves less than it costs.
_LEAST_REDUCTION = 0.25


def decimated(vertices: Points, faces: Faces, max_error_mm: float, attempt: int = 0) -> tuple[Points, Faces]:
    """Return a mesh with fewer faces from which vertices (V, 3) are no further than `max_error_mm`, or the given one.

    One in a thousand vertices may be up to five times as far: thorns that stand out where neighbours were parted.

    Quadric error decimation (Garland and Heckbert 1997). Where it breaks the bound, or leaves an edge with more than
    two faces that is no fin, it is done again with more faces; a higher `attempt` starts with these.
    """
    if max_error_mm <= 0 or attempt >= _TRIES or len(vertices) > _MOST_VERTICES:
        return vertices, faces
    wanted = max(float(areas(vertices, faces).sum()) / (_AREA_PER_ERROR_MM * max_error_mm), _LEAST_FACES)
    for more in range(attempt, _TRIES):
        reduction = 1 - wanted * _MORE_FACES**more / len(faces)
        if reduction < _LEAST_REDUCTION:
            break
        points, triangles = fast_simplification.simplify(
            vertices.astype(np.float32), faces.astype(np.int32), target_reduction=reduction, agg=_AGGRESSION
        )
        fewer = without_fins(np.asarray(points, np.float64), np.asarray(triangles, np.int64))
        if len(open_edges(fewer[1])) == 0 and _stays_near(distances(vertices, *fewer), max_error_mm):
            return fewer
    return vertices, faces


def _stays_near(distances_mm: NDArray[np.float64], max_error_mm: float) -> bool:
    far = np.count_nonzero(distances_mm > max_error_mm)
    return bool(far <= _THORNS * len(distances_mm) and distances_mm.max() <= _THORN_ERRORS * max_error_mm)


def without_fins(points: Points, faces: Faces) -> tuple[Points, Faces]:
    """Drop pairs of faces with the same three vertices, back to back: what a collapsed bump leaves on the surface."""
    corners = np.sort(faces, axis=1)
    size = len(points)
    same, count = np.unique(
        (corners[:, 0] * size + corners[:, 1]) * size + corners[:, 2], return_inverse=True, return_counts=True
    )[1:]
    if not (count > 1).any():
        return points, faces
    used, kept = np.unique(faces[count[same] == 1], return_inverse=True)
    return points[used], kept.reshape(-1, 3)
