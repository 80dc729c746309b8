"""The notebook of the documentation runs from top to bottom and makes what it shows."""

import csv
import subprocess
import sys
from pathlib import Path

import trimesh
from PIL import Image

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "from-ct-to-table.py"


def test_the_notebook_makes_a_table_a_mesh_and_a_picture(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, NOTEBOOK], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stderr
    with (tmp_path / "vertebrae.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["level"]: row for row in csv.DictReader(file)}
    for level in ("T8", "T9", "T10", "T11", "T12"):
        assert float(rows[level]["volume_ml"]) > 15
    assert float(rows["T10"]["height_middle_mm"]) > 10
    for name in ("T10.stl", "T10_for_printing.stl", "T11_for_printing.stl"):
        assert trimesh.load_mesh(tmp_path / name).is_watertight, name
    with Image.open(tmp_path / "result" / "ct_preview.png") as picture:
        assert min(picture.size) > 300
    assert (tmp_path / "result" / "manifest.json").is_file()
