"""The vertebral canal, found as the hole in the projection of a vertebra along the canal; the plane of symmetry."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.stages.measure.frames import CoarsePoints, Frame, frame_from
from vertebral.stages.measure.rules import MeasureRules

_MIRROR_CELLS = 64
_NO_TILT = (0.0,)


@dataclass(frozen=True, eq=False)
class Canal:
    """The canal's clear opening: its `area_mm2`, and a frame at its centre whose up axis runs along it.

    `front_mm` is the coordinate of the opening's anterior edge in the midline, along that frame's anterior axis.
    """

    frame: Frame
    area_mm2: float
    front_mm: float


def find_canal(vertebra: CoarsePoints, frame: Frame, rules: MeasureRules, search: bool = True) -> Canal | None:
    """Return the largest hole in the projection along the up axis of `frame`; None where the ring is not closed.

    With `search`, the axis is tilted each way and the widest opening is taken. The anterior axis of the canal's frame
    points from the canal's centre to the vertebra's core.
    """
    best: Canal | None = None
    tilts = rules.canal_tilts_deg if search else _NO_TILT
    for forwards in tilts:
        for sideways in tilts:
            up = np.array([np.tan(np.deg2rad(sideways)), np.tan(np.deg2rad(forwards)), 1.0]) @ frame.axes
            tilted = frame_from(frame.origin_mm, up, frame.axes[1])
            found = _opening(vertebra, tilted, rules)
            if found is not None and (best is None or found.area_mm2 > best.area_mm2):
                best = found
    return best


def mirrored_axes(vertebra: CoarsePoints, frame: Frame, rules: MeasureRules) -> tuple[Frame, float]:
    """Turn `frame` about its up axis so that the left half mirrors the right half best; also return how well.

    The thickness of the vertebra along the up axis is compared with its mirror image, over a range of turns and all
    shifts to the side. How well is a normalised correlation in [0, 1].
    """
    step_deg = rules.mirror_step_deg
    angles_deg = np.arange(-rules.mirror_range_deg, rules.mirror_range_deg + 0.1, step_deg)
    own = frame.to_own(vertebra.points_mm)
    scores = np.array([_mirror_score(own, angle, rules) for angle in angles_deg])
    best = int(np.argmax(scores))
    angle = float(angles_deg[best])
    if 0 < best < len(scores) - 1:
        before, here, after = scores[best - 1 : best + 2]
        bend = before - 2 * here + after
        angle += float(0.5 * (before - after) / bend * step_deg) if bend < 0 else 0.0
    turn = np.deg2rad(angle)
    anterior = np.sin(turn) * frame.axes[0] + np.cos(turn) * frame.axes[1]
    return frame_from(frame.origin_mm, frame.axes[2], anterior), float(scores[best])


def _mirror_score(own: NDArray[np.float64], angle_deg: float, rules: MeasureRules) -> float:
    turn = np.deg2rad(angle_deg)
    right = np.cos(turn) * own[:, 0] - np.sin(turn) * own[:, 1]
    ahead = np.sin(turn) * own[:, 0] + np.cos(turn) * own[:, 1]
    cells = np.rint(np.stack([right, ahead]) / rules.mirror_cell_mm + _MIRROR_CELLS / 2).astype(np.intp)
    cells = cells[:, ((cells >= 0) & (cells < _MIRROR_CELLS)).all(axis=0)]
    counts = np.bincount(cells[0] * _MIRROR_CELLS + cells[1], minlength=_MIRROR_CELLS**2)
    counted = counts.reshape(_MIRROR_CELLS, -1).astype(np.float64)
    thickness = ndimage.gaussian_filter(counted, rules.mirror_blur_cells)
    spectrum = np.fft.rfft(thickness, 2 * _MIRROR_CELLS, axis=0)
    overlap = np.fft.irfft((spectrum * spectrum).sum(axis=1), 2 * _MIRROR_CELLS)
    return float(overlap.max() / max(float((thickness**2).sum()), 1e-9))


def _opening(vertebra: CoarsePoints, frame: Frame, rules: MeasureRules) -> Canal | None:
    cell_mm = rules.coarse_spacing_mm  # as fine as the points allow
    own = frame.to_own(vertebra.points_mm)[:, :2]
    low = own.min(axis=0) - 3 * cell_mm
    cells = np.rint((own - low) / cell_mm).astype(np.intp)
    shape = cells.max(axis=0) + 4
    projection = np.bincount(cells[:, 0] * shape[1] + cells[:, 1], minlength=int(shape.prod())).reshape(shape) > 0
    holes, count = ndimage.label(~projection)
    areas = np.bincount(holes.ravel(), minlength=count + 1) * cell_mm**2
    areas[[0, holes[0, 0]]] = 0
    hole = int(np.argmax(areas))
    if not rules.min_canal_area_mm2 <= areas[hole] <= rules.max_canal_area_mm2:
        return None
    places = np.argwhere(holes == hole) * cell_mm + low
    centre = places.mean(axis=0)
    origin = frame.to_world(np.array([centre[0], centre[1], 0.0]))
    ahead = frame.to_own(vertebra.core_mm)[:2] - centre
    if np.hypot(*ahead) < cell_mm:
        return None
    towards = frame_from(origin, frame.axes[2], ahead @ frame.axes[:2])
    across = towards.to_own(frame.to_world(np.column_stack([places, np.zeros(len(places))])))
    middle = across[np.abs(across[:, 0]) < rules.canal_midline_mm, 1]
    return Canal(towards, float(areas[hole]), float(middle.max()) + cell_mm / 2)
