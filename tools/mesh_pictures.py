"""Draw the pictures of docs/meshes.md from one label map.

python tools/mesh_pictures.py LABELS docs/images --joint L3,L4
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vertebral.core.anatomy import level_named
from vertebral.core.records import Surface
from vertebral.io.ct.read import read_labels
from vertebral.stages.preview.rendering import Picture, View, render
from vertebral.stages.reconstruct import fields_of_labels, mesh_fields
from vertebral.stages.reconstruct.config import MeshConfig

SIDES = {
    "from the left": ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
    "from behind": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "from the front": ((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "behind, left, above": ((0.707, -0.707, 0.0), (0.354, 0.354, 0.866)),
}
STAIRS = MeshConfig(smooth=0, max_error_mm=0, clearance_mm=0)
PIXELS_PER_MM = 96 / 25.4
_TIMEOUT_S = 600.0


def main() -> None:
    """Write three PNGs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--joint", default="L3,L4")
    arguments = parser.parse_args()
    labels = read_labels(arguments.labels)
    spine = mesh_fields(fields_of_labels(labels), MeshConfig()).surfaces
    _save(_side_by_side(_spine(spine)), arguments.out / "meshes_spine.png")
    pair = [level_named(name) for name in arguments.joint.split(",")]
    stairs = mesh_fields(fields_of_labels(labels, pair), STAIRS).surfaces
    smooth = [surface for surface in spine if surface.level in pair]
    _save(_side_by_side(_joint(stairs, smooth)), arguments.out / "meshes_facet_joint.png")
    _save(_printed(smooth[-1]), arguments.out / "meshes_printed_size.png")


def _view(name: str, points: np.ndarray, side: str, mm_per_px: float, size_px: tuple[int, int]) -> View:
    right, up = SIDES[side]
    x, y, z = ((points.min(axis=0) + points.max(axis=0)) / 2).tolist()
    return View(name, right, up, (x, y, z), mm_per_px, size_px)


def _spine(spine: tuple[Surface, ...]) -> dict[str, Picture]:
    points = np.concatenate([surface.vertices_mm for surface in spine])
    scale = float(np.ptp(points[:, 2])) / 720
    views = [_view(f"v{n}", points, side, scale, (300, 760)) for n, side in enumerate(SIDES)]
    return dict(zip(SIDES, render(spine, views, _TIMEOUT_S), strict=True))


def _joint(stairs: tuple[Surface, ...], smooth: list[Surface]) -> dict[str, Picture]:
    """The left facet joint from behind and left: staircases of voxels next to the surfaces as written."""
    upper, lower = (surface.vertices_mm for surface in smooth)
    gap = np.linalg.norm(upper[:, None, :][::4] - lower[None, ::4], axis=2)
    behind = (upper[::4, 1] < np.median(upper[:, 1]) - 8) & (upper[::4, 0] < np.median(upper[:, 0]) - 5)
    at = upper[::4][behind][gap[behind].min(axis=1).argmin()]
    right = SIDES["behind, left, above"][0]
    view = View("joint", right, (0.0, 0.0, 1.0), (float(at[0]), float(at[1]), float(at[2])), 0.09, (480, 480))
    return {
        "the label map's voxels": render(stairs, [view], _TIMEOUT_S)[0],
        "as written (smooth, 0.1 mm apart, fewer triangles)": render(smooth, [view], _TIMEOUT_S)[0],
    }


def _printed(surface: Surface) -> Image.Image:
    """Draw one vertebra at 96 pixels per inch, its printed size on a screen of that density, with a ruler."""
    size = (460, 400)
    views = [
        _view(f"v{n}", surface.vertices_mm, side, 1 / PIXELS_PER_MM, size) for n, side in enumerate(list(SIDES)[:2])
    ]
    picture = _side_by_side(dict(zip(list(SIDES)[:2], render([surface], views, _TIMEOUT_S), strict=True)))
    draw = ImageDraw.Draw(picture)
    for mm in range(0, 101, 10):
        x = 20 + mm * PIXELS_PER_MM
        draw.line((x, 375, x, 390 if mm % 50 else 365), fill="white")
        if mm % 50 == 0:
            draw.text((x + 3, 360), f"{mm} mm", fill="white")
    draw.line((20, 375, 20 + 100 * PIXELS_PER_MM, 375), fill="white")
    side = " x ".join(f"{mm:.0f}" for mm in np.ptp(surface.vertices_mm, axis=0))
    draw.text((460, 375), f"{surface.name}: {side} mm", fill="white")
    return picture


def _side_by_side(pictures: dict[str, Picture]) -> Image.Image:
    joined = Image.fromarray(np.concatenate(list(pictures.values()), axis=1))
    draw = ImageDraw.Draw(joined)
    x = 8
    for caption, picture in pictures.items():
        draw.text((x, 6), caption, fill="white")
        x += picture.shape[1]
    return joined


def _save(picture: Image.Image, path: Path) -> None:
    picture.quantize(200).save(path, optimize=True)


if __name__ == "__main__":
    main()
