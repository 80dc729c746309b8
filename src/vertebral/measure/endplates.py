"""Endplates: surface points met by rays from inside the body, and planes fitted to them.

A label map says no more about a ray than between which two voxel centres it leaves the bone. So each point carries that
interval, and surfaces are fitted to intervals: where slices are thick, the places where the label steps from one slice
to the next tell the tilt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebral.measure.crops import Occupancy, Vector
from vertebral.measure.frames import Frame, Points

_ROUNDS = 30
_STILL_MM = 1e-3
# Softness of an interval's ends: boundaries of labels are not sharper than this.
_SOFT_MM, _SOFT_SHARE = 0.35, 0.1
_RIDGE = 1e-3
_INLIER_MM = 1.5
_LEAST_POINTS = 12
_COARSE_MM = 2.3
_FULL, _EMPTY = 0.95, 0.05


Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Cloud:
    """Surface points (N, 3) and how far below and above each the surface may run (N, 2), in mm along the rays."""

    points: Points
    slack_mm: NDArray[np.float64]

    def seen_from(self, frame: Frame) -> "Cloud":
        """Map a cloud in RAS+ mm to a frame."""
        return Cloud(frame.to_own(self.points), self.slack_mm)

    def placed_by(self, frame: Frame) -> "Cloud":
        """Map a cloud of a frame to RAS+ mm."""
        return Cloud(frame.to_world(self.points), self.slack_mm)

    def chosen(self, which: NDArray[np.bool_]) -> "Cloud":
        """Keep some of the points."""
        return Cloud(self.points[which], self.slack_mm[which])


@dataclass(frozen=True)
class Plane:
    """The plane `height = offset + slope[0] * right + slope[1] * ahead` in the frame in which it was fitted (mm).

    `rms_mm` is over the inliers, of how far the plane runs outside of their intervals; inliers are those within 1.5 mm,
    `inlier_share` their share of all points.
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
    """One endplate in the patient: its surface points, RAS+ mm, and the plane fitted to them.

    `centre_mm` (3,) lies on the plane above or below the body's centre; `normal` (3,) points towards the head.
    `coverage` is the share of the footprint in which the surface was met, `hollow` that in which rays came upon the
    same bone again beyond it.
    """

    cloud: Cloud
    centre_mm: Vector
    normal: Vector
    rms_mm: float
    inlier_share: float
    coverage: float
    hollow: float


def fitted_plane(cloud: Cloud) -> Plane | None:
    """Fit a plane to a cloud whose points are (right, ahead, height); None for under 12 points."""
    if len(cloud.points) < _LEAST_POINTS:
        return None
    design = np.column_stack([np.ones(len(cloud.points)), cloud.points[:, :2]])
    solution = _fit(design, cloud)
    off = cloud.points[:, 2] - design @ solution
    outside = np.maximum(0, np.maximum(off - cloud.slack_mm[:, 0], -off - cloud.slack_mm[:, 1]))
    near = outside <= _INLIER_MM
    rms = float(np.sqrt(np.mean(outside[near] ** 2))) if near.any() else float("inf")
    return Plane(float(solution[0]), (float(solution[1]), float(solution[2])), rms, float(near.mean()))


def profile_heights(cloud: Cloud, ahead_mm: Sequence[float]) -> NDArray[np.float64] | None:
    """Return the height of an endplate in the midline at each of `ahead_mm`; None for under 12 points.

    A quadratic surface (hollow or domed endplates) is fitted to points (right, ahead, height); it is followed to the
    outermost of the points, and from there to the walls with the endplate's mean slope: rims are flat. A plane takes
    its place where the points' intervals are over 2.3 mm wide: thick slices show no curvature.
    """
    if len(cloud.points) < _LEAST_POINTS:
        return None
    right, ahead = cloud.points[:, 0], cloud.points[:, 1]
    at = np.asarray(ahead_mm, np.float64)
    columns = [np.ones(len(right)), right, ahead]
    if float(np.mean(cloud.slack_mm.sum(axis=1))) > _COARSE_MM:
        solution = _fit(np.column_stack(columns), cloud)
        return np.asarray(solution[0] + solution[2] * at)
    solution = _fit(np.column_stack([*columns, right**2, right * ahead, ahead**2]), cloud)
    on_it = np.clip(at, *np.quantile(ahead, (0.01, 0.99)))
    return np.asarray(solution[0] + solution[2] * at + solution[5] * on_it**2)


