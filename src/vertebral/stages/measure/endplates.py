"""Endplates: surface points where rays leave the body, and planes fitted to them.

A label map says about a ray only between which two voxel centres it leaves the bone. So each point carries that
interval, and surfaces are fitted to intervals: where slices are thick, the tilt follows from where the label ends one
slice earlier or later.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebral.stages.measure.crops import Flags, Occupancy, Vector
from vertebral.stages.measure.frames import Frame, Points
from vertebral.stages.measure.rules import MeasureRules

_ROUNDS = 30
_STILL_MM = 1e-3
_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points that enclose a surface: it runs above each of `lower` (N, 3) and below each of `upper` (N, 3), in mm."""

    lower: Points
    upper: Points

    @property
    def points(self) -> Points:
        """The middles (N, 3)."""
        return (self.lower + self.upper) / 2

    def seen_from(self, frame: Frame) -> "Cloud":
        """Map a cloud in RAS+ mm to a frame."""
        return Cloud(frame.to_own(self.lower), frame.to_own(self.upper))

    def placed_by(self, frame: Frame) -> "Cloud":
        """Map a cloud of a frame to RAS+ mm."""
        return Cloud(frame.to_world(self.lower), frame.to_world(self.upper))

    def chosen(self, which: Flags) -> "Cloud":
        """Keep some of the points."""
        return Cloud(self.lower[which], self.upper[which])


def cloud_along_rays(points: Points, slack_mm: NDArray[np.float64]) -> Cloud:
    """Return a cloud from `points` (N, 3) and how far below and above each the surface may run (N, 2), in mm."""
    up = np.array([0.0, 0.0, 1.0])
    return Cloud(points - slack_mm[:, :1] * up, points + slack_mm[:, 1:] * up)


@dataclass(frozen=True)
class Plane:
    """The plane `height = offset + slope[0] * right + slope[1] * ahead` in the frame in which it was fitted (mm).

    `rms_mm` is the RMS distance of the plane from the inliers' intervals. Inliers are points within
    `MeasureRules.inlier_mm`, `inlier_share` is their share of all points.
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
        """The plane's height at (right, ahead)."""
        return self.offset + self.slope[0] * right_mm + self.slope[1] * ahead_mm


@dataclass(frozen=True, eq=False)
class Endplate:
    """One endplate in the patient: its surface points, RAS+ mm, and the plane fitted to them.

    `centre_mm` (3,) is the point of the plane above or below the body's centre; `normal` (3,) points towards the head.
    `coverage` is the share of the footprint's rays that met the surface, `reentries` the share that met the same bone
    again beyond it.
    """

    cloud: Cloud
    centre_mm: Vector
    normal: Vector
    rms_mm: float
    inlier_share: float
    coverage: float
    reentries: float

    @property
    def layer_mm(self) -> float:
        """The thickness of the layers of voxels that the surface crosses."""
        return float(np.linalg.norm(self._step))

    def layers(self, ignored_end_share: float) -> int:
        """Return how many layers of voxels the surface crosses, its ends ignored; one layer does not show its tilt."""
        along = (self.cloud.points - self.cloud.points[0]) @ self._step / self.layer_mm**2
        low, high = np.quantile(np.rint(along), (ignored_end_share, 1 - ignored_end_share))
        return round(float(high - low)) + 1

    @property
    def _step(self) -> Vector:
        return np.asarray(np.mean(self.cloud.upper - self.cloud.lower, axis=0))


def fitted_plane(cloud: Cloud, rules: MeasureRules) -> Plane | None:
    """Fit a plane to a cloud whose points are (right, ahead, height); None for too few points."""
    if len(cloud.points) < rules.min_surface_points:
        return None
    solution = _fit(_plane_terms, cloud, rules)
    over, under = (side[:, 2] - _plane_terms(side) @ solution for side in (cloud.lower, cloud.upper))
    outside = np.maximum(0, np.maximum(over, -under))
    near = outside <= rules.inlier_mm
    rms = float(np.sqrt(np.mean(outside[near] ** 2))) if near.any() else float("inf")
    return Plane(float(solution[0]), (float(solution[1]), float(solution[2])), rms, float(near.mean()))


def profile_heights(cloud: Cloud, ahead_mm: Sequence[float], rules: MeasureRules) -> NDArray[np.float64] | None:
    """Return the height of an endplate in the midline at each of `ahead_mm`; None for too few points.

    A quadratic surface (concave or convex endplates) is fitted to points (right, ahead, height); it is followed to the
    outermost of the points, and from there to the walls with the endplate's mean slope: rims are flat. A plane takes
    its place if the points' intervals are long: thick slices show no curvature.
    """
    if len(cloud.points) < rules.min_surface_points:
        return None
    at = np.asarray(ahead_mm, np.float64)
    if float(np.mean(np.linalg.norm(cloud.upper - cloud.lower, axis=1))) > rules.flat_interval_mm:
        solution = _fit(_plane_terms, cloud, rules)
        return np.asarray(solution[0] + solution[2] * at)
    solution = _fit(_quadratic_terms, cloud, rules)
    ends = np.quantile(cloud.points[:, 1], (rules.ignored_end_share, 1 - rules.ignored_end_share))
    on_it = np.clip(at, *ends)
    return np.asarray(solution[0] + solution[2] * at + solution[5] * on_it**2)


