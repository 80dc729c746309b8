"""Bend a whole-body map to another spine: a thin-plate spline through points on and around matched vertebrae."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from vertebral.data.synthesis.body_map import BodyMap

Points = NDArray[np.float64]
HALF_WIDTH_MM = 170.0
# Control points around each vertebra, in its own frame: tissue next to it turns with it.
NEAR_MM = 35.0
# Control points in its axial slice: the outline of the trunk stays upright.
FAR_MM = 140.0
_FAR_EVERY = 3
# The spline is computed at nodes this far apart and linear between them.
NODE_MM = 12.0
# Trades exact centroids for fewer folds where the frames of neighbours cross; centroids move by a few tenths of a mm.
_SMOOTHING = 20.0


def bend_to_spine(body: BodyMap, at_subject: Points, at_body: Points) -> BodyMap:
    """Return `body` with its vertebrae at `at_body` moved to `at_subject`.

    Both are (n, 3), RAS mm, from tail to head, n >= 2.

    The surroundings of a vertebra move, turn and scale with it (thin-plate splines: Bookstein, IEEE TPAMI 1989;11:567);
    farther out and beyond the ends, axial slices stay upright. The result has the spacing of `body`, axes R, A, S, is
    340 mm wide around the spine, and is air beyond the body.
    """
    slices = AxialSlices(at_subject, at_body)
    low, high = _extent_mm(body, at_subject, at_body, slices)
    spacing = body.spacing_mm
    x, y, z = (np.arange(a, b, spacing) for a, b in zip(low, high, strict=True))
    warp = thin_plate_warp(at_subject, at_body)
    nodes = [
        np.linspace(axis[0], axis[-1], max(2, int(np.ceil((axis[-1] - axis[0]) / NODE_MM)) + 1)) for axis in (x, y, z)
    ]
    mesh = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
    mapped = (warp(mesh.reshape(-1, 3)).reshape(mesh.shape) - body.affine[:3, 3]) / spacing
    on_x, on_y, on_z = (_linear_weights(axis, at) for axis, at in zip((x, y, z), nodes, strict=True))
    planes = np.tensordot(on_z, mapped, axes=(1, 2))  # (K, nodes in x, nodes in y, 3)
    shape = np.array(body.tissue.shape)
    tissue = np.zeros((len(x), len(y), len(z)), np.uint8)
    labels = np.zeros_like(tissue)
    for k, plane in enumerate(planes):
        voxels = [np.rint(on_x @ plane[:, :, axis] @ on_y.T).astype(np.int32) for axis in range(3)]
        inside = np.logical_and.reduce([(v >= 0) & (v < n) for v, n in zip(voxels, shape, strict=True)])
        source = tuple(v[inside] for v in voxels)
        tissue[:, :, k][inside] = body.tissue[source]
        labels[:, :, k][inside] = body.labels[source]
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = x[0], y[0], z[0]
    return BodyMap(tissue, labels, spacing, affine)


class AxialSlices:
    """Axial slices of a body, shifted and spaced so that its levels meet those of the subject, still upright."""

    def __init__(self, at_subject: Points, at_body: Points) -> None:
        """Both (n, 3), RAS mm, from tail to head."""
        self._subject, self._body = at_subject, at_body
        self.stretch = float((at_subject[-1, 2] - at_subject[0, 2]) / (at_body[-1, 2] - at_body[0, 2]))

    def to_body(self, points: Points) -> Points:
        """Map points (m, 3) of the subject to the body."""
        z = points[:, 2]
        spine = np.stack([np.interp(z, self._subject[:, 2], self._subject[:, a]) for a in (0, 1)], axis=-1)
        body_z = _extrapolate(z, self._subject[:, 2], self._body[:, 2], 1 / self.stretch)
        there = np.stack([np.interp(body_z, self._body[:, 2], self._body[:, a]) for a in (0, 1)], axis=-1)
        return np.column_stack([there + (points[:, :2] - spine) / self.stretch, body_z])


def thin_plate_warp(at_subject: Points, at_body: Points) -> Callable[[Points], Points]:
    """Return the map of points (m, 3) of the subject to the body, RAS mm; arguments as for `bend_to_spine`."""
    slices = AxialSlices(at_subject, at_body)
    around, around_body = _rungs(at_subject, NEAR_MM), _rungs(at_body, NEAR_MM / slices.stretch)
    compass = FAR_MM * np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    ends = at_subject[[0, -1]] + np.array([[0, 0, -FAR_MM], [0, 0, FAR_MM]])
    upright = np.concatenate([at_subject[::_FAR_EVERY], at_subject[-1:], ends])
    far = np.unique(np.concatenate([(upright[:, None] + compass).reshape(-1, 3), ends]), axis=0)
    points = np.concatenate([around, far])
    targets = np.concatenate([around_body, slices.to_body(far)])
    warp: Callable[[Points], Points] = RBFInterpolator(
        points, targets, kernel="thin_plate_spline", smoothing=_SMOOTHING
    )
    return warp


def _rungs(centres: Points, reach_mm: float) -> Points:
    """Return each of `centres` and four points around it, across the spine: right, left, front, back; (5 n, 3)."""
    tangent = np.gradient(centres, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    right = np.array([1.0, 0, 0]) - tangent[:, :1] * tangent
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    front = np.cross(tangent, right)
    steps = [np.zeros_like(right), right, -right, front, -front]
    return np.concatenate([centres + reach_mm * step for step in steps])


def _extent_mm(body: BodyMap, at_subject: Points, at_body: Points, slices: AxialSlices) -> tuple[Points, Points]:
    """Return the corners of the box that the bent body fills, 340 mm wide."""
    last = body.affine[:3, 3] + body.spacing_mm * (np.array(body.tissue.shape) - 1)
    shift = at_subject[:, 1] - at_body[:, 1] * slices.stretch
    centre_x = float(np.median(at_subject[:, 0]))
    below = max(0.0, at_body[0, 2] - body.affine[2, 3]) * slices.stretch
    above = max(0.0, last[2] - at_body[-1, 2]) * slices.stretch
    low = [centre_x - HALF_WIDTH_MM, body.affine[1, 3] * slices.stretch + shift.min(), at_subject[0, 2] - below]
    high = [centre_x + HALF_WIDTH_MM, last[1] * slices.stretch + shift.max(), at_subject[-1, 2] + above]
    return np.array(low), np.array(high)


def _linear_weights(at: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix (len(at), len(nodes)) that interpolates linearly between evenly spaced `nodes`."""
    place = (at - nodes[0]) / (nodes[1] - nodes[0])
    left = np.minimum(place.astype(int), len(nodes) - 2)
    weights = np.zeros((len(at), len(nodes)))
    rows = np.arange(len(at))
    weights[rows, left] = 1 - (place - left)
    weights[rows, left + 1] = place - left
    return weights


def _extrapolate(
    at: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], slope: float
) -> NDArray[np.float64]:
    value: NDArray[np.float64] = np.interp(at, x, y)
    return np.asarray(value + slope * (np.minimum(0, at - x[0]) + np.maximum(0, at - x[-1])))
