"""The picture of a preview: two slices along the spine and the surfaces from two sides, with names and a scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vertebral.core.anatomy import BY_VERSE_ID, Level
from vertebral.core.errors import GeometryError, RenderError
from vertebral.core.records import Surface
from vertebral.core.volume import Volume
from vertebral.stages.preview.curved_slices import (
    FramedSlice,
    coronal_slice,
    framed,
    largest_scale,
    sagittal_slice,
    trace_course,
)
from vertebral.stages.preview.rendering import (
    BACKGROUND_RGB,
    Picture,
    View,
    lateral_and_posterior,
    render,
    render_plainly,
)

_SIZE_PX = (1800, 1000)
_PANEL_PX = (430, 860)
_PANEL_TOP = 88
_PANEL_GAP = 16
_FONT_PX = 15
_LABEL_ALPHA = 0.45
_TEXT_RGB = (232, 236, 241)
_FAINT_RGB = (150, 160, 172)
_SCALE_BARS_MM = (50, 20, 10, 5)
_TITLE_LENGTH = 110
_DISCLAIMER = "Research use only. Not for diagnosis."
_NOTHING_FOUND = "no vertebrae found"


@dataclass(frozen=True, eq=False)
class _Panel:
    """One of the pictures side by side: its caption, orientation letters, and where to write the name of each level.

    `letters` are left, right, top, bottom. `names` are (level, column, row) in pixels of the panel; names are written
    to the left of their column if `names_to_left`, otherwise to the right of it.
    """

    caption: str
    picture: Picture
    letters: str
    names: tuple[tuple[Level, float, float], ...] = ()
    names_to_left: bool = False
    px_per_mm: float = 0.0


def preview(scan: Volume, labels: Volume, surfaces: Sequence[Surface], path: Path, title: str) -> None:
    """Draw sagittal and coronal slices along the spine and the surfaces from two sides; write a PNG to `path`.

    `labels` are VerSe ids on the grid of `scan` (HU). Without labels the middle slices are shown. If VTK cannot render,
    a simple renderer is used and the picture says so. Raises GeometryError if the grids differ.
    """
    if not scan.grid.matches(labels.grid):
        raise GeometryError(
            f"scan {scan.grid.shape} and labels {labels.grid.shape} do not share a grid: restore the labels first"
        )
    scan, labels = scan.to_ras(), labels.to_ras()
    course = trace_course(labels)
    slices = (sagittal_slice(scan, labels, course), coronal_slice(scan, labels, course))
    scale = min(largest_scale(piece, _PANEL_PX) for piece in slices)
    where = "along the spine" if course.levels else "middle of the scan"
    panels = [
        _slice_panel(f"Sagittal, {where}", framed(slices[0], _PANEL_PX, scale), "APSI", names_to_left=True),
        _slice_panel(f"Coronal, {where} (radiological)", framed(slices[1], _PANEL_PX, scale), "RLSI"),
    ]
    rendered, note = _surface_panels(surfaces)
    canvas = Image.new("RGB", _SIZE_PX, BACKGROUND_RGB)
    draw = ImageDraw.Draw(canvas)
    left = (_SIZE_PX[0] - 4 * _PANEL_PX[0] - 3 * _PANEL_GAP) // 2
    for n, panel in enumerate([*panels, *rendered]):
        _place(canvas, draw, panel, left + n * (_PANEL_PX[0] + _PANEL_GAP))
    if not course.levels:
        _write(draw, (_SIZE_PX[0] * 0.75, _PANEL_TOP + _PANEL_PX[1] / 2), _NOTHING_FOUND, _TEXT_RGB, 26, "mm")
    shown_title = title if len(title) <= _TITLE_LENGTH else title[: _TITLE_LENGTH - 3] + "..."
    _write(draw, (left, 26), shown_title, _TEXT_RGB, 24, "lm")
    bottom = _SIZE_PX[1] - 24
    _write(draw, (left, bottom), _DISCLAIMER, _TEXT_RGB, 18, "lm")
    hint = "Coronal: the patient's right is on the left of the image. CT window -200 to 1000 HU."
    _write(draw, (_SIZE_PX[0] - left, bottom), " ".join([hint, note]).strip(), _FAINT_RGB, _FONT_PX, "rm")
    canvas.save(path, format="PNG")


def _slice_panel(caption: str, frame: FramedSlice, letters: str, names_to_left: bool = False) -> _Panel:
    picture = np.repeat(frame.grey[:, :, None], 3, axis=2).astype(np.float32)
    names = []
    for verse_id in np.unique(frame.label[frame.label > 0]):
        level, inside = BY_VERSE_ID[int(verse_id)], frame.label == verse_id
        picture[inside] += _LABEL_ALPHA * (np.array(level.rgb) - picture[inside])
        picture[inside & ~_eroded(inside)] = level.rgb
        rows, columns = np.nonzero(inside)
        names.append((level, float(columns.min() if names_to_left else columns.max()), float(rows.mean())))
    drawn = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return _Panel(caption, drawn, letters, tuple(names), names_to_left, frame.px_per_mm)


def _surface_panels(surfaces: Sequence[Surface]) -> tuple[tuple[_Panel, ...], str]:
    """Return the two rendered panels, and a note for the footer if VTK could not draw them."""
    if not surfaces:
        return (), ""
    views = lateral_and_posterior(surfaces, _PANEL_PX)
    note = ""
    try:
        pictures = render(surfaces, views)
    except RenderError:
        pictures = tuple(render_plainly(surfaces, view) for view in views)
        note = "3D drawn without OpenGL."
    captions = ("3D from the left", "3D from behind")
    letters = ("APSI", "LRSI")
    panels = tuple(
        _Panel(caption, picture, letter, _projected_names(surfaces, view), px_per_mm=1 / view.mm_per_px)
        for caption, picture, letter, view in zip(captions, pictures, letters, views, strict=True)
    )
    return panels, note


def _projected_names(surfaces: Sequence[Surface], view: View) -> tuple[tuple[Level, float, float], ...]:
    names = []
    for surface in surfaces:
        seen = view.pixels(surface.vertices_mm)
        names.append((surface.level, float(seen[:, 0].max()), float(seen[:, 1].mean())))
    return tuple(names)


def _place(canvas: Image.Image, draw: ImageDraw.ImageDraw, panel: _Panel, left: int) -> None:
    width, height = _PANEL_PX
    canvas.paste(Image.fromarray(panel.picture), (left, _PANEL_TOP))
    _write(draw, (left, _PANEL_TOP - 18), panel.caption, _FAINT_RGB, _FONT_PX, "lm")
    middle_x = left + width / 2
    places: list[tuple[float, float, str]] = [
        (left + 8, _PANEL_TOP + 4, "lt"),
        (left + width - 8, _PANEL_TOP + 4, "rt"),
        (middle_x, _PANEL_TOP + 4, "mt"),
        (middle_x, _PANEL_TOP + height - 6, "mb"),
    ]
    for letter, (x, y, anchor) in zip(panel.letters, places, strict=True):
        _write(draw, (x, y), letter, _TEXT_RGB, 18, anchor)
    names = sorted(panel.names, key=lambda name: name[2])
    rows = _spread(np.array([row for _, _, row in names]), _FONT_PX + 1)
    side, step = ("rm", -7) if panel.names_to_left else ("lm", 7)
    for (level, column, _), row in zip(names, rows, strict=True):
        x = left + float(np.clip(column + step, 34, width - 34))
        _write(draw, (x, _PANEL_TOP + row), level.name, _pale(level), _FONT_PX, side)
    _scale_bar(draw, panel.px_per_mm, left + 12, _PANEL_TOP + height - 14)


def _spread(rows: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Move sorted rows as little as possible so that neighbours are `gap` apart: least squares, by pooling runs."""
    runs: list[list[float]] = []
    for row in rows - gap * np.arange(len(rows)):
        runs.append([float(row)])
        while len(runs) > 1 and np.mean(runs[-2]) > np.mean(runs[-1]):
            last = runs.pop()
            runs[-1] += last
    flat = [float(np.mean(run)) for run in runs for _ in run]
    return np.asarray(np.array(flat) + gap * np.arange(len(rows)), np.float64)


def _scale_bar(draw: ImageDraw.ImageDraw, px_per_mm: float, left: float, bottom: float) -> None:
    fitting = [length for length in _SCALE_BARS_MM if length * px_per_mm < 0.4 * _PANEL_PX[0]]
    if fitting and px_per_mm > 0:
        draw.line([(left, bottom), (left + fitting[0] * px_per_mm, bottom)], fill=_TEXT_RGB, width=2)
        _write(draw, (left, bottom - 5), f"{fitting[0]} mm", _TEXT_RGB, 13, "lb")


def _eroded(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(inside, 1)
    kept = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inside
    return np.asarray(kept, bool)


def _pale(level: Level) -> tuple[int, int, int]:
    """Return the level's colour halfway to white, which is legible on a dark background."""
    red, green, blue = ((channel + 255) // 2 for channel in level.rgb)
    return red, green, blue


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, rgb: tuple[int, int, int], size: int, anchor: str
) -> None:
    font = ImageFont.load_default(size)
    draw.text(at, text, fill=rgb, font=font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))
