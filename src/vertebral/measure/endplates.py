"""Endplates: surface points met by rays from inside the body, and planes fitted to them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebral.measure.crops import Occupancy, Vector
from vertebral.measure.frames import Frame, Points

_ROUNDS = 12
_ABSOLUTE_ROUNDS = 4
_TUKEY = 4.685
_LEAST_SCALE_MM = 0.15
_INLIER_MM = 2.0
_LEAST_POINTS = 12


@dataclass(frozen=True)
class Plane:
    """The plane `height = offset + slope[0] * right + slope[1] * ahead` in the frame in which it was fitted (mm).

    `rms_mm` is over the inliers, within 2 mm of the plane; `inlier_share` is their share of all points.
    """

    offset: float
    slope: tuple[float, float]
    rms_mm: float
    inlier_share: float

    @property
    def normal(self) -> Vector:
        """The unit normal (3,) that points up in that frame."""
        normal = np.array([-self.slope[0], -self.slope[1], 1.0])
        return np.asarray(normal / np.linalg.norm(normal))

    def at(self, right_mm: float, ahead_mm: float) -> float:
        """The plane's height above a place."""
        return self.offset + self.slope[0] * right_mm + self.slope[1] * ahead_mm


@dataclass(frozen=True)
class Endplate:
    """One endplate in the patient: `points_mm` (N, 3) on its surface, RAS+, and the plane fitted to them.

    `centre_mm` (3,) lies on the plane above or below the body's centre; `normal` (3,) points towards the head.
    `coverage` is the share of the footprint in which the surface was met.
    """

    points_mm: Points
    centre_mm: Vector
    normal: Vector
    rms_mm: float
    inlier_share: float
    coverage: float


def robust_plane(points: Points) -> Plane | None:
    """Fit a plane to (N, 3) points (right, ahead, height) so that outliers count little; None for under 12 points.

    Iteratively reweighted least squares: a few rounds of least absolute deviations, then Tukey's biweight with the scale
    from the median absolute residual (Holland and Welsch 1977).
    """
    if len(points) < _LEAST_POINTS:
        return None
    design = np.column_stack([np.ones(len(points)), points[:, :2]])
    height = points[:, 2]
    weight = np.ones(len(points))
    solution = np.zeros(3)
    for n in range(_ROUNDS):
        weighted = design * weight[:, None]
        solution = np.linalg.lstsq(weighted.T @ design, weighted.T @ height, rcond=None)[0]
        away = np.abs(height - design @ solution)
        if n < _ABSOLUTE_ROUNDS:
            weight = 1 / np.maximum(away, 0.1)
        else:
            scale = max(float(np.median(away)) / 0.6745, _LEAST_SCALE_MM)
            weight = np.maximum(1 - (away / (_TUKEY * scale)) ** 2, 0) ** 2
    near = away <= _INLIER_MM
    rms = float(np.sqrt(np.mean(away[near] ** 2))) if near.any() else float("inf")
    slope = (float(solution[1]), float(solution[2]))
    return Plane(float(solution[0]), slope, rms, float(near.mean()))


def first_exits(values: Occupancy, axis: int, start: int, towards: int) -> NDArray[np.float64]:
    """Return how many samples along `axis` lie between index `start` and the first crossing of 0.5.

    `towards` is 1 or -1. The result has the shape of `values` without `axis`; NaN where `start` is outside already or
    the solid does not end within the array.
    """
    along = np.moveaxis(values, axis, -1)
    along = along[..., start:] if towards > 0 else along[..., start::-1]
    outside = along < 0.5
    index = np.argmax(outside, axis=-1)
    known = (index > 0) & outside.any(axis=-1)
    at = np.where(known, index, 1)[..., None]
    last = np.take_along_axis(along, at - 1, -1)[..., 0].astype(np.float64)
    first = np.take_along_axis(along, at, -1)[..., 0].astype(np.float64)
    share = (last - 0.5) / np.maximum(last - first, 1e-6)
    return np.where(known, index - 1 + share, np.nan)


def endplate_from(points: Points, frame: Frame, coverage: float) -> Endplate | None:
    """Fit an endplate to surface `points` (N, 3) given in `frame`; None where there are too few."""
    plane = robust_plane(points)
    if plane is None:
        return None
    centre = frame.to_world(np.array([0.0, 0.0, plane.offset]))
    normal = plane.normal @ frame.axes
    return Endplate(frame.to_world(points), centre, normal, plane.rms_mm, plane.inlier_share, coverage)
