"""Stack the slices of a series into a regular grid, or say why they do not form one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vertebral.core.errors import GeometryError, ReadError
from vertebral.core.volume import Grid
from vertebral.io.ct.image_header import LPS_TO_RAS
from vertebral.io.dicom.slices import Slice

_SAME_MM = 1e-3
_SAME_COSINE = 1e-3
_MOST_TILT_DEG = 0.5
_MOST_OFFSET_MM = 0.1
_MOST_OFFSET_SHARE = 0.2


def stacked(slices: Sequence[Slice]) -> tuple[list[Slice], Grid, tuple[str, ...]]:
    """Return the slices sorted along their normal, the grid (columns, rows, slices) in RAS+ mm, and notes for the user.

    Raises ReadError if slices differ in size, spacing or orientation, are missing or duplicate; GeometryError for a
    tilted gantry, and if a slice is more than 0.1 mm or a fifth of the slice spacing (whichever is smaller) away from
    its position in an evenly spaced stack.
    """
    if len(slices) < 2:
        raise ReadError("the series has a single slice: give a series with two or more")
    first = slices[0]
    for other in slices[1:]:
        _require_same_plane(first, other)
    normal = np.cross(first.axes[0], first.axes[1])
    ordered = sorted(slices, key=lambda item: float(item.position_mm @ normal))
    along_mm = np.array([item.position_mm @ normal for item in ordered])
    _require_each_once(ordered, along_mm)
    origin, step = _line(ordered)
    _require_upright(step, normal)
    notes = _require_even(ordered, origin, step)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.axes[0] * first.pixel_mm[0], first.axes[1] * first.pixel_mm[1]
    affine[:3, 2], affine[:3, 3] = step, origin
    return ordered, Grid((first.columns, first.rows, len(ordered)), LPS_TO_RAS @ affine), notes


def _require_same_plane(first: Slice, other: Slice) -> None:
    remedy = "give a series of equal slices (another --series, or only the files of one)"
    if (first.columns, first.rows) != (other.columns, other.rows):
        sizes = f"{first.columns} x {first.rows} and {other.columns} x {other.rows}"
        raise ReadError(f"slices {first.name} and {other.name} differ in size ({sizes} pixels): {remedy}")
    if np.abs(np.subtract(first.pixel_mm, other.pixel_mm)).max() > _SAME_MM:
        spacings = f"{first.pixel_mm} and {other.pixel_mm} mm"
        raise ReadError(f"slices {first.name} and {other.name} differ in pixel spacing ({spacings}): {remedy}")
    if np.abs(first.axes - other.axes).max() > _SAME_COSINE:
        raise ReadError(f"slices {first.name} and {other.name} differ in orientation: {remedy}")


def _require_each_once(ordered: Sequence[Slice], along_mm: NDArray[np.float64]) -> None:
    steps_mm = np.diff(along_mm)
    usual_mm = float(np.percentile(steps_mm, 50, method="lower"))
    same = np.flatnonzero(steps_mm < max(_SAME_MM, 0.01 * usual_mm))
    if same.size:
        pair = f"{ordered[same[0]].name} and {ordered[same[0] + 1].name} at {along_mm[same[0]]:.2f} mm"
        raise ReadError(
            f"{same.size} slice position(s) occur twice (first {pair}): several phases or copied files; "
            "give one phase without copies"
        )
    wide = np.flatnonzero(steps_mm > 1.5 * usual_mm)
    if wide.size:
        missing = [along_mm[n] + usual_mm * k for n in wide for k in range(1, max(2, round(steps_mm[n] / usual_mm)))]
        places = ", ".join(f"{place:.2f}" for place in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ReadError(f"{len(missing)} slice(s) missing at {places} mm along the stack: export the complete series")


def _require_upright(step: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    tilt_deg = float(np.rad2deg(np.arctan2(np.linalg.norm(np.cross(step, normal)), step @ normal)))
    if tilt_deg > _MOST_TILT_DEG:
        raise GeometryError(
            f"the slices are stacked {tilt_deg:.1f} degrees off their normal (tilted gantry): resample them to a "
            "straight grid first, for example with dcm2niix (its *_Tilt_* file) or 3D Slicer (geometry regularization)"
        )


def _line(ordered: Sequence[Slice]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return start and step (LPS+ mm) of the evenly spaced stack that best fits the slices (least squares)."""
    positions = np.array([item.position_mm for item in ordered])
    numbers = np.arange(len(ordered)) - (len(ordered) - 1) / 2
    step = numbers @ positions / (numbers @ numbers)
    return positions.mean(axis=0) + numbers[0] * step, step


def _require_even(ordered: Sequence[Slice], origin: NDArray[np.float64], step: NDArray[np.float64]) -> tuple[str, ...]:
    positions = np.array([item.position_mm for item in ordered])
    offsets_mm = np.linalg.norm(positions - (origin + np.arange(len(ordered))[:, None] * step), axis=1)
    spacing_mm = float(np.linalg.norm(step))
    worst = int(np.argmax(offsets_mm))
    steps_mm = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    found = f"slice distances from {steps_mm.min():.3f} to {steps_mm.max():.3f} mm"
    if offsets_mm[worst] > min(_MOST_OFFSET_MM, _MOST_OFFSET_SHARE * spacing_mm):
        raise GeometryError(
            f"{found}: slice {ordered[worst].name} is {offsets_mm[worst]:.2f} mm off an evenly spaced stack; "
            "resample to evenly spaced slices first"
        )
    if np.ptp(steps_mm) <= max(0.01, 0.01 * spacing_mm):
        return ()
    return (
        f"{found} were treated as {spacing_mm:.3f} mm, which moves no slice by more than {offsets_mm[worst]:.3f} mm",
    )
