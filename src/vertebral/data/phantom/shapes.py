"""Implicit solids for the phantom: the primitives.

Every function takes points in a frame (mm; x right, y anterior, z cranial) and returns a float32 signed distance in mm,
negative inside; it is exact at the surface and a good approximation within a few mm of it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Distance = NDArray[np.float32]
Points = tuple[Distance, Distance, Distance]
Vector = tuple[float, float, float]


def bar(p: Points, a: Vector, b: Vector, half_a: Any, half_b: Any, round_mm: float = 1.5, up: Any = (0, 0, 1)) -> Any:
    """Return a rounded bar from `a` to `b`, tapering from half size `half_a` to `half_b`, each (across, along `up`)."""
    start, span = np.array(a), np.subtract(b, a)
    length = float(np.linalg.norm(span))
    along = span / length
    side = np.cross(along, up)
    side /= np.linalg.norm(side)
    above = np.cross(side, along)
    t = _project(p, start, along)
    share = np.clip(t / length, 0, 1)
    outside = []
    for axis, (first, last) in zip((side, above), zip(half_a, half_b, strict=True), strict=True):
        outside.append(np.abs(_project(p, start, axis)) - (first - round_mm + share * (last - first)))
    return rounded(np.abs(t - length / 2) - (length / 2 - round_mm), *outside) - round_mm


def ellipsoid(p: Points, centre: Vector, radii: Vector) -> Any:
    """Return an axis-parallel ellipsoid."""
    scaled = [(q - c) / r for q, c, r in zip(p, centre, radii, strict=True)]
    norm = np.sqrt(scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2) + 1e-6
    slope = np.sqrt(sum((q / r) ** 2 for q, r in zip(scaled, radii, strict=True))) + 1e-6
    return norm * (norm - 1) / slope


def ellipse(x: Any, y: Any, half_x: Any, half_y: Any, power: float = 2.0) -> Any:
    """Return an endless upright column with an elliptic (`power` 2) to boxy (4) section, centred at x = y = 0."""
    u, v = np.abs(x) / half_x, np.abs(y) / half_y
    norm = (u**power + v**power) ** (1 / power) + 1e-6
    slope = np.sqrt((u ** (power - 1) / half_x) ** 2 + (v ** (power - 1) / half_y) ** 2) / norm ** (power - 1)
    return (norm - 1) / (slope + 1e-6)


def blend(*solids: Any, radius_mm: float = 2.0) -> Any:
    """Return the union, its inner edges rounded with a fillet of about `radius_mm`."""
    joined = solids[0]
    for solid in solids[1:]:
        near = np.maximum(radius_mm - np.abs(joined - solid), 0)
        joined = np.minimum(joined, solid) - near * near / (4 * radius_mm)
    return joined


def carve(solid: Any, hole: Any) -> Any:
    """Return `solid` without `hole`."""
    return np.maximum(solid, -hole)


def _project(p: Points, origin: Any, axis: Any) -> Any:
    terms = [(q - o) * a for q, o, a in zip(p, origin.tolist(), axis.tolist(), strict=True) if abs(a) > 1e-9]
    return sum(terms[1:], terms[0])


def rounded(a: Any, b: Any, c: Any) -> Any:
    """Return the distance to a box from the signed distances to its three slabs."""
    inside = np.minimum(np.maximum(np.maximum(a, b), c), 0)
    return np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2 + np.maximum(c, 0) ** 2) + inside
