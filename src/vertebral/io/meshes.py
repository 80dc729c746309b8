# mypy: allow-untyped-calls
"""Surfaces to disk: STL for printing, GLB for looking at. Both hold vertices in RAS+ mm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.visual.material import PBRMaterial

from vertebral.anatomy import Level
from vertebral.errors import VertebralError
from vertebral.io.write import atomic_write
from vertebral.records import Surface

_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
# glTF counts in metres, with Y up, a model's front towards Z and its right towards -X.
_RAS_MM_TO_GLTF = np.array([[-0.001, 0, 0, 0], [0, 0, 0.001, 0], [0, 0.001, 0, 0], [0, 0, 0, 1]])
_GLB_FRAME = "vertices are in RAS+ mm; the root node turns them into glTF's metres, Y up, front towards Z"


def write_stl(surface: Surface, path: Path) -> None:
    """Write one binary STL: mm, RAS+, with a header that says so (`vertebral L1 RAS mm`).

    Raises InputError where the folder cannot be written to.
    """
    corners = surface.vertices_mm[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangles = np.zeros(len(corners), _STL_TRIANGLE)
    triangles["corners"] = corners
    triangles["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    header = f"vertebral {surface.level.name} RAS mm".encode("ascii").ljust(80, b" ")
    with atomic_write(path) as temporary:
        temporary.write_bytes(header + np.uint32(len(triangles)).astype("<u4").tobytes() + triangles.tobytes())


def write_glb(surfaces: Sequence[Surface], path: Path) -> None:
    """Write one GLB (glTF 2.0) with one node and mesh per level, named after it and in its colour.

    The vertices stay in RAS+ mm below a root node `spine` that turns them into glTF's frame, so that viewers show the
    spine upright; `asset.extras` says so. Raises VertebralError where there is no surface or a level comes twice,
    InputError where the folder cannot be written to.
    """
    names = [surface.level.name for surface in surfaces]
    if not names:
        raise VertebralError(f"{path}: there is no surface to write")
    if len(set(names)) < len(names):
        raise VertebralError(f"{path}: a level comes twice in {', '.join(names)}: name each vertebra once")
    scene = trimesh.Scene(base_frame="world")
    scene.graph.update(frame_to="spine", frame_from="world", matrix=_RAS_MM_TO_GLTF)
    for surface in surfaces:
        scene.add_geometry(
            _coloured(surface), node_name=surface.level.name, geom_name=surface.level.name, parent_node_name="spine"
        )
    content = scene.export(file_type="glb", include_normals=True, tree_postprocessor=_describe)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _coloured(surface: Surface) -> trimesh.Trimesh:
    mesh = trimesh.Trimesh(surface.vertices_mm, surface.faces, process=False)
    colour = (*_linear_rgb(surface.level), 1.0)
    material = PBRMaterial(
        name=surface.level.name, baseColorFactor=colour, metallicFactor=0.0, roughnessFactor=0.7, doubleSided=False
    )
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    return mesh


def _linear_rgb(level: Level) -> NDArray[np.float64]:
    """Return the display colour (sRGB, 0-255) as glTF wants its factors: linear, 0-1."""
    srgb = np.array(level.rgb) / 255
    return np.asarray(np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4))


def _describe(tree: dict[str, Any]) -> None:
    """Say in the file what its numbers mean."""
    tree["asset"]["extras"] = {"units": "mm", "frame": "RAS+", "note": _GLB_FRAME}
