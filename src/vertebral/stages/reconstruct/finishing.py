"""From a draft to the mesh that is written: decimated, checked, and made again where a check fails."""

from dataclasses import replace

import numpy as np
from manifold3d import Manifold, Mesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vertebral.core.errors import VertebralError
from vertebral.core.mesh_checks import Faces, Points, areas, check_surface, has_flat_faces, vertex_normals
from vertebral.core.mesh_intersections import self_intersections
from vertebral.core.records import Surface
from vertebral.stages.reconstruct.decimation import decimated
from vertebral.stages.reconstruct.fairing import Draft, repaired, smoothed_near
from vertebral.stages.reconstruct.field import Field
from vertebral.stages.reconstruct.rules import ReconstructRules


def finished(draft: Draft, max_error_mm: float, rules: ReconstructRules) -> tuple[Surface, Draft]:
    """Return `draft` as a surface that passes the checks, and the draft as it was repaired for that.

    Where triangles cut each other, the surface goes back to the contour, which never cuts itself: more of it at each
    attempt, with more triangles, until all checks pass. Raises VertebralError if none passes.
    """
    more = repairs = 0
    for attempt in range(rules.max_attempts):
        if attempt >= rules.max_attempts - 2:
            share = rules.last_smooth_share if attempt == rules.max_attempts - 2 else 0.0
            draft = replace(draft, vertices=draft.contour + share * (draft.vertices - draft.contour))
        points, faces = decimated(draft.vertices, draft.faces, max_error_mm, rules, more)
        points = _as_written(points)
        untangled = _untangled(points, faces, draft.field, rules)
        surface = Surface(draft.field.level, points if untangled is None else untangled, faces)
        if untangled is not None and _is_solid(surface):
            return surface, draft
        cuts = self_intersections(points, faces)
        more += int(len(cuts) == 0 or repairs > 0)
        if len(cuts) > 0:
            repairs += 1
            draft = repaired(draft, surface.vertices_mm[np.unique(faces[cuts.ravel()])], repairs, rules)
    raise VertebralError(
        f"{draft.field.level.name}: no printable surface could be made ({check_surface(surface)}); "
        "the vertebra is too small or too flat; leave out this level"
    )


def moved_along(
    surface: Surface, draft: Draft, moved: Draft, max_error_mm: float, rules: ReconstructRules
) -> tuple[Surface, Draft]:
    """Move `surface`, made from `draft`, as `draft` was moved to become `moved`; check it again.

    Each vertex moves like the draft's nearest one. Triangles that then cut each other are smoothed; if that does not
    help, `moved` is finished anew.
    """
    nearest = cKDTree(draft.vertices).query(surface.vertices_mm)[1]
    points = _as_written(surface.vertices_mm + (moved.vertices - draft.vertices)[nearest])
    changed = (points != surface.vertices_mm).any(axis=1)
    untangled = _untangled(points, surface.faces, draft.field, rules, changed)
    if untangled is None or has_flat_faces(untangled, surface.faces):
        return finished(moved, max_error_mm, rules)
    return Surface(surface.level, untangled, surface.faces), moved


def carved(surface: Surface, other: Surface, clearance_mm: float, rules: ReconstructRules) -> Surface | None:
    """Return `surface` without what is inside `other` or nearer than about `clearance_mm`; None if that is not sound.

    The last resort for neighbours so entangled that moving them does not separate them; it leaves sharp edges.
    """
    away_mm = (clearance_mm + rules.extra_clearance_mm) * vertex_normals(other.vertices_mm, other.faces)
    left = solid_of(surface) - solid_of(replace(other, vertices_mm=other.vertices_mm + away_mm))
    pieces = sorted(left.simplify(rules.carved_error_mm).decompose(), key=lambda piece: float(piece.volume()))
    if not pieces:
        return None
    mesh = pieces[-1].to_mesh()
    points, faces = np.asarray(mesh.vert_properties, np.float64)[:, :3], np.asarray(mesh.tri_verts, np.int64)
    largest = Surface(surface.level, _as_written(points), faces)
    return largest if _is_solid(largest) and not len(self_intersections(largest.vertices_mm, faces)) else None


def solid_of(surface: Surface) -> Manifold:
    """Return the surface as a solid of Manifold, for distances and Boolean operations."""
    return Manifold(Mesh(surface.vertices_mm.astype(np.float32), surface.faces.astype(np.uint32)))


def _untangled(
    points: Points, faces: Faces, field: Field, rules: ReconstructRules, moved: NDArray[np.bool_] | None = None
) -> Points | None:
    """Return `points` (V, 3) smoothed where their faces cut each other; None if that does not help.

    `moved` as in `self_intersections`.
    """
    edge_mm = float(np.sqrt(2 * areas(points, faces).mean()))
    for attempt in range(1, rules.max_smoothings + 1):
        cuts = self_intersections(points, faces, moved)
        if len(cuts) == 0:
            return points
        reach_mm = rules.smoothing_edges * max(*field.grid.spacing_mm, edge_mm) * attempt
        smooth = _as_written(smoothed_near(points, faces, points[np.unique(faces[cuts.ravel()])], reach_mm, rules))
        changed = (smooth != points).any(axis=1)
        points, moved = smooth, changed if moved is None else changed | moved
    return points if len(self_intersections(points, faces, moved)) == 0 else None


def _as_written(points: Points) -> Points:
    """Return values that float32 holds exactly, as STL and GLB need them: what is checked is what is written."""
    return points.astype(np.float32).astype(np.float64)


def _is_solid(surface: Surface) -> bool:
    check = check_surface(surface)
    return check.manifold and check.components == 1 and check.volume_ml > 0
