"""Vertebrae made of planes and ellipses, whose measurements are known by construction, painted on any grid."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import level_named
from vertebral.core.volume import Grid, Volume

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Vertebra:
    """A body (elliptic column between two planes) with pedicles, laminae, transverse and spinous processes.

    `axes` rows are right, anterior, up; `wedge_deg` > 0 lowers the front, `lean_deg` > 0 the right side.
    """

    level: str
    width: float = 44.0
    depth: float = 34.0
    height: float = 27.0
    wedge_deg: float = 0.0
    lean_deg: float = 0.0
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axes: tuple[tuple[float, ...], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    @property
    def canal(self) -> tuple[float, float]:
        """Width and depth of the canal."""
        return (0.55 * self.width, 0.5 * self.depth)

    def edge_height(self, share: float) -> float:
        """Height in the midline at `share` of the half depth in front of the centre."""
        return self.height - 2 * np.tan(np.deg2rad(self.wedge_deg / 2)) * share * self.depth / 2

    def volume_ml(self) -> float:
        """Volume of the body: its planes tilt about its centre, so they change nothing."""
        return np.pi / 4 * self.width * self.depth * self.height / 1000

    def normal(self, side: int) -> Vector:
        """World normal, towards the head, of the superior (1) or inferior (-1) endplate."""
        tilt = np.tan(np.deg2rad([self.lean_deg / 2, self.wedge_deg / 2])) * side
        normal = np.array([tilt[0], tilt[1], 1.0]) @ np.array(self.axes)
        return normal / np.linalg.norm(normal)

    def place(self, share: float, side: int) -> Vector:
        """World place on an endplate in the midline, at `share` of the half depth in front of the centre."""
        ahead = share * self.depth / 2
        return np.array(self.origin) + np.array([0, ahead, side * self.edge_height(share) / 2]) @ np.array(self.axes)

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which of (..., 3) RAS+ mm points are inside."""
        r, a, u = np.moveaxis((points - np.array(self.origin)) @ np.array(self.axes).T, -1, 0)
        half_w, half_d, h = self.width / 2, self.depth / 2, self.height
        tan_a, tan_r = np.tan(np.deg2rad(self.wedge_deg / 2)), np.tan(np.deg2rad(self.lean_deg / 2))
        body = ((r / half_w) ** 2 + (a / half_d) ** 2 <= 1) & (np.abs(u) <= h / 2 - a * tan_a - r * tan_r)
        canal_w, canal_d = self.canal
        m, back = np.abs(r), -half_d
        arch = back - canal_d
        thick = 0.16 * self.width
        pedicle = (
            (m > canal_w / 2) & (m < canal_w / 2 + thick) & (a < 0.3 * back) & (a > arch - 2) & (u > 0) & (u < 0.38 * h)
        )
        lamina = (m < canal_w / 2 + thick) & (a < arch) & (a > arch - 5) & (u > -0.5 * h) & (u < 0.4 * h)
        across = (
            (m < 0.85 * self.width) & (m > canal_w / 2) & (a < back - 5) & (a > back - 12) & (u > 0) & (u < 0.35 * h)
        )
        spinous = (m < 3) & (a < arch - 4) & (a > arch - 26) & (u > -0.5 * h) & (u < 0.1 * h)
        return body | pedicle | lamina | across | spinous


def turned(axis: tuple[float, float, float], angle_deg: float) -> NDArray[np.float64]:
    """Rotation matrix (Rodrigues) about `axis`; columns are the turned world axes."""
    k = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
    angle = np.deg2rad(angle_deg)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def moved(bone: Vertebra, rotation: NDArray[np.float64], shift: tuple[float, float, float] = (0, 0, 0)) -> Vertebra:
    """Rotate about the world's origin, then shift."""
    origin = rotation @ np.array(bone.origin) + np.array(shift)
    axes = np.array(bone.axes) @ rotation.T
    return replace(bone, origin=tuple(origin.tolist()), axes=tuple(tuple(row) for row in axes.tolist()))


