"""A small result on disk, as `vertebral run` would have written it, without the run: a phantom's own labels."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebral.core.anatomy import BY_VERSE_ID, Level, parse_levels
from vertebral.core.records import Surface
from vertebral.core.volume import Volume
from vertebral.data.phantom import make_phantom
from vertebral.io.meshes import write_glb, write_stl
from vertebral.io.write import write_centroids, write_image, write_json, write_labels
from vertebral.runtime.hashing import file_sha256
from vertebral.stages.measure import measure
from vertebral.stages.reconstruct import check_surface, surface_from_mask
from vertebral.stages.report import page_volumes, write_report


@dataclass(frozen=True)
class Made:
    """What a result is made from: a CT and labels on one grid, and a surface per level."""

    ct: Volume
    labels: Volume
    surfaces: tuple[Surface, ...]


def phantom_parts(levels: str = "T12,L1,L2", spacing_mm: float = 4.0) -> Made:
    """A phantom with its surfaces."""
    phantom = make_phantom(parse_levels(levels), spacing_mm)
    found = [BY_VERSE_ID[int(n)] for n in np.unique(phantom.labels.array) if n]
    found.sort(key=lambda level: level.rank)
    surfaces = tuple(surface_from_mask(phantom.labels.array == n.verse_id, phantom.labels.affine, n) for n in found)
    return Made(phantom.ct, phantom.labels, surfaces)


def without_vertebrae(made: Made) -> Made:
    """The same CT in which nothing was found."""
    return Made(made.ct, Volume(np.zeros_like(made.labels.array), made.labels.affine), ())


def manifest_of(made: Made, stem: str, ct_sha256: str) -> dict[str, Any]:
    """What the run says, but for its outputs."""
    return {
        "disclaimer": "Research use only. Not for diagnosis.",
        "input": {"name": stem, "sha256": ct_sha256, "shape": made.ct.array.shape},
        "versions": {"vertebral": "0"},
        "levels": [_row(made, surface) for surface in made.surfaces],
        "level_shift": {"-1": 0.01, "+0": 0.98, "+1": 0.01},
        "runner_up": ["T11", "T12", "L1"],
        "warnings": [] if made.surfaces else ["no vertebrae were found"],
        "seconds": {"read": 0.1},
    }


def write_result(made: Made, root: Path, stem: str = "case", page: bool = True) -> tuple[Path, Path]:
    """Write CT and result below `root`; return the result's folder and the CT."""
    ct, out = root / f"{stem}_ct.nii.gz", root / "result"
    out.mkdir(parents=True)
    write_image(made.ct, ct)
    manifest = manifest_of(made, stem, file_sha256(ct))
    write_labels(made.labels, out / f"{stem}_seg-vert_msk.nii.gz")
    centroids = [(row["verse_id"], tuple(row["centroid_ras_mm"])) for row in manifest["levels"]]
    write_centroids(centroids, made.ct.grid, out / f"{stem}_seg-subreg_ctd.json")
    for surface in made.surfaces:
        write_stl(surface, out / f"{stem}_{surface.name}.stl")
    if made.surfaces:
        write_glb(made.surfaces, out / f"{stem}_spine.glb")
    if page:
        add_page(out, manifest, made)
    outputs = [{"file": p.name, "bytes": p.stat().st_size, "sha256": file_sha256(p)} for p in sorted(out.iterdir())]
    write_json({**manifest, "outputs": outputs}, out / "manifest.json")
    return out, ct


def add_page(out: Path, manifest: dict[str, Any], made: Made) -> None:
    """Measure and write `report.html` beside the files in `out`."""
    files = sorted(path.name for path in out.iterdir())
    volumes = page_volumes(made.ct, made.labels)
    write_report(out, manifest, files, made.surfaces, measure(made.labels, made.ct), volumes)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a result."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def _row(made: Made, surface: Surface) -> dict[str, Any]:
    level: Level = surface.level
    voxels = np.argwhere(made.labels.array == level.verse_id)
    return {
        "level": level.name,
        "verse_id": level.verse_id,
        "confidence": 0.9,
        "quality": 1.0,
        "needs_review": ["confidence below 0.95"] if level.name == "L2" else [],
        "volume_ml": len(voxels) * float(np.prod(made.labels.spacing_mm)) / 1000,
        "centroid_ras_mm": [float(mm) for mm in made.labels.grid.to_world(voxels.mean(0))],
        "touches_border": False,
        "mesh": asdict(check_surface(surface)),
    }
