"""The vertebral canal: the hole in a vertebra's shadow when it is seen along the canal."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.stages.measure.frames import Coarse, Frame, frame_from

_CELL_MM = 1.5
_TILTS_DEG = (-14.0, 0.0, 14.0)
_LEAST_MM2, _MOST_MM2 = 40.0, 1200.0
_MIRROR_STEP_DEG = 3.0
_MIRROR_DEG = np.arange(-12.0, 12.1, _MIRROR_STEP_DEG)
_MIRROR_CELL_MM, _MIRROR_CELLS = 2.25, 64
_NO_TILT = (0.0,)


@dataclass(frozen=True)
class Canal:
    """The canal's clear opening: its `area_mm2`, and a frame at its centre that looks along it.

    `front_mm` is the anterior coordinate, in that frame, of the opening's anterior edge in the midline.
    """

    frame: Frame
    area_mm2: float
    front_mm: float


def find_canal(vertebra: Coarse, frame: Frame, search: bool = True) -> Canal | None:
    """Return the largest opening of the shadow along the up axis of `frame`; None where the ring is not closed.

    With `search`, the axis is tilted by up to 14 degrees each way and the widest opening is taken. The frame's anterior
    axis points from the canal's centre to the vertebra's core.
    """
    best: Canal | None = None
    tilts = _TILTS_DEG if search else _NO_TILT
    for forwards in tilts:
        for sideways in tilts:
            up = np.array([np.tan(np.deg2rad(sideways)), np.tan(np.deg2rad(forwards)), 1.0]) @ frame.axes
            tilted = frame_from(frame.origin_mm, up, frame.axes[1])
            found = _opening(vertebra, tilted)
            if found is not None and (best is None or found.area_mm2 > best.area_mm2):
                best = found
    return best


def mirrored_axes(vertebra: Coarse, frame: Frame) -> tuple[Frame, float]:
    """Turn `frame` about its up axis so that the left half mirrors the right half best; also how well, in [0, 1].

    The thickness of the vertebra along the up axis is compared with its mirror image, over turns of up to 12 degrees
    and all shifts to the side; the share is that of a normalised correlation.
    """
    own = frame.to_own(vertebra.points_mm)
    scores = np.array([_mirror_score(own, angle) for angle in _MIRROR_DEG])
    best = int(np.argmax(scores))
    angle = float(_MIRROR_DEG[best])
    if 0 < best < len(scores) - 1:
        before, here, after = scores[best - 1 : best + 2]
        bend = before - 2 * here + after
        angle += float(0.5 * (before - after) / bend * _MIRROR_STEP_DEG) if bend < 0 else 0.0
    turn = np.deg2rad(angle)
    anterior = np.sin(turn) * frame.axes[0] + np.cos(turn) * frame.axes[1]
    return frame_from(frame.origin_mm, frame.axes[2], anterior), float(scores[best])


def _mirror_score(own: NDArray[np.float64], angle_deg: float) -> float:
    turn = np.deg2rad(angle_deg)
    right = np.cos(turn) * own[:, 0] - np.sin(turn) * own[:, 1]
    ahead = np.sin(turn) * own[:, 0] + np.cos(turn) * own[:, 1]
    cells = np.rint(np.stack([right, ahead]) / _MIRROR_CELL_MM + _MIRROR_CELLS / 2).astype(np.intp)
    cells = cells[:, ((cells >= 0) & (cells < _MIRROR_CELLS)).all(axis=0)]
    counts = np.bincount(cells[0] * _MIRROR_CELLS + cells[1], minlength=_MIRROR_CELLS**2)
    thickness = ndimage.gaussian_filter(counts.reshape(_MIRROR_CELLS, -1).astype(np.float64), 0.7)
    spectrum = np.fft.rfft(thickness, 2 * _MIRROR_CELLS, axis=0)
    overlap = np.fft.irfft((spectrum * spectrum).sum(axis=1), 2 * _MIRROR_CELLS)
    return float(overlap.max() / max(float((thickness**2).sum()), 1e-9))


def _opening(vertebra: Coarse, frame: Frame) -> Canal | None:
    own = frame.to_own(vertebra.points_mm)[:, :2]
    low = own.min(axis=0) - 3 * _CELL_MM
    cells = np.rint((own - low) / _CELL_MM).astype(np.intp)
    shape = cells.max(axis=0) + 4
    shadow = np.bincount(cells[:, 0] * shape[1] + cells[:, 1], minlength=int(shape.prod())).reshape(shape) > 0
    holes, count = ndimage.label(~shadow)
    areas = np.bincount(holes.ravel(), minlength=count + 1) * _CELL_MM**2
    areas[[0, holes[0, 0]]] = 0
    hole = int(np.argmax(areas))
    if not _LEAST_MM2 <= areas[hole] <= _MOST_MM2:
        return None
    places = np.argwhere(holes == hole) * _CELL_MM + low
    centre = places.mean(axis=0)
    origin = frame.to_world(np.array([centre[0], centre[1], 0.0]))
    ahead = frame.to_own(vertebra.core_mm)[:2] - centre
    if np.hypot(*ahead) < _CELL_MM:
        return None
    towards = frame_from(origin, frame.axes[2], ahead @ frame.axes[:2])
    across = towards.to_own(frame.to_world(np.column_stack([places, np.zeros(len(places))])))
    middle = across[np.abs(across[:, 0]) < 3, 1]
    return Canal(towards, float(areas[hole]), float(middle.max()) + _CELL_MM / 2)