def stacked(bones: list[Vertebra], disc_mm: float, disc_deg: float = 0.0, slip_mm: float = 0.0) -> list[Vertebra]:
    """Put bones (head to tail) on each other: discs of one height in the middle, opening to the front by `disc_deg`.

    Each upper vertebra is `slip_mm` in front of the lower one along the disc's middle plane.
    """
    placed = [bones[-1]]
    for bone in bones[-2::-1]:
        below = placed[0]
        axes = np.array(below.axes)
        # Turn about the right axis: the lower top, half the disc, half the disc, the upper bottom.
        half_turn = turned(tuple(axes[0]), below_angle(below, disc_deg))
        disc_axes = axes @ half_turn.T
        turn = turned(tuple(axes[0]), below_angle(bone, disc_deg))
        own_axes = disc_axes @ turn.T
        top = below.place(0, 1)
        bottom = top + disc_mm * disc_axes[2] + slip_mm * disc_axes[1]
        origin = bottom + bone.height / 2 * own_axes[2]
        placed.insert(0, replace(bone, origin=tuple(origin.tolist()), axes=tuple(tuple(r) for r in own_axes.tolist())))
    return placed


def below_angle(bone: Vertebra, disc_deg: float) -> float:
    """Turn about the right axis (degrees) from a body's middle plane to the disc's: half the disc's less half its own.

    A positive turn about the right axis tips the up axis backwards.
    """
    return -bone.wedge_deg / 2 + disc_deg / 2


def bent_sideways(bones: list[Vertebra], disc_mm: float, step_deg: float) -> list[Vertebra]:
    """Put bones (head to tail) on an arc that leans `step_deg` further to the right with each bone upwards."""
    placed = [bones[-1]]
    for bone in bones[-2::-1]:
        below = placed[0]
        half = turned((0, 1, 0), step_deg / 2)
        disc_axes = np.array(below.axes) @ half.T
        own_axes = disc_axes @ half.T
        top = np.array(below.origin) + below.height / 2 * np.array(below.axes)[2]
        origin = top + disc_mm * disc_axes[2] + bone.height / 2 * own_axes[2]
        placed.insert(0, replace(bone, origin=tuple(origin.tolist()), axes=tuple(tuple(r) for r in own_axes.tolist())))
    return placed


def grid_around(
    bones: list[Vertebra], spacing: tuple[float, float, float], rotation: NDArray[np.float64], margin: float = 6.0
) -> Grid:
    """A grid whose axes are `rotation`'s columns, with a margin around all bones."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1.0, 0.7) for z in (-1, 1)])
    boxes = []
    for bone in bones:
        half = np.array([0.86 * bone.width, bone.depth / 2 + bone.canal[1] + 27, 0.65 * bone.height + 4])
        boxes.append(np.array(bone.origin) + (corners * half) @ np.array(bone.axes))
    own = np.concatenate(boxes) @ rotation
    low, high = own.min(axis=0) - margin, own.max(axis=0) + margin
    shape = np.ceil((high - low) / np.array(spacing)).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(spacing)
    affine[:3, 3] = rotation @ (low + 0.37 * np.array(spacing))
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def painted(bones: list[Vertebra], grid: Grid) -> Volume:
    """Label map of the bones on `grid`: a voxel belongs to the bone that holds its centre."""
    labels = np.zeros(grid.shape, np.uint8)
    for bone in bones:
        reach = np.array([0.9 * bone.width, bone.depth / 2 + bone.canal[1] + 30, 0.75 * bone.height + 8])
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * reach
        voxels = grid.to_voxel(np.array(bone.origin) + corners @ np.array(bone.axes))
        low = np.maximum(np.floor(voxels.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(voxels.max(axis=0)).astype(int) + 1, grid.shape)
        if (low >= high).any():
            continue
        places = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1)
        i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        labels[i, j, k][bone.contains(grid.to_world(places))] = level_named(bone.level).verse_id
    return Volume(labels, grid.affine)
