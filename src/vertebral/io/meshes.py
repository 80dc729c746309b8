# mypy: allow-untyped-calls
"""Write and read surfaces: STL, PLY and OBJ with one each, GLB with all; 3MF is in `io.three_mf`.

Vertices are in mm, in RAS+ unless `frame` is LPS, the frame of DICOM and ITK. STL and PLY state the frame in the form
that 3D Slicer reads (`SPACE=RAS`).
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

if TYPE_CHECKING:  # importing it takes half a second
    import trimesh

Frame = Literal["RAS", "LPS"]

_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
# glTF is in metres, with Y up, the front of a model towards Z and its right towards -X.
_RAS_MM_TO_GLTF = np.array([[-0.001, 0, 0, 0], [0, 0, 0.001, 0], [0, 0.001, 0, 0], [0, 0, 0, 1]])
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))


def vertices_in(surface: Surface, frame: Frame) -> Points:
    """Return the vertices (V, 3) in mm in `frame`. LPS is RAS rotated by 180 degrees: faces keep their orientation."""
    return surface.vertices_mm if frame == "RAS" else surface.vertices_mm * (-1.0, -1.0, 1.0)


def require_names(surfaces: Sequence[Surface], path: Path) -> None:
    """Raise VertebralError if there is no surface, or two have the same name."""
    names = [surface.name for surface in surfaces]
    if not names:
        raise VertebralError(f"{path}: there is no surface to write")
    if len(set(names)) < len(names):
        raise VertebralError(f"{path}: a level occurs twice in {', '.join(names)}: name each vertebra once")


def write_stl(surface: Surface, path: Path, frame: Frame = "RAS") -> None:
    """Write one binary STL in mm, with the header `vertebral L1 mm SPACE=RAS`.

    Raises InputError if the folder is not writable.
    """
    content = stl_bytes(surface, frame)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def stl_bytes(surface: Surface, frame: Frame) -> bytes:
    """Return the content of an STL file of `write_stl`."""
    corners = vertices_in(surface, frame)[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangles = np.zeros(len(corners), _STL_TRIANGLE)
    triangles["corners"] = corners
    triangles["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    header = f"vertebral {surface.name} mm SPACE={frame}".encode("ascii").ljust(80, b" ")
    return header + len(triangles).to_bytes(4, "little") + triangles.tobytes()


def read_stl(path: Path, level: Level) -> Surface:
    """Read a RAS+ file of `write_stl`; each triangle has its own three vertices. Raises ReadError for other files."""
    content = path.read_bytes()
    count = int(np.frombuffer(content[80:84], "<u4")[0]) if len(content) >= 84 else -1
    if b"SPACE=RAS" not in content[:80] or len(content) != 84 + count * _STL_TRIANGLE.itemsize:
        raise ReadError(f"{path}: not an STL file of `vertebral run`; run it again")
    corners = np.frombuffer(content[84:], _STL_TRIANGLE)["corners"].astype(np.float64).reshape(-1, 3)
    return Surface(level, corners, np.arange(len(corners)).reshape(-1, 3))


def write_ply(surface: Surface, path: Path, frame: Frame = "RAS") -> None:
    """Write one binary PLY in mm, with the level and the frame in comments. Raises as `write_stl`."""
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
    """Write one OBJ in mm, its object named after the level, with the frame in a comment. Raises as `write_stl`."""
    points = ("v %.9g %.9g %.9g\n" * len(surface.vertices_mm)) % tuple(vertices_in(surface, frame).ravel().tolist())
    faces = ("f %d %d %d\n" * len(surface.faces)) % tuple((surface.faces.ravel() + 1).tolist())
    with atomic_write(path) as temporary:
        temporary.write_text(f"# vertebral, mm, SPACE={frame}\no {surface.name}\n{points}{faces}", encoding="ascii")


def write_glb(surfaces: Sequence[Surface], path: Path, frame: Frame = "RAS") -> None:
    """Write one GLB (glTF 2.0) with one node and mesh per level, named after it and in its colour.

    The vertices are in mm in `frame`; a root node `spine` converts them to glTF's frame, so that viewers show the spine
    upright, and `asset.extras` describes this. Raises VertebralError if there is no surface or a level occurs twice,
    InputError if the folder is not writable.
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
    """Return the display colour (sRGB, 0-255) as a glTF factor: linear, 0-1."""
    srgb = np.array(level.rgb) / 255
    return np.asarray(np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4))


def read_glb(path: Path) -> tuple[Surface, ...]:
    """Read a RAS file of `write_glb`, from head to tail. Raises ReadError for other files."""
    import trimesh

    try:
        scene = trimesh.load_scene(path, file_type="glb", process=False)
        found = [(*name.partition("-")[::2], mesh) for name, mesh in scene.geometry.items()]
        surfaces = [
            Surface(BY_NAME[level], np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64), part)
            for level, part, mesh in found
        ]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
        raise ReadError(f"{path}: not a GLB file of `vertebral run` ({error!r}); run it again") from error
    return tuple(sorted(surfaces, key=lambda surface: (surface.level.rank, surface.part)))