def _plane_terms(points: Points) -> NDArray[np.float64]:
    return np.column_stack([np.ones(len(points)), points[:, :2]])


def _quadratic_terms(points: Points) -> NDArray[np.float64]:
    right, ahead = points[:, 0], points[:, 1]
    return np.column_stack([np.ones(len(right)), right, ahead, right**2, right * ahead, ahead**2])


def _fit(terms: Callable[[Points], NDArray[np.float64]], cloud: Cloud, rules: MeasureRules) -> Vector:
    """Fit `terms(points) @ x` so that it runs within the cloud's intervals, by a logistic model with soft ends.

    Interval-censored regression (as in Odell et al., Biometrics 1992) with logistic errors: far outside an interval
    the pull is constant, so outliers count as in a median. Newton's method; a step that increases the misfit is halved.
    """
    lower, upper = terms(cloud.lower), terms(cloud.upper)
    scale = np.maximum(np.abs(lower).max(axis=0), np.abs(upper).max(axis=0))
    scale[scale == 0] = 1.0  # all points on one line
    lower, upper = lower / scale, upper / scale
    low, high = cloud.lower[:, 2], cloud.upper[:, 2]
    soft = np.maximum(rules.interval_softness_mm, rules.interval_softness_share * (high - low))
    middle, ridge = (lower + upper) / 2, _RIDGE * np.eye(lower.shape[1])
    solution = np.linalg.solve(middle.T @ middle + ridge, middle.T @ ((low + high) / 2))

    def misfit(x: Vector) -> float:
        return float((np.logaddexp(0, (low - lower @ x) / soft) + np.logaddexp(0, (upper @ x - high) / soft)).sum())

    best = misfit(solution)
    for _ in range(_ROUNDS):
        below = _sigmoid((low - lower @ solution) / soft)
        above = _sigmoid((upper @ solution - high) / soft)
        slope = upper.T @ (above / soft) - lower.T @ (below / soft)
        bends = (below * (1 - below) / soft**2, above * (1 - above) / soft**2)
        curvature = (lower * bends[0][:, None]).T @ lower + (upper * bends[1][:, None]).T @ upper + ridge
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


def first_exits(values: Occupancy, axis: int, start: int, towards: int, threshold: float = 0.5) -> NDArray[np.float64]:
    """Return how many samples along `axis` from index `start` the values first fall below `threshold`.

    `towards` is 1 or -1. The result has the shape of `values` without `axis`; NaN where `start` is outside already or
    the solid does not end within the array.
    """
    along = np.moveaxis(values, axis, -1)
    along = along[..., start:] if towards > 0 else along[..., start::-1]
    outside = along < threshold
    index = np.argmax(outside, axis=-1)
    known = (index > 0) & outside.any(axis=-1)
    at = np.where(known, index, 1)[..., None]
    last = np.take_along_axis(along, at - 1, -1)[..., 0].astype(np.float64)
    first = np.take_along_axis(along, at, -1)[..., 0].astype(np.float64)
    share = (last - threshold) / np.maximum(last - first, 1e-6)
    return np.where(known, index - 1 + share, np.nan)


def exit_intervals(
    values: Occupancy, start: int, towards: int, step_mm: float, rules: MeasureRules
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the heights (mm from index `start` of the last axis) at which rays leave, and the slack (..., 2) of each.

    A ray leaves between where its value is last full and where it is first empty.
    """
    thresholds = (0.5, rules.full_occupancy, rules.empty_occupancy)
    half, full, empty = (first_exits(values, -1, start, towards, threshold) for threshold in thresholds)
    inner = np.maximum(np.nan_to_num(half - full, nan=0.5), 0) * step_mm
    outer = np.maximum(np.nan_to_num(empty - half, nan=0.5), 0) * step_mm
    slack = np.stack([inner, outer] if towards > 0 else [outer, inner], -1)
    return half * step_mm * towards, slack


def reentries(values: Occupancy, start: int, towards: int, exits: NDArray[np.float64], within: float) -> Flags:
    """Tell for each ray along the last axis whether it is inside again within so many samples beyond its exit."""
    along = values[..., start:] if towards > 0 else values[..., start::-1]
    beyond = np.arange(along.shape[-1]) - np.nan_to_num(exits, nan=np.inf)[..., None]
    return np.asarray(((along >= 0.5) & (beyond > 0.5) & (beyond <= within)).any(axis=-1))


def endplate_from(
    cloud: Cloud, frame: Frame, coverage: float, reentries: float, rules: MeasureRules
) -> Endplate | None:
    """Fit an endplate to a cloud given in `frame`; None for too few points."""
    plane = fitted_plane(cloud, rules)
    if plane is None:
        return None
    centre = frame.to_world(np.array([0.0, 0.0, plane.offset]))
    return Endplate(
        cloud.placed_by(frame), centre, plane.normal @ frame.axes, plane.rms_mm, plane.inlier_share, coverage, reentries
    )
