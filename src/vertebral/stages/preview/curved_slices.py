"""Two slices of a scan that follow the spine, so that a curved spine stays in the picture.

At each axial position, the sagittal slice is cut at its own x and the coronal slice at its own y. Only the picture is
resampled, never the volume.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from vertebral.core.anatomy import BY_VERSE_ID, Level, sort_levels
from vertebral.core.volume import Volume

WINDOW_HU = (-200.0, 1000.0)
_BODY_HALF_WIDTH_MM = 8.0
_SMOOTHING_MM = 8.0
_CONTEXT_ALONG_MM = 100.0
_CONTEXT_ACROSS_MM = 25.0
_BLOCK_VOXELS = 20_000_000


@dataclass(frozen=True, eq=False)
class SpineCourse:
    """The course of the spine in a RAS volume: voxel x and y at each axial position (K,), and the labels' extent.

    `low` and `high` are the first and last labelled voxel (i, j, k).
    """

    x: NDArray[np.intp]
    y: NDArray[np.intp]
    low: tuple[int, int, int]
    high: tuple[int, int, int]
    levels: tuple[Level, ...]


@dataclass(frozen=True, eq=False)
class CurvedSlice:
    """A slice as shown: row 0 is superior; column 0 is anterior (sagittal) or the patient's right (coronal).

    `hu` and `label` (VerSe ids) are (rows, columns); `low` and `high` are the first and last (row, column) of the
    labels; `spacing_mm` is that of rows and columns.
    """

    hu: NDArray[Any]
    label: NDArray[Any]
    spacing_mm: tuple[float, float]
    low: tuple[int, int]
    high: tuple[int, int]


@dataclass(frozen=True, eq=False)
class FramedSlice:
    """A slice in pixels: `grey` (height, width) uint8 and `label` (height, width) VerSe ids, at `px_per_mm`."""

    grey: NDArray[np.uint8]
    label: NDArray[np.uint8]
    px_per_mm: float


def trace_course(labels: Volume) -> SpineCourse:
    """Follow the labels of a RAS volume; without labels the course is the straight middle of the volume."""
    shape = labels.array.shape
    i, j, k, value = _labelled_voxels(labels.array)
    centres = []
    for verse_id in np.unique(value):
        here = value == verse_id
        x = float(i[here].mean())
        body = here & (np.abs(i - x) * labels.spacing_mm[0] <= _BODY_HALF_WIDTH_MM) & (j >= j[here].mean())
        chosen = body if body.any() else here
        centres.append((float(k[chosen].mean()), x, float(j[chosen].mean())))
    if not centres:
        middle = [np.full(shape[2], n // 2) for n in shape[:2]]
        return SpineCourse(middle[0], middle[1], (0, 0, 0), (shape[0] - 1, shape[1] - 1, shape[2] - 1), ())
    along, across_x, across_y = np.array(sorted(centres)).T
    sigma = _SMOOTHING_MM / labels.spacing_mm[2]
    x, y = (
        np.rint(gaussian_filter1d(np.interp(np.arange(shape[2]), along, across), sigma, mode="nearest")).astype(np.intp)
        for across in (across_x, across_y)
    )
    low, high = ((int(f(i)), int(f(j)), int(f(k))) for f in (np.min, np.max))
    return SpineCourse(x, y, low, high, sort_levels(BY_VERSE_ID[int(verse_id)] for verse_id in np.unique(value)))


def sagittal_slice(scan: Volume, labels: Volume, course: SpineCourse) -> CurvedSlice:
    """Cut RAS volumes at `course.x`; columns run from anterior to posterior."""
    k = np.arange(scan.array.shape[2])
    hu, label = (volume.array[course.x, :, k][::-1, ::-1] for volume in (scan, labels))
    return _shown(hu, label, (scan.spacing_mm[2], scan.spacing_mm[1]), course, axis=1)


def coronal_slice(scan: Volume, labels: Volume, course: SpineCourse) -> CurvedSlice:
    """Cut RAS volumes at `course.y`; columns run from the patient's right to left."""
    k = np.arange(scan.array.shape[2])
    hu, label = (volume.array[:, course.y, k].T[::-1, ::-1] for volume in (scan, labels))
    return _shown(hu, label, (scan.spacing_mm[2], scan.spacing_mm[0]), course, axis=0)


