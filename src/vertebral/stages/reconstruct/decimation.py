"""Fewer triangles where the surface is flat, within an error bound that is measured on the result."""

import fast_simplification
import numpy as np
from numpy.typing import NDArray

from vertebral.core.mesh_checks import Faces, Points, areas, open_edges
from vertebral.stages.reconstruct.contour import distances
from vertebral.stages.reconstruct.rules import ReconstructRules


def decimated(
    vertices: Points, faces: Faces, max_error_mm: float, rules: ReconstructRules, attempt: int = 0
) -> tuple[Points, Faces]:
    """Return a mesh with fewer faces that all vertices (V, 3) are within `max_error_mm` of, or the given one.

    One in a thousand vertices may be up to five times as far: single ones that protrude where neighbours were
    separated.

    Quadric error decimation (Garland and Heckbert 1997). If it breaks the bound, or leaves an edge with more than two
    faces that is no fin, it is repeated with more faces; a higher `attempt` starts with these.
    """
    if max_error_mm <= 0 or attempt >= rules.max_decimations or len(vertices) > rules.max_vertices:
        return vertices, faces
    face_mm2 = rules.face_mm2_per_error_mm * max_error_mm
    wanted = max(float(areas(vertices, faces).sum()) / face_mm2, rules.min_faces)
    for more in range(attempt, rules.max_decimations):
        reduction = 1 - wanted * rules.more_faces_factor**more / len(faces)
        if reduction < rules.min_reduction:
            break
        points, triangles = fast_simplification.simplify(
            vertices.astype(np.float32), faces.astype(np.int32), target_reduction=reduction, agg=rules.aggression
        )
        fewer = without_fins(np.asarray(points, np.float64), np.asarray(triangles, np.int64))
        if len(open_edges(fewer[1])) == 0 and _stays_near(distances(vertices, *fewer), max_error_mm, rules):
            return fewer
    return vertices, faces


def _stays_near(distances_mm: NDArray[np.float64], max_error_mm: float, rules: ReconstructRules) -> bool:
    far = np.count_nonzero(distances_mm > max_error_mm)
    return bool(
        far <= rules.outlier_share * len(distances_mm) and distances_mm.max() <= rules.outlier_errors * max_error_mm
    )


def without_fins(points: Points, faces: Faces) -> tuple[Points, Faces]:
    """Drop pairs of faces with the same three vertices, back to back, which a collapsed bump leaves on the surface."""
    corners = np.sort(faces, axis=1)
    size = len(points)
    same, count = np.unique(
        (corners[:, 0] * size + corners[:, 1]) * size + corners[:, 2], return_inverse=True, return_counts=True
    )[1:]
    if not (count > 1).any():
        return points, faces
    used, kept = np.unique(faces[count[same] == 1], return_inverse=True)
    return points[used], kept.reshape(-1, 3)
