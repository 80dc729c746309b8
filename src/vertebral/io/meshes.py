# mypy: allow-untyped-calls
"""Surfaces to disk: STL, PLY and OBJ for one each, GLB for all of them; 3MF is in `io.three_mf`.

All hold mm, in RAS+ unless `frame` says LPS, the frame of DICOM and ITK, and say so where the format has room for it.
STL and PLY say it as 3D Slicer reads it (`SPACE=RAS`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_NAME, Level
from vertebral.core.errors import ReadError, VertebralError
from vertebral.core.mesh_checks import Points
from vertebral.core.records import Surface
from vertebral.io.write import atomic_write

if TYPE_CHECKING:  # it takes half a second to import, which reading a CT need not wait for
    import trimesh

Frame = Literal["RAS", "LPS"]

_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
# glTF counts in metres, with Y up, a model's front towards Z and its right towards -X.
_RAS_MM_TO_GLTF = np.array([[-0.001, 0, 0, 0], [0, 0, 0.001, 0], [0, 0.001, 0, 0], [0, 0, 0, 1]])
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))


def vertices_in(surface: Surface, frame: Frame) -> Points:
    """Return the vertices (V, 3) in mm in `frame`. LPS is RAS turned by half a turn: faces keep their sense."""
    return surface.vertices_mm if frame == "RAS" else surface.vertices_mm * (-1.0, -1.0, 1.0)


def require_names(surfaces: Sequence[Surface], path: Path) -> None:
    """Raise VertebralError where there is no surface or a name comes twice."""
    names = [surface.name for surface in surfaces]
    if not names:
        raise VertebralError(f"{path}: there is no surface to write")
    if len(set(names)) < len(names):
        raise VertebralError(f"{path}: a level comes twice in {', '.join(names)}: name each vertebra once")


def write_stl(surface: Surface, path: Path, frame: Frame = "RAS") -> None:
    """Write one binary STL: mm, with a header that says so (`vertebral L1 mm SPACE=RAS`).

    Raises InputError where the folder cannot be written to.
    """
    content = stl_bytes(surface, frame)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def stl_bytes(surface: Surface, frame: Frame) -> bytes:
    """Return what `write_stl` writes."""
    corners = vertices_in(surface, frame)[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangles = np.zeros(len(corners), _STL_TRIANGLE)
    triangles["corners"] = corners
    triangles["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    header = f"vertebral {surface.name} mm SPACE={frame}".encode("ascii").ljust(80, b" ")
    return header + len(triangles).to_bytes(4, "little") + triangles.tobytes()


def read_stl(path: Path, level: Level) -> Surface:
    """Read what `write_stl` wrote in RAS+; each triangle has its own three vertices. Raises ReadError for others."""
    content = path.read_bytes()
    count = int(np.frombuffer(content[80:84], "<u4")[0]) if len(content) >= 84 else -1
    if b"SPACE=RAS" not in content[:80] or len(content) != 84 + count * _STL_TRIANGLE.itemsize:
        raise ReadError(f"{path}: not a surface that `vertebral run` wrote; run it again")
    corners = np.frombuffer(content[84:], _STL_TRIANGLE)["corners"].astype(np.float64).reshape(-1, 3)
    return Surface(level, corners, np.arange(len(corners)).reshape(-1, 3))


def write_ply(surface: Surface, path: Path, frame: Frame = "RAS") -> None:
    """Write one binary PLY: mm, with comments that name the level and the frame. Raises InputError as `write_stl`."""
    lines = (
        "ply",
        "format binary_little_endian 1.0",
        f"comment vertebral {surface.name}, mm",
        f"comment SPACE={frame}",
        f"element vertex {len(surface.vertices_mm)}",
        *(f"property float {axis}" for axis in "xyz"),
        f"element face {len(surface.faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    )
    faces = np.zeros(len(surface.faces), _PLY_FACE)
    faces["count"], faces["corners"] = 3, surface.faces
    points = vertices_in(surface, frame).astype("<f4")
    with atomic_write(path) as temporary:
        temporary.write_bytes(("\n".join(lines) + "\n").encode("ascii") + points.tobytes() + faces.tobytes())


def write_obj(surface: Surface, path: Path, frame: Frame = "RAS") -> None:
    """Write one OBJ with an object named after the level, mm; a comment tells the frame. Raises as `write_stl`."""
    points = ("v %.9g %.9g %.9g\n" * len(surface.vertices_mm)) % tuple(vertices_in(surface, frame).ravel().tolist())
    faces = ("f %d %d %d\n" * len(surface.faces)) % tuple((surface.faces.ravel() + 1).tolist())
    with atomic_write(path) as temporary:
        temporary.write_text(f"# vertebral, mm, SPACE={frame}\no {surface.name}\n{points}{faces}", encoding="ascii")


def write_glb(surfaces: Sequence[Surface], path: Path, frame: Frame = "RAS") -> None:
    """Write one GLB (glTF 2.0) with one node and mesh per level, named after it and in its colour.

    The vertices stay in mm in `frame` below a root node `spine` that turns them into glTF's frame, so that viewers show
    the spine upright; `asset.extras` says so. Raises VertebralError where there is no surface or a level comes twice,
    InputError where the folder cannot be written to.
    """
    import trimesh

    require_names(surfaces, path)
    turn = _RAS_MM_TO_GLTF if frame == "RAS" else _RAS_MM_TO_GLTF @ _LPS_TO_RAS
    scene = trimesh.Scene(base_frame="world")
    scene.graph.update(frame_to="spine", frame_from="world", matrix=turn)
    for surface in surfaces:
        scene.add_geometry(
            _coloured(surface, frame), node_name=surface.name, geom_name=surface.name, parent_node_name="spine"
        )

    def describe(tree: dict[str, Any]) -> None:
        note = f"vertices are in {frame}+ mm; the root node turns them into glTF's metres, Y up, front towards Z"
        tree["asset"]["extras"] = {"units": "mm", "frame": f"{frame}+", "note": note}

    content = scene.export(file_type="glb", include_normals=True, tree_postprocessor=describe)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _coloured(surface: Surface, frame: Frame) -> "trimesh.Trimesh":
    import trimesh
    from trimesh.visual.material import PBRMaterial

    mesh = trimesh.Trimesh(vertices_in(surface, frame), surface.faces, process=False)
    colour = (*_linear_rgb(surface.level), 1.0)
    material = PBRMaterial(
        name=surface.name, baseColorFactor=colour, metallicFactor=0.0, roughnessFactor=0.7, doubleSided=False
    )
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    return mesh


def _linear_rgb(level: Level) -> NDArray[np.float64]:
    """Return the display colour (sRGB, 0-255) as glTF wants its factors: linear, 0-1."""
    srgb = np.array(level.rgb) / 255
    return np.asarray(np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4))


def read_glb(path: Path) -> tuple[Surface, ...]:
    """Read back the surfaces that `write_glb` wrote in RAS, from head to tail. Raises ReadError for another file."""
    import trimesh

    try:
        scene = trimesh.load_scene(path, file_type="glb", process=False)
        found = [(*name.partition("-")[::2], mesh) for name, mesh in scene.geometry.items()]
        surfaces = [
            Surface(BY_NAME[level], np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64), part)
            for level, part, mesh in found
        ]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
        raise ReadError(f"{path}: not the meshes of `vertebral run` ({error!r})") from error
    return tuple(sorted(surfaces, key=lambda surface: (surface.level.rank, surface.part)))