def _fit(design: NDArray[np.float64], cloud: Cloud) -> Vector:
    """Fit `design @ x` to the clouds' intervals, by the likelihood of a logistic model with soft ends.

    Interval-censored regression (as in Odell et al., Biometrics 1992) with logistic errors: far outside of an interval
    the pull is constant, so outliers count as in a median. Newton's method; a step that makes things worse is halved.
    """
    scale = np.abs(design).max(axis=0)
    scaled = design / scale
    low = cloud.points[:, 2] - cloud.slack_mm[:, 0]
    high = cloud.points[:, 2] + cloud.slack_mm[:, 1]
    soft = np.maximum(_SOFT_MM, _SOFT_SHARE * (high - low))
    solution = np.linalg.solve(scaled.T @ scaled + _RIDGE * np.eye(design.shape[1]), scaled.T @ ((low + high) / 2))

    def misfit(x: Vector) -> float:
        height = scaled @ x
        return float((np.logaddexp(0, (low - height) / soft) + np.logaddexp(0, (height - high) / soft)).sum())

    best = misfit(solution)
    for _ in range(_ROUNDS):
        height = scaled @ solution
        below, above = (_sigmoid((end - height) * sign / soft) for end, sign in ((low, 1), (high, -1)))
        slope = scaled.T @ ((above - below) / soft)
        bend = (below * (1 - below) + above * (1 - above)) / soft**2
        curvature = (scaled * bend[:, None]).T @ scaled + _RIDGE * np.eye(design.shape[1])
        step = np.linalg.solve(curvature, slope)
        while (found := misfit(solution - step)) > best and np.abs(step).max() > _STILL_MM:
            step = step / 2
        if found > best:
            break
        solution, best = solution - step, found
        if np.abs(step).max() < _STILL_MM:
            break
    return np.asarray(solution / scale)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))))


def first_exits(values: Occupancy, axis: int, start: int, towards: int, level: float = 0.5) -> NDArray[np.float64]:
    """Return how many samples along `axis` lie between index `start` and the first crossing of `level` downwards.

    `towards` is 1 or -1. The result has the shape of `values` without `axis`; NaN where `start` is outside already or
    the solid does not end within the array.
    """
    along = np.moveaxis(values, axis, -1)
    along = along[..., start:] if towards > 0 else along[..., start::-1]
    outside = along < level
    index = np.argmax(outside, axis=-1)
    known = (index > 0) & outside.any(axis=-1)
    at = np.where(known, index, 1)[..., None]
    last = np.take_along_axis(along, at - 1, -1)[..., 0].astype(np.float64)
    first = np.take_along_axis(along, at, -1)[..., 0].astype(np.float64)
    share = (last - level) / np.maximum(last - first, 1e-6)
    return np.where(known, index - 1 + share, np.nan)


def exit_intervals(
    values: Occupancy, start: int, towards: int, step_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the heights (mm from index `start` of the last axis) at which rays leave, and the slack (..., 2) of each.

    A ray leaves between where its value is last full and where it is first empty.
    """
    half, full, empty = (first_exits(values, -1, start, towards, level) for level in (0.5, _FULL, _EMPTY))
    inner = np.maximum(np.nan_to_num(half - full, nan=0.5), 0) * step_mm
    outer = np.maximum(np.nan_to_num(empty - half, nan=0.5), 0) * step_mm
    slack = np.stack([inner, outer] if towards > 0 else [outer, inner], -1)
    return half * step_mm * towards, slack


def reentries(values: Occupancy, start: int, towards: int, exits: NDArray[np.float64], within: float) -> Mask:
    """Tell for each ray along the last axis whether it is inside again within so many samples beyond its exit."""
    along = values[..., start:] if towards > 0 else values[..., start::-1]
    beyond = np.arange(along.shape[-1]) - np.nan_to_num(exits, nan=np.inf)[..., None]
    return np.asarray(((along >= 0.5) & (beyond > 0.5) & (beyond <= within)).any(axis=-1))


def endplate_from(cloud: Cloud, frame: Frame, coverage: float, hollow: float) -> Endplate | None:
    """Fit an endplate to a cloud given in `frame`; None where there are too few points."""
    plane = fitted_plane(cloud)
    if plane is None:
        return None
    centre = frame.to_world(np.array([0.0, 0.0, plane.offset]))
    return Endplate(
        cloud.placed_by(frame), centre, plane.normal @ frame.axes, plane.rms_mm, plane.inlier_share, coverage, hollow
    )
