import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import VertebralError
from vertebral.core.records import Surface
from vertebral.io.meshes import Frame
from vertebral.io.three_mf import write_3mf

CORNER = np.array([[-50.0, -20, 30], [-40, -20, 30], [-50, -10, 30], [-50, -20, 40]])
CORNER_FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
CORE = "{http://schemas.microsoft.com/3dmanufacturing/core/2015/02}"


def tetrahedron(name: str, part: str = "") -> Surface:
    return Surface(BY_NAME[name], CORNER, CORNER_FACES, part)


def model_of(path: Path) -> ElementTree.Element:
    with zipfile.ZipFile(path) as package:
        assert package.namelist() == ["[Content_Types].xml", "_rels/.rels", "3D/3dmodel.model"]
        return ElementTree.fromstring(package.read("3D/3dmodel.model"))


@pytest.mark.parametrize(("frame", "sign"), [("RAS", 1), ("LPS", -1)])
def test_one_object_per_vertebra_in_mm(tmp_path: Path, frame: Frame, sign: int) -> None:
    write_3mf([tetrahedron("L1"), tetrahedron("L2", "left")], tmp_path / "spine.3mf", frame)
    model = model_of(tmp_path / "spine.3mf")
    assert model.get("unit") == "millimeter"
    assert f"{frame}+ mm" in (model.findall(f"{CORE}metadata")[1].text or "")
    objects = model.findall(f".//{CORE}object")
    assert [one.get("name") for one in objects] == ["L1", "L2-left"]
    bases = model.findall(f".//{CORE}base")
    for one, level in zip(objects, ("L1", "L2"), strict=True):
        red, green, blue = BY_NAME[level].rgb
        assert bases[int(one.get("pindex", "-1"))].get("displaycolor") == f"#{red:02X}{green:02X}{blue:02X}"
        points = [[float(v.get(axis, "nan")) for axis in "xyz"] for v in one.iter(f"{CORE}vertex")]
        assert np.array(points) == pytest.approx(CORNER * (sign, sign, 1))
        corners = [[int(t.get(f"v{n}", "-1")) for n in (1, 2, 3)] for t in one.iter(f"{CORE}triangle")]
        assert corners == CORNER_FACES.tolist()
        transform = model.findall(f".//{CORE}item")[0].get("transform", "").split()
        placed = np.array(points) + np.array(transform[9:], float)
        assert placed.min(axis=0) == pytest.approx([10, 10, 10])


def test_the_same_surfaces_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.3mf", "b.3mf"):
        write_3mf([tetrahedron("L1")], tmp_path / name)
    assert (tmp_path / "a.3mf").read_bytes() == (tmp_path / "b.3mf").read_bytes()


def test_nothing_and_doubles_are_refused(tmp_path: Path) -> None:
    for surfaces, message in (([], "no surface"), ([tetrahedron("L1")] * 2, "twice")):
        with pytest.raises(VertebralError, match=message):
            write_3mf(surfaces, tmp_path / "a.3mf")
    assert list(tmp_path.iterdir()) == []
