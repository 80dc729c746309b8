"""A flat cut through closed surfaces, as a print aid: two closed parts, each with a flat face to lie on."""

import numpy as np
from manifold3d import Manifold, Mesh

from vertebral.core.errors import VertebralError
from vertebral.core.mesh_checks import check_surface
from vertebral.core.records import Surface

# World axis (0 R, 1 A, 2 S) and the names of the parts towards its lower and its higher end.
PLANES = {
    "sagittal": (0, "left", "right"),
    "coronal": (1, "posterior", "anterior"),
    "axial": (2, "inferior", "superior"),
}
_LEAST_PART_MM3 = 1.0


def cut(surface: Surface, plane: str, at_mm: float) -> tuple[Surface, ...]:
    """Cut by a plane of PLANES at `at_mm` along its axis (RAS+); parts are named after their side, lower first.

    A surface that the plane misses, or of which it shaves off under 1 mm3, comes back whole. Raises VertebralError
    where a part would not be closed.
    """
    axis, *sides = PLANES[plane]
    solid = Manifold(Mesh(surface.vertices_mm.astype(np.float32), surface.faces.astype(np.uint32)))
    normal = [0.0, 0.0, 0.0]
    normal[axis] = 1.0
    higher, lower = solid.split_by_plane(normal, at_mm)
    if min(lower.volume(), higher.volume()) < _LEAST_PART_MM3:
        return (surface,)
    return tuple(_part(surface, part, side) for part, side in zip((lower, higher), sides, strict=True))


def _part(surface: Surface, solid: Manifold, side: str) -> Surface:
    mesh = solid.to_mesh()
    vertices = np.asarray(mesh.vert_properties, np.float64)[:, :3]
    part = Surface(surface.level, vertices, np.asarray(mesh.tri_verts, np.int64), side)
    if not check_surface(part).watertight:
        raise VertebralError(f"{part.name}: the cut leaves no closed part; move the plane a little")
    return part
