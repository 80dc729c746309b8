"""Overlays of a prediction and its reference, sagittal and coronal: CT, reference, prediction, and differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from vertebral.core.about import DISCLAIMER
from vertebral.core.anatomy import BY_VERSE_ID, Level
from vertebral.core.volume import Volume
from vertebral.stages.preview.curved_slices import (
    WINDOW_HU,
    CurvedSlice,
    FramedSlice,
    SpineCourse,
    coronal_slice,
    framed,
    sagittal_slice,
    trace_course,
)

Labels = NDArray[np.uint8]
Picture = NDArray[np.uint8]

_MARGIN_MM = 15.0
_LABEL_ALPHA = 0.45
_ERROR_ALPHA = 0.85
_COLUMNS = ("CT", "reference", "prediction", "errors")
# Sky blue, vermillion and yellow of Okabe and Ito (2008).
_ERRORS = {"missing": (86, 180, 233), "excess": (213, 94, 0), "wrong level": (240, 228, 66)}
# An A4 page with margins; all in inches.
_WIDTH, _HEIGHT, _EDGE, _GAP, _HEAD, _ROW_HEAD, _FOOT = 6.7, 9.4, 0.28, 0.06, 0.54, 0.24, 0.62
_DPI = 200
_NAME_PT = 6.0
_LEAST_NAMED_MM2 = 40.0


@dataclass(frozen=True, eq=False)
class Compared:
    """A scan cropped to its labels: HU, reference and prediction (VerSe ids; 100 if a network knows only the spine)."""

    ct: Volume
    reference: Volume
    prediction: Volume
    course: SpineCourse


def cut_to_labels(ct: Volume, reference: Volume, prediction: Volume, known: Volume | None = None) -> Compared:
    """Crop volumes on one RAS grid to their labels with a margin; keep them whole if nothing is labelled.

    The slices follow the spine in `known`, by default the reference or, if that is empty, the prediction.
    """
    box = _box((reference.array > 0) | (prediction.array > 0), reference.spacing_mm)
    pieces = [volume.cropped(box) for volume in (ct, reference, prediction, known or reference)]
    return Compared(pieces[0], pieces[1], pieces[2], trace_course(pieces[3] if pieces[3].array.any() else pieces[2]))


def draw_comparison(compared: Compared, title: str, subtitle: str, path: Path) -> None:
    """Write the picture of one scan, as wide as the text of an A4 page."""
    rows = _slices(compared)
    column = (_WIDTH - 2 * _EDGE - 3 * _GAP) / 4
    sizes_mm = [(piece.hu.shape[1] * piece.spacing_mm[1], piece.hu.shape[0] * piece.spacing_mm[0]) for piece, _ in rows]
    available = (_HEIGHT - _HEAD - _FOOT) / len(rows) - _ROW_HEAD
    scale = min(column / max(width for width, _ in sizes_mm), available / max(height for _, height in sizes_mm))
    height = _HEAD + _FOOT + sum(_ROW_HEAD + size[1] * scale for size in sizes_mm)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        _text(figure, _EDGE, height - 0.2, title, 10, weight="bold")
        _text(figure, _EDGE, height - 0.42, subtitle, 8.5)
        top = height - _HEAD
        for (reference, prediction), size_mm, letters in zip(rows, sizes_mm, ("AP", "RL"), strict=True):
            frames = [_framed(piece, size_mm, scale) for piece in (reference, prediction)]
            width = size_mm[0] * scale
            bottom = top - _ROW_HEAD - size_mm[1] * scale
            for n, (name, picture) in enumerate(zip(_COLUMNS, _pictures(*frames), strict=True)):
                left = _EDGE + n * (column + _GAP) + (column - width) / 2
                box = (left / _WIDTH, bottom / height, width / _WIDTH, size_mm[1] * scale / height)
                panel = figure.add_axes(box)
                panel.imshow(picture)
                panel.set_axis_off()
                panel.set_title(name, fontsize=8, pad=3)
                if n == 0:
                    _write_letters(panel, letters)
                elif n < 3:
                    _write_names(panel, frames[n - 1].label, _LEAST_NAMED_MM2 * frames[0].px_per_mm ** 2)
            top = bottom
        _write_footer(figure, compared)
        figure.savefig(path, dpi=_DPI)


def draw_figure(compared: Compared, rendered: Sequence[Picture | None], title: str, path: Path) -> None:
    """Write one row: CT, reference, prediction (sagittal), and pictures of reference and prediction in 3D."""
    reference, prediction = _slices(compared)[0]
    size_mm = (reference.hu.shape[1] * reference.spacing_mm[1], reference.hu.shape[0] * reference.spacing_mm[0])
    column = (_WIDTH - 2 * _EDGE - 4 * _GAP) / 5
    scale = min(column / size_mm[0], (_HEIGHT - _HEAD - _FOOT) / size_mm[1])
    tall = max(2 * column, size_mm[1] * scale)
    height = 0.34 + _ROW_HEAD + tall + 0.26
    frames = [_framed(piece, size_mm, scale) for piece in (reference, prediction)]
    names = ("input", "reference", "prediction", "reference, 3D", "prediction, 3D")
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        _text(figure, _EDGE, height - 0.2, title, 9, weight="bold")
        for n, (name, picture) in enumerate(zip(names, (*_pictures(*frames)[:3], *rendered), strict=True)):
            left = _EDGE + n * (column + _GAP)
            panel = figure.add_axes((left / _WIDTH, 0.26 / height, column / _WIDTH, tall / height))
            panel.set_title(name, fontsize=8, pad=3)
            panel.set_axis_off()
            if picture is None:
                panel.text(0.5, 0.5, "no vertebrae", ha="center", va="center", transform=panel.transAxes)
                continue
            panel.imshow(picture)
            panel.set_anchor("N")
            if n in (1, 2):
                _write_names(panel, frames[n - 1].label, _LEAST_NAMED_MM2 * frames[0].px_per_mm ** 2)
        _text(figure, _EDGE, 0.13, f"A sagittal slice that follows the spine; 3D from the left. {DISCLAIMER}", 7)
        figure.savefig(path, dpi=_DPI)


def _slices(compared: Compared) -> list[tuple[CurvedSlice, CurvedSlice]]:
    """Return sagittal and coronal slices, each with the labels of the reference and of the prediction."""
    pairs = []
    for cut in (sagittal_slice, coronal_slice):
        one, other = (cut(compared.ct, labels, compared.course) for labels in (compared.reference, compared.prediction))
        pairs.append((one, other))
    return pairs


def _framed(piece: CurvedSlice, size_mm: tuple[float, float], scale: float) -> FramedSlice:
    """Return the whole slice at the resolution of the picture."""
    rows, columns = piece.hu.shape
    whole = CurvedSlice(piece.hu, piece.label, piece.spacing_mm, (0, 0), (rows - 1, columns - 1))
    px_per_mm = scale * _DPI
    return framed(whole, (max(1, round(size_mm[0] * px_per_mm)), max(1, round(size_mm[1] * px_per_mm))), px_per_mm)


def _pictures(reference: FramedSlice, prediction: FramedSlice) -> tuple[Picture, Picture, Picture, Picture]:
    """Return CT, reference, prediction and errors, (height, width, 3) each."""
    grey = np.repeat(reference.grey[:, :, None], 3, axis=2)
    wrong = dict(zip(_ERRORS, _differences(reference.label, prediction.label), strict=True))
    errors = _tinted(grey * np.float32(0.8), [(wrong[name], rgb) for name, rgb in _ERRORS.items()], _ERROR_ALPHA)
    return grey, _coloured(grey, reference.label), _coloured(grey, prediction.label), errors


def _differences(reference: NDArray[Any], prediction: NDArray[Any]) -> tuple[NDArray[np.bool_], ...]:
    """Return where the prediction is missing, in excess, and of the wrong level."""
    found, there = prediction > 0, reference > 0
    return there & ~found, found & ~there, found & there & (prediction != reference)


def _coloured(grey: Picture, labels: Labels) -> Picture:
    regions = [(labels == level.verse_id, level.rgb) for level in _levels(labels)]
    return _tinted(grey, regions, _LABEL_ALPHA)


def _tinted(
    picture: NDArray[Any], regions: list[tuple[NDArray[np.bool_], tuple[int, int, int]]], alpha: float
) -> Picture:
    shown = picture.astype(np.float32)
    for inside, rgb in regions:
        shown[inside] += alpha * (np.array(rgb, np.float32) - shown[inside])
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8)


def _levels(labels: Labels) -> list[Level]:
    return [BY_VERSE_ID[int(verse_id)] for verse_id in np.unique(labels) if verse_id]


def _write_names(panel: Axes, labels: Labels, least_px: float) -> None:
    """Write the names of the levels at the left edge, each at the height of its middle; leave out those of islands."""
    places = {level.name: np.nonzero(labels == level.verse_id)[0] for level in _levels(labels)}
    sizes = {name: len(rows) for name, rows in places.items() if len(rows) >= least_px}
    height, gap = labels.shape[0], 1.15 * _NAME_PT * _DPI / 72
    largest = sorted(sizes, key=lambda name: -sizes[name])[: int(height / gap)]
    middles = sorted((float(np.median(places[name])), name) for name in largest)
    for row, (_, name) in zip(_spread([row for row, _ in middles], gap, height), middles, strict=True):
        _write_on(panel, 0.03, 1 - row / height, name, _NAME_PT, "left", "center")


def _spread(rows: list[float], gap: float, height: float) -> list[float]:
    """Move sorted rows down, and at the end up again, until neighbours are `gap` apart; there is room for all."""
    moved: list[float] = []
    for row in rows:
        moved.append(max(row, moved[-1] + gap if moved else gap / 2))
    limit = height - gap / 2
    for n in reversed(range(len(moved))):
        moved[n] = min(moved[n], limit)
        limit = moved[n] - gap
    return moved


def _write_letters(panel: Axes, letters: str) -> None:
    _write_on(panel, 0.03, 0.99, letters[0], 7, "left", "top")
    _write_on(panel, 0.97, 0.99, letters[1], 7, "right", "top")


def _write_on(panel: Axes, x: float, y: float, text: str, size: float, across: str, along: str) -> None:
    panel.text(
        x,
        y,
        text,
        transform=panel.transAxes,
        color="white",
        fontsize=size,
        ha=across,
        va=along,
        path_effects=[withStroke(linewidth=1.4, foreground="black")],
    )


def _write_footer(figure: Figure, compared: Compared) -> None:
    reference, prediction = compared.reference.array, compared.prediction.array
    total = int(np.count_nonzero(reference))
    counts = [int(np.count_nonzero(wrong)) for wrong in _differences(reference, prediction)]
    names = [f"{name} ({n / total:.1%})" if total else name for name, n in zip(_ERRORS, counts, strict=True)]
    colours = [(red / 255, green / 255, blue / 255) for red, green, blue in _ERRORS.values()]
    patches = [Patch(color=colour, label=name) for name, colour in zip(names, colours, strict=True)]
    figure.legend(
        handles=patches,
        loc="lower left",
        bbox_to_anchor=(_EDGE / _WIDTH, 0.26 / figure.get_figheight()),
        ncols=3,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        title="Errors, as a share of the reference's volume" if total else "Errors",
        alignment="left",
        title_fontsize=8,
    )
    low, high = WINDOW_HU
    letters = "A anterior, P posterior, R right, L left"
    note = f"Slices follow the spine. {letters}. CT {low:.0f} to {high:.0f} HU. {DISCLAIMER}"
    _text(figure, _EDGE, 0.13, note, 7, color="#666666")


def _text(figure: Figure, x: float, y: float, text: str, size: float, **kwargs: Any) -> None:
    """Write at a position in inches from the lower left corner."""
    figure.text(x / _WIDTH, y / figure.get_figheight(), text, fontsize=size, ha="left", va="center", **kwargs)


def _box(inside: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> tuple[slice, slice, slice]:
    """Return the box of the labels with a margin; the whole grid if nothing is labelled."""
    box = []
    for axis in range(3):
        margin = int(np.ceil(_MARGIN_MM / spacing_mm[axis]))
        hit = np.flatnonzero(inside.any(tuple(other for other in range(3) if other != axis)))
        low, high = (int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, inside.shape[axis])
        box.append(slice(max(0, low - margin), min(inside.shape[axis], high + margin)))
    return box[0], box[1], box[2]
