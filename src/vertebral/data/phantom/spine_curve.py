"""Where each vertebra of the phantom stands: sizes with natural variation, and a stack along the spine's curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import Level, sort_levels
from vertebral.core.errors import ConfigError
from vertebral.data.phantom.shapes import Points, Vector
from vertebral.data.phantom.vertebrae import SIZES, VertebraSize


@dataclass(frozen=True)
class Curves:
    """Cobb angles of the whole spine in degrees.

    C2-C7, T1-T12 and L1-sacrum in the sagittal plane; in the frontal plane the largest angle of a balanced S.
    """

    cervical_lordosis_deg: float = 22.0
    thoracic_kyphosis_deg: float = 38.0
    lumbar_lordosis_deg: float = 50.0
    scoliosis_deg: float = 0.0


@dataclass(frozen=True)
class PlacedBone:
    """A bone in the patient: origin in RAS+ mm and a rotation whose columns are the bone's right, front and up."""

    level: Level
    size: VertebraSize
    origin_mm: NDArray[np.float64]
    rotation: NDArray[np.float64]

    def to_world(self, point: Vector) -> NDArray[np.float64]:
        """Map a point of the bone's own frame to RAS+ mm."""
        return self.origin_mm + self.rotation @ np.asarray(point, np.float64)

    def to_own(self, points: Points) -> Points:
        """Map RAS+ mm coordinate arrays (broadcastable) to the bone's own frame."""
        return own_frame(points, self.origin_mm, self.rotation)

    def bounds_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lower and upper corner in RAS+ mm of a box around the bone."""
        low, high = _extent(self.level.name, self.size)
        corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1)
        world = self.origin_mm[:, None] + self.rotation @ corners
        return world.min(axis=1), world.max(axis=1)


def own_frame(points: Points, origin_mm: NDArray[np.float64], rotation: NDArray[np.float64]) -> Points:
    """Map RAS+ mm coordinate arrays (broadcastable) to the frame at `origin_mm` with axes `rotation`'s columns."""
    shifted = [np.asarray(q - o, np.float32) for q, o in zip(points, origin_mm, strict=True)]
    own = []
    for column in rotation.T:
        terms = [q * np.float32(c) for q, c in zip(shifted, column, strict=True) if abs(c) > 1e-9]
        own.append(sum(terms[1:], terms[0]))
    return own[0], own[1], own[2]


def stack(levels: Sequence[Level], curves: Curves, rng: np.random.Generator) -> tuple[PlacedBone, ...]:
    """Place `levels` from tail to head, the lowest at the world's origin, each tilted along the curve.

    Sizes vary by a few per cent with `rng`. Raises ConfigError for no level, a repeated one or the coccyx.
    """
    ordered = sort_levels(levels)[::-1]
    unknown = [level.name for level in ordered if level.name not in SIZES]
    if not ordered or unknown or len(set(ordered)) != len(ordered):
        names = ", ".join(level.name for level in ordered) or "none"
        raise ConfigError(f"phantom levels ({names}): name at least one of {', '.join(SIZES)}, each once")
    stature = rng.uniform(0.95, 1.05)
    variation = {level.name: stature * rng.normal(1.0, 0.012) for level in ordered}
    placed: list[PlacedBone] = []
    for level in ordered:
        size = SIZES[level.name].scaled(variation[level.name])
        rotation = _rotation(_tilt_deg(level, ordered, curves), _roll_deg(level, ordered, curves))
        origin = np.zeros(3)
        if placed:
            below = placed[-1]
            between = _halfway(below.rotation, rotation)
            origin = below.to_world((0, 0, below.size.height / 2)) + size.disc * between[:, 2]
            origin = origin + size.height / 2 * rotation[:, 2]
        placed.append(PlacedBone(level, size, origin, rotation))
    return tuple(placed)


def disc_frame(below: PlacedBone, above: PlacedBone) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centre (RAS+ mm) and rotation of the disc between two neighbours."""
    between = _halfway(below.rotation, above.rotation)
    return below.to_world((0, 0, below.size.height / 2)) + above.size.disc / 2 * between[:, 2], between


def _extent(name: str, s: VertebraSize) -> tuple[Vector, Vector]:
    """Return the corners of a box around the bone in its own frame, with a margin of 3 mm."""
    if name == "sacrum":
        return (-0.55 * s.span, -75, -112), (0.55 * s.span, 40, 12)
    drop = np.deg2rad(s.drop_deg)
    length = s.spinous - s.canal_depth
    low_z = min(-s.height / 2 - s.disc - 10, -0.3 * s.height - length * float(np.sin(drop)) - 9)
    high_z = s.height / 2 + s.disc + (19 if name == "C2" else 8)
    front = s.depth / 2 + (10 if name == "C1" else 4)
    return (-s.span / 2 - 4, s.arch - length * float(np.cos(drop)) - 10, low_z), (s.span / 2 + 4, front, high_z)


def _tilt_deg(level: Level, levels: Sequence[Level], curves: Curves) -> float:
    """Return by how many degrees the upward axis of the bone leans forwards."""
    lowest_thoracic = -0.35 * curves.thoracic_kyphosis_deg
    number = int(level.name[1:]) if level.is_vertebra else 0
    if level.region == "thoracic":
        return lowest_thoracic + curves.thoracic_kyphosis_deg * (12 - min(number, 12)) / 11
    if level.region == "cervical":
        top = lowest_thoracic + curves.thoracic_kyphosis_deg
        return top - curves.cervical_lordosis_deg * (7 - max(number, 2)) / 5
    lumbar_count = 6 if any(other.name == "L6" for other in levels) else 5
    share = (number - 1) / lumbar_count if level.is_vertebra else 1.0
    return float(lowest_thoracic + curves.lumbar_lordosis_deg * share**1.6)


def _roll_deg(level: Level, levels: Sequence[Level], curves: Curves) -> float:
    """Return by how many degrees the upward axis of the bone leans to the right."""
    share = levels.index(level) / max(len(levels) - 1, 1)
    return float(curves.scoliosis_deg / 2 * np.sin(2 * np.pi * share))


def _rotation(tilt_deg: float, roll_deg: float) -> NDArray[np.float64]:
    tilt, roll = np.deg2rad(tilt_deg), np.deg2rad(roll_deg)
    forwards = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
    sideways = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    return np.asarray(sideways @ forwards)


def _halfway(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation nearest to the mean of two."""
    left, _, right = np.linalg.svd(first + second)
    return np.asarray(left @ right)
