"""Mesh every label map of a folder and write one row per map; an interrupted run resumes.

nice python tools/mesh_labels.py LABELS out.csv [--limit N]
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np

from vertebral.core.mesh_checks import check_surface
from vertebral.core.mesh_intersections import self_intersections
from vertebral.io.ct.read import read_labels
from vertebral.io.meshes import write_glb, write_stl
from vertebral.io.three_mf import write_3mf
from vertebral.stages.reconstruct import Reconstruction, fields_of_labels, mesh_fields
from vertebral.stages.reconstruct.config import MeshConfig

_LEAST_ML = 1.0


def main() -> None:
    """Append a row per map to the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    done = set()
    if arguments.out.exists():
        with arguments.out.open(encoding="utf-8") as stream:
            done = {row["map"] for row in csv.DictReader(stream)}
    paths = [path for path in sorted(arguments.labels.rglob("*.nii.gz")) if _name(path) not in done]
    for path in paths[: arguments.limit]:
        row = _row(path)
        with arguments.out.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, row.keys())
            if stream.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name.removesuffix('_seg-vert_msk.nii.gz')}"


def _row(path: Path) -> dict[str, object]:
    config = MeshConfig()
    start = time.perf_counter()
    labels = read_labels(path)
    read_s, start, processor = time.perf_counter() - start, time.perf_counter(), time.process_time()
    made = mesh_fields(fields_of_labels(labels), config)
    wall_s, processor_s = time.perf_counter() - start, time.process_time() - processor
    checks = [check_surface(surface) for surface in made.surfaces]
    sources = np.array([field.volume_mm3 / 1000 for field in made.fields])
    # Small pieces of vertebrae at the border are meshed like all others, but their volume is dominated by the surface.
    whole = sources >= _LEAST_ML
    change = 100 * (np.array([check.volume_ml for check in checks]) / sources - 1)[whole]
    return {
        "map": _name(path),
        "spacing_mm": "x".join(f"{mm:.2f}" for mm in labels.spacing_mm),
        "vertebrae": len(made.surfaces),
        "watertight": sum(check.watertight for check in checks),
        "manifold": sum(check.manifold and check.components == 1 and check.volume_ml > 0 for check in checks),
        "self_intersecting": sum(len(self_intersections(s.vertices_mm, s.faces)) > 0 for s in made.surfaces),
        "under_1_ml": int((~whole).sum()),
        "volume_change_mean_percent": round(float(np.abs(change).mean()), 3),
        "volume_change_worst_percent": round(float(change[np.abs(change).argmax()]), 3),
        "dropped_ml": round(float(sum(field.dropped_mm3 for field in made.fields)) / 1000, 3),
        "neighbours": len(made.gaps),
        "intersecting": sum(gap.mm <= 0 for gap in made.gaps),
        "least_gap_mm": round(min((gap.mm for gap in made.gaps), default=2.0), 3),
        "faces": sum(len(surface.faces) for surface in made.surfaces),
        "read_s": round(read_s, 1),
        "wall_s": round(wall_s, 1),
        "processor_s": round(processor_s, 1),
        **_sizes(made),
    }


def _sizes(made: Reconstruction) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        for surface in made.surfaces:
            write_stl(surface, Path(folder) / f"{surface.name}.stl")
        stl = sum(file.stat().st_size for file in Path(folder).iterdir())
        write_glb(made.surfaces, Path(folder) / "spine.glb")
        write_3mf(made.surfaces, Path(folder) / "spine.3mf")
        glb, three_mf = ((Path(folder) / name).stat().st_size for name in ("spine.glb", "spine.3mf"))
    return {"stl_mb": round(stl / 1e6, 2), "glb_mb": round(glb / 1e6, 2), "3mf_mb": round(three_mf / 1e6, 2)}


if __name__ == "__main__":
    main()
