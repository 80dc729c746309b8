"""A flat cut through a closed surface, for printing: two closed pieces, each with a flat face to rest on."""

import numpy as np
from manifold3d import Manifold

from vertebral.core.errors import VertebralError
from vertebral.core.mesh_checks import check_surface
from vertebral.core.records import Surface
from vertebral.stages.reconstruct.finishing import solid_of
from vertebral.stages.reconstruct.rules import RECONSTRUCT_RULES, ReconstructRules

# World axis (0 R, 1 A, 2 S) and the names of the pieces towards its lower and its higher end.
PLANES = {
    "sagittal": (0, "left", "right"),
    "coronal": (1, "posterior", "anterior"),
    "axial": (2, "inferior", "superior"),
}


def cut(surface: Surface, plane: str, at_mm: float, rules: ReconstructRules = RECONSTRUCT_RULES) -> tuple[Surface, ...]:
    """Cut by a plane of PLANES at `at_mm` along its axis (RAS+); the pieces are named after their side, lower first.

    A surface that the plane misses or barely touches is returned whole. Raises VertebralError if a piece would not be
    closed.
    """
    axis, *sides = PLANES[plane]
    normal = [0.0, 0.0, 0.0]
    normal[axis] = 1.0
    higher, lower = solid_of(surface).split_by_plane(normal, at_mm)
    if min(lower.volume(), higher.volume()) < rules.min_piece_mm3:
        return (surface,)
    return tuple(_piece(surface, solid, side) for solid, side in zip((lower, higher), sides, strict=True))


def _piece(surface: Surface, solid: Manifold, side: str) -> Surface:
    mesh = solid.to_mesh()
    vertices = np.asarray(mesh.vert_properties, np.float64)[:, :3]
    piece = Surface(surface.level, vertices, np.asarray(mesh.tri_verts, np.int64), side)
    if not check_surface(piece).watertight:
        raise VertebralError(f"{piece.name}: this cut leaves no closed piece; move the plane a little")
    return piece
