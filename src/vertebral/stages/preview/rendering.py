"""Pictures of surfaces: VTK off screen, in a process of its own, and a simple z-buffer if that fails.

On a machine without EGL and OSMesa, VTK crashes its process (signal 11) instead of raising an error; hence the process.
Both renderers use the same parallel projection, so annotations can be placed with `View.pixels`.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vertebral.core.errors import RenderError
from vertebral.core.mesh_checks import Faces, Points, face_normals, vertex_normals
from vertebral.core.records import Surface

Picture = NDArray[np.uint8]

BACKGROUND_RGB = (17, 20, 26)
_TIMEOUT_S = 120.0
# The share of the picture that the surfaces fill along R, A and S; the rest is for the names of the levels.
_FILLED = (0.78, 0.78, 0.92)
_AMBIENT = 0.25
_LIGHT = (-0.35, 0.45, 0.82)  # towards image right, up, and towards the viewer
_SUPERSAMPLING = 2
_LARGEST_TRIANGLE_PX = 12


@dataclass(frozen=True)
class View:
    """A parallel projection: RAS+ directions of image right and up, the point in the middle in mm, and the scale."""

    name: str
    right: tuple[float, float, float]
    up: tuple[float, float, float]
    centre_mm: tuple[float, float, float]
    mm_per_px: float
    size_px: tuple[int, int]

    @property
    def axes(self) -> Points:
        """Rows: image right, image up, towards the viewer."""
        return np.array([self.right, self.up, np.cross(self.right, self.up)], np.float64)

    def pixels(self, points_mm: Points) -> Points:
        """Map (N, 3) RAS+ mm to (column, row, height towards the viewer), all in pixels."""
        seen = (points_mm - np.array(self.centre_mm)) @ self.axes.T / self.mm_per_px
        return np.asarray(seen * (1, -1, 1) + (self.size_px[0] / 2, self.size_px[1] / 2, 0), np.float64)


def lateral_and_posterior(surfaces: Sequence[Surface], size_px: tuple[int, int]) -> tuple[View, View]:
    """Frame `surfaces` from the patient's left (anterior on image left) and from behind, at one scale.

    `size_px` is the width and height of each picture.
    """
    points = np.concatenate([surface.vertices_mm for surface in surfaces])
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.maximum(high - low, 1.0)
    sides = np.array([size_px[0], size_px[0], size_px[1]]) * _FILLED
    scale = float((extent / sides).max())
    x, y, z = ((low + high) / 2).tolist()
    return (
        View("lateral", (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (x, y, z), scale, size_px),
        View("posterior", (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (x, y, z), scale, size_px),
    )


def render(surfaces: Sequence[Surface], views: Sequence[View], timeout_s: float = _TIMEOUT_S) -> tuple[Picture, ...]:
    """Render with VTK in another process; one uint8 picture (height, width, 3) per view.

    Raises RenderError if that process fails or takes longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="vertebral-") as folder:
        job, result = Path(folder) / "job.npz", Path(folder) / "pictures.npz"
        np.savez(job, **_packed(surfaces, views))  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        # Run as a file, not as a module: importing the package would take longer than drawing.
        command = [sys.executable, str(Path(__file__).with_name("offscreen.py")), str(job), str(result)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RenderError(f"the renderer did not finish: {error}") from error
        if done.returncode != 0 or not result.is_file():
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise RenderError(
                f"the renderer ended with code {done.returncode} {last}: VTK needs EGL or OSMesa "
                "(Debian: libegl1 and libgl1-mesa-dri, or libosmesa6)"
            )
        with np.load(result) as pictures:
            return tuple(pictures[view.name] for view in views)


def render_plainly(surfaces: Sequence[Surface], view: View) -> Picture:
    """Render with a z-buffer in numpy, (height, width, 3) uint8: slower and coarser than VTK, but without OpenGL."""
    width, height = (side * _SUPERSAMPLING for side in view.size_px)
    corners, colours = _shaded_triangles(surfaces, view)
    pixel, depth, triangle = _fragments(corners * _SUPERSAMPLING, width, height)
    nearest = np.full(width * height, -np.inf)
    np.maximum.at(nearest, pixel, depth)
    seen = depth >= nearest[pixel]
    picture = np.tile(np.array(BACKGROUND_RGB, np.float32), (width * height, 1))
    picture[pixel[seen]] = colours[triangle[seen]]
    blocks = picture.reshape(view.size_px[1], _SUPERSAMPLING, view.size_px[0], _SUPERSAMPLING, 3)
    return np.asarray(blocks.mean(axis=(1, 3)).round(), np.uint8)


def _packed(surfaces: Sequence[Surface], views: Sequence[View]) -> dict[str, NDArray[Any]]:
    job: dict[str, NDArray[Any]] = {
        "names": np.array([view.name for view in views]),
        "count": np.array(len(surfaces)),
        "background": np.array(BACKGROUND_RGB) / 255,
    }
    for view in views:
        job[f"{view.name}_axes"] = view.axes
        job[f"{view.name}_frame"] = np.array([*view.centre_mm, view.mm_per_px, *view.size_px])
    for n, surface in enumerate(surfaces):
        job[f"vertices{n}"] = surface.vertices_mm.astype(np.float32)
        job[f"normals{n}"] = vertex_normals(surface.vertices_mm, surface.faces).astype(np.float32)
        job[f"faces{n}"] = surface.faces
        job[f"rgb{n}"] = np.array(surface.level.rgb) / 255
    return job


def _shaded_triangles(surfaces: Sequence[Surface], view: View) -> tuple[Points, NDArray[np.float32]]:
    """Return the triangles that face the viewer: corners (T, 3, 3) in pixels and their colours (T, 3)."""
    corners, colours = [], []
    for surface in surfaces:
        front = face_normals(surface.vertices_mm, surface.faces) @ view.axes[2] > 0
        smooth = vertex_normals(surface.vertices_mm, surface.faces)[surface.faces[front]].mean(axis=1) @ view.axes.T
        light = _AMBIENT + (1 - _AMBIENT) * np.clip(smooth @ np.array(_LIGHT), 0, 1)
        corners.append(view.pixels(surface.vertices_mm)[surface.faces[front]])
        colours.append((light[:, None] * surface.level.rgb).astype(np.float32))
    return np.concatenate(corners), np.concatenate(colours)


def _fragments(corners: Points, width: int, height: int) -> tuple[Faces, NDArray[np.float64], Faces]:
    """Rasterise triangles (T, 3, 3): for each covered pixel its flat index, its height and its triangle."""
    corners, source = _split_large(corners)
    first = np.floor(corners[:, :, :2].min(axis=1)).astype(np.int64)
    span = np.floor(corners[:, :, :2].max(axis=1)).astype(np.int64) - first
    pixels, depths, triangles = [], [], []
    for row in range(int(span[:, 1].max(initial=0)) + 1):
        for column in range(int(span[:, 0].max(initial=0)) + 1):
            chosen = np.flatnonzero((span[:, 0] >= column) & (span[:, 1] >= row))
            at = first[chosen] + (column, row)
            weights = _barycentric(corners[chosen], at + 0.5)
            inside = (weights >= -1e-3).all(axis=1) & (at >= 0).all(axis=1) & (at < (width, height)).all(axis=1)
            pixels.append(at[inside, 1] * width + at[inside, 0])
            depths.append(np.einsum("tc,tc->t", weights[inside], corners[chosen[inside], :, 2]))
            triangles.append(source[chosen[inside]])
    return np.concatenate(pixels), np.concatenate(depths), np.concatenate(triangles)


def _split_large(corners: Points) -> tuple[Points, Faces]:
    """Quarter triangles until all are small; also return the original triangle of each."""
    source = np.arange(len(corners))
    while True:
        large = (np.ptp(corners[:, :, :2], axis=1) > _LARGEST_TRIANGLE_PX).any(axis=1)
        if not large.any():
            return corners, source
        a, b, c = np.moveaxis(corners[large], 1, 0)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        quarters = [np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        corners = np.concatenate([corners[~large], *quarters])
        source = np.concatenate([source[~large], *[source[large]] * 4])


def _barycentric(corners: Points, at: Points) -> Points:
    """Weights (T, 3) of the corners at the pixel centres (T, 2); negative outside, or if a triangle has no area."""
    a, b, c = (corners[:, n, :2] for n in range(3))
    area = _cross2(b - a, c - a)
    sound = np.abs(area) > 1e-12
    areas = np.stack([_cross2(b - at, c - at), _cross2(c - at, a - at), _cross2(a - at, b - at)], axis=1)
    return np.where(sound[:, None], areas / np.where(sound, area, 1.0)[:, None], -1.0)


def _cross2(a: Points, b: Points) -> NDArray[np.float64]:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], np.float64)
