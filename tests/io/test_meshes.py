import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import InputError, VertebralError
from vertebral.core.records import Surface
from vertebral.io.meshes import Frame, write_glb, write_obj, write_ply, write_stl
from vertebral.stages.reconstruct import surface_from_mask

BALL = np.linalg.norm(np.indices((16, 16, 16)) - 7.5, axis=0) < 6


def ball(name: str, z_mm: float) -> Surface:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (100, -200, z_mm)
    return surface_from_mask(BALL, affine, BY_NAME[name])


def tree_of(path: Path) -> dict:
    content = path.read_bytes()
    return json.loads(content[20 : 20 + struct.unpack("<I", content[12:16])[0]])


def test_stl_reads_back_as_written(tmp_path: Path) -> None:
    surface = ball("T13", -30)
    write_stl(surface, tmp_path / "scan_T13.stl")
    content = (tmp_path / "scan_T13.stl").read_bytes()
    assert content[:80].rstrip() == b"vertebral T13 mm SPACE=RAS"
    assert len(content) == 84 + 50 * len(surface.faces)
    mesh = trimesh.load(tmp_path / "scan_T13.stl")
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert len(mesh.vertices) == len(surface.vertices_mm)
    assert mesh.volume == pytest.approx(BALL.sum(), rel=1e-3)
    assert (mesh.bounds == [surface.vertices_mm.min(axis=0), surface.vertices_mm.max(axis=0)]).all()


def test_stl_normals_look_outward(tmp_path: Path) -> None:
    surface = ball("L1", 0)
    write_stl(surface, tmp_path / "a.stl")
    layout = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    records = np.frombuffer((tmp_path / "a.stl").read_bytes()[84:], layout)
    outward = records["corners"].mean(axis=1) - surface.vertices_mm.mean(axis=0)
    assert (records["normal"] * outward).sum(axis=1).min() > 0
    assert np.linalg.norm(records["normal"], axis=1) == pytest.approx(1, abs=1e-5)


def test_glb_has_a_named_coloured_node_per_level(tmp_path: Path) -> None:
    surfaces = [ball("T12", 20), ball("L1", 0)]
    write_glb(surfaces, tmp_path / "scan_spine.glb")
    scene = trimesh.load(tmp_path / "scan_spine.glb")
    assert set(scene.geometry) == {"T12", "L1"}
    assert set(scene.graph.nodes_geometry) == {"T12", "L1"}
    right, front, up = np.concatenate([surface.vertices_mm for surface in surfaces]).T / 1000
    points = np.stack([-right, up, front], axis=1)  # glTF: -X is the model's right, Y up, Z its front
    assert scene.bounds == pytest.approx(np.array([points.min(axis=0), points.max(axis=0)]), abs=1e-6)
    assert scene.geometry["L1"].bounds[0] == pytest.approx(surfaces[1].vertices_mm.min(axis=0))
    assert scene.geometry["L1"].volume == pytest.approx(BALL.sum(), rel=1e-3)
    for surface in surfaces:
        linear = scene.geometry[surface.level.name].visual.material.baseColorFactor[:3] / 255
        srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
        assert srgb * 255 == pytest.approx(surface.level.rgb, abs=3)


def test_glb_says_what_its_numbers_mean(tmp_path: Path) -> None:
    write_glb([ball("L1", 0)], tmp_path / "spine.glb")
    tree = tree_of(tmp_path / "spine.glb")
    assert tree["asset"]["extras"]["note"] == (
        "vertices are in RAS+ mm; the root node turns them into glTF's metres, Y up, front towards Z"
    )
    (root,) = (tree["nodes"][n] for n in tree["scenes"][0]["nodes"])
    assert root["name"] == "spine"
    matrix = np.reshape(root["matrix"], (4, 4)).T  # glTF stores columns
    assert matrix @ (1000, 0, 0, 1) == pytest.approx([-1, 0, 0, 1])
    assert matrix @ (0, 1000, 0, 1) == pytest.approx([0, 0, 1, 1])
    assert matrix @ (0, 0, 1000, 1) == pytest.approx([0, 1, 0, 1])
    assert [tree["nodes"][n]["name"] for n in root["children"]] == ["L1"]
    assert "NORMAL" in tree["meshes"][0]["primitives"][0]["attributes"]


def test_glb_refuses_nothing_and_doubles(tmp_path: Path) -> None:
    with pytest.raises(VertebralError, match="no surface"):
        write_glb([], tmp_path / "a.glb")
    with pytest.raises(VertebralError, match="twice"):
        write_glb([ball("L1", 0), ball("L1", 40)], tmp_path / "a.glb")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_stl(ball("L1", 0), tmp_path / "nowhere" / "a.stl")


@pytest.mark.parametrize(("frame", "sign"), [("RAS", 1), ("LPS", -1)])
def test_ply_and_obj_read_back_as_written_and_name_their_frame(tmp_path: Path, frame: Frame, sign: int) -> None:
    surface = ball("L1", 5)
    for write, name in ((write_ply, "a.ply"), (write_obj, "a.obj"), (write_stl, "a.stl")):
        write(surface, tmp_path / name, frame)
        assert f"SPACE={frame}".encode() in (tmp_path / name).read_bytes()[:200]
        mesh = trimesh.load(tmp_path / name)
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(BALL.sum(), rel=1e-3)
        corners = surface.vertices_mm * (sign, sign, 1)
        assert mesh.bounds == pytest.approx(np.array([corners.min(axis=0), corners.max(axis=0)]), abs=1e-4)


def test_a_glb_in_lps_stands_as_one_in_ras(tmp_path: Path) -> None:
    for frame in ("RAS", "LPS"):
        write_glb([ball("L1", 0)], tmp_path / f"{frame}.glb", frame)
    ras, lps = (trimesh.load(tmp_path / f"{frame}.glb") for frame in ("RAS", "LPS"))
    assert lps.bounds == pytest.approx(ras.bounds, abs=1e-6)
    assert lps.geometry["L1"].bounds[0][0] == pytest.approx(-ras.geometry["L1"].bounds[1][0])
    assert tree_of(tmp_path / "LPS.glb")["asset"]["extras"]["frame"] == "LPS+"