def largest_scale(piece: CurvedSlice, size_px: tuple[int, int]) -> float:
    """Return the pixels per mm at which the labelled region of a slice, with some context, fills `size_px`."""
    left, top, right, bottom = _focus_mm(piece)
    return min(size_px[0] / (right - left), size_px[1] / (bottom - top))


def framed(piece: CurvedSlice, size_px: tuple[int, int], px_per_mm: float) -> FramedSlice:
    """Show a slice around its labelled region in a picture of `size_px` (width, height).

    Pixels are square in mm; outside the scan they are black.
    """
    left, top, right, bottom = _focus_mm(piece)
    half_width, half_height = size_px[0] / px_per_mm / 2, size_px[1] / px_per_mm / 2
    row_mm, column_mm = piece.spacing_mm
    box = (
        ((left + right) / 2 - half_width) / column_mm,
        ((top + bottom) / 2 - half_height) / row_mm,
        ((left + right) / 2 + half_width) / column_mm,
        ((top + bottom) / 2 + half_height) / row_mm,
    )
    low, high = WINDOW_HU
    grey = np.clip((piece.hu.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    shown = np.clip(np.rint(_resized(grey, box, size_px, Image.Resampling.BICUBIC)), 0, 255).astype(np.uint8)
    label, best = np.zeros(shown.shape, np.uint8), np.full(shown.shape, 0.5, np.float32)
    for verse_id in np.unique(piece.label[piece.label > 0]):
        share = _resized((piece.label == verse_id).astype(np.float32), box, size_px, Image.Resampling.BILINEAR)
        label[share > best] = verse_id
        best = np.maximum(best, share)
    return FramedSlice(shown, label, px_per_mm)


def _focus_mm(piece: CurvedSlice) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the region to show, in mm from the slice's upper left corner."""
    row_mm, column_mm = piece.spacing_mm
    rows, columns = piece.hu.shape
    return (
        max(0.0, piece.low[1] * column_mm - _CONTEXT_ACROSS_MM),
        max(0.0, piece.low[0] * row_mm - _CONTEXT_ALONG_MM),
        min(columns * column_mm, (piece.high[1] + 1) * column_mm + _CONTEXT_ACROSS_MM),
        min(rows * row_mm, (piece.high[0] + 1) * row_mm + _CONTEXT_ALONG_MM),
    )


def _labelled_voxels(array: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return i, j, k and value of all voxels with a VerSe id, block by block along the slowest axis."""
    found = [np.zeros((4, 0), np.int32)]
    known = np.zeros(256, bool)
    known[list(BY_VERSE_ID)] = True
    for axis, start, block in _blocks(array):
        index = np.nonzero(block)
        values = block[index]
        stacked = np.stack([*index, values]).astype(np.int32)[:, known[np.clip(values, 0, 255).astype(np.intp)]]
        stacked[axis] += start
        found.append(stacked)
    i, j, k, value = np.concatenate(found, axis=1)
    return i, j, k, value


def _blocks(array: NDArray[Any]) -> Iterator[tuple[int, int, NDArray[Any]]]:
    axis = int(np.argmax(np.abs(array.strides)))
    step = max(1, _BLOCK_VOXELS // max(1, array.size // array.shape[axis]))
    for start in range(0, array.shape[axis], step):
        index = [slice(None)] * 3
        index[axis] = slice(start, start + step)
        yield axis, start, array[tuple(index)]


def _shown(
    hu: NDArray[Any], label: NDArray[Any], spacing_mm: tuple[float, float], course: SpineCourse, axis: int
) -> CurvedSlice:
    rows, columns = hu.shape
    low = (rows - 1 - course.high[2], columns - 1 - course.high[axis])
    high = (rows - 1 - course.low[2], columns - 1 - course.low[axis])
    return CurvedSlice(hu, label, spacing_mm, low, high)


def _resized(
    image: NDArray[Any], box: tuple[float, float, float, float], size_px: tuple[int, int], how: Image.Resampling
) -> NDArray[np.float32]:
    """Resample the region `box` (left, top, right, bottom; it may exceed the image) to `size_px`; zero outside."""
    left, top = (int(np.floor(min(0.0, side))) for side in box[:2])
    right, bottom = (int(np.ceil(max(n, side))) for n, side in zip(image.shape[::-1], box[2:], strict=True))
    rows, columns = image.shape
    padded = np.pad(image.astype(np.float32), ((-top, bottom - rows), (-left, right - columns)))
    moved = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return np.asarray(Image.fromarray(padded).resize(size_px, how, box=moved), np.float32)
