"""The surroundings of the phantom's spine: skin, fat, muscle, lungs, vessels, cord, and bones without a label."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter1d

from vertebral.core.anatomy import BY_NAME
from vertebral.data.phantom.shapes import Distance, Points, bar, blend, carve, ellipse, ellipsoid
from vertebral.data.phantom.spine_curve import PlacedBone, own_frame

# HU of tissues at 120 kV without contrast agent, rounded.
HU = {
    "air": -1000.0, "lung": -850.0, "fat": -100.0, "fluid": 10.0, "cord": 38.0, "blood": 45.0,
    "organ": 50.0, "kidney": 32.0, "muscle": 58.0, "skin": 40.0, "disc": 80.0, "marrow": 110.0, "trabecular": 180.0,
    "cortical": 750.0,
}  # fmt: skip

# mm at a level: half width of the trunk, vertebral centre to the skin behind, depth of the trunk, subcutaneous fat.
_OUTLINE: dict[str, tuple[float, float, float, float]] = {
    "C1": (76, 92, 195, 5), "C2": (70, 78, 160, 6), "C3": (62, 68, 128, 7), "C6": (64, 70, 128, 8),
    "C7": (80, 76, 138, 9), "T1": (112, 80, 150, 10), "T3": (142, 82, 185, 10), "T6": (149, 82, 212, 11),
    "T10": (149, 88, 214, 12), "L1": (147, 96, 208, 14), "L3": (147, 99, 204, 17), "sacrum": (150, 95, 205, 20),
}  # fmt: skip
# mm for each rib: half width of the rib cage, vertebral centre to its front, descent of the rib; then the angle that
# the rib sweeps from the back, in degrees.
_CAGE: dict[str, tuple[float, float, float, float]] = {
    "T1": (58, 52, 22, 150), "T2": (80, 70, 34, 152), "T3": (95, 84, 46, 152), "T4": (105, 94, 56, 150),
    "T5": (112, 100, 64, 150), "T6": (117, 104, 70, 148), "T7": (121, 106, 76, 146), "T8": (124, 106, 80, 138),
    "T9": (126, 105, 80, 128), "T10": (126, 104, 78, 118), "T11": (123, 102, 46, 80), "T12": (118, 100, 34, 58),
}  # fmt: skip


@dataclass(frozen=True)
class TrunkProfile:
    """The trunk as functions of height: each array is (K,), mm in RAS+, for the heights `z`."""

    z: Distance
    spine_x: Distance
    spine_y: Distance
    half_width: Distance
    half_depth: Distance
    centre_y: Distance
    fat: Distance
    cage_width: Distance
    cage_front: Distance
    psoas: Distance
    canal: dict[str, Distance]
    lung_top: float
    diaphragm: float

    def part(self, start: int, stop: int) -> "TrunkProfile":
        """Return the same trunk between two height indices."""
        cut = {k: v[start:stop] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        canal = {k: v[start:stop] for k, v in self.canal.items()}
        return TrunkProfile(**cut, canal=canal, lung_top=self.lung_top, diaphragm=self.diaphragm)


def profile(placed: Sequence[PlacedBone], z_mm: NDArray[np.float64]) -> TrunkProfile:
    """Return the trunk outline and the course of long structures at the heights `z_mm` (K,), from the placed bones."""
    rank = np.array([b.level.rank for b in placed], float)
    height = np.array([b.origin_mm[2] for b in placed])

    def along(values: Any, smooth_mm: float = 12.0) -> Distance:
        step = float(z_mm[1] - z_mm[0]) if len(z_mm) > 1 else 1.0
        smooth = gaussian_filter1d(np.interp(z_mm, height, values), smooth_mm / step, mode="nearest")
        return np.asarray(smooth, np.float32)

    def table(rows: Mapping[str, tuple[float, ...]], column: int) -> Any:
        return np.interp(rank, [BY_NAME[n].rank for n in rows], [row[column] for row in rows.values()])

    y = np.array([b.origin_mm[1] for b in placed])
    depth = table(_OUTLINE, 2)
    canal_places = np.array([b.to_world((0, b.size.back - b.size.canal_depth / 2, 0)) for b in placed])
    canal = {
        "x": np.interp(z_mm, canal_places[:, 2], canal_places[:, 0]),
        "y": np.interp(z_mm, canal_places[:, 2], canal_places[:, 1]),
        "half_width": np.interp(z_mm, height, [b.size.canal_width / 2 - 1 for b in placed]),
        "half_depth": np.interp(z_mm, height, [min(b.size.canal_depth, 19) / 2 - 1 for b in placed]),
        "cord": (z_mm > _height_of("L1", placed)).astype(float),
    }
    return TrunkProfile(
        z=np.asarray(z_mm, np.float32),
        spine_x=along([b.origin_mm[0] for b in placed], 4),
        spine_y=along(y, 4),
        half_width=along(table(_OUTLINE, 0)),
        half_depth=along(depth / 2),
        centre_y=along(y - table(_OUTLINE, 1) + depth / 2),
        fat=along(table(_OUTLINE, 3)),
        cage_width=along(table(_CAGE, 0)),
        cage_front=along(y + table(_CAGE, 1)),
        psoas=along(np.interp(rank, [BY_NAME[n].rank for n in ("T12", "L2", "L5")], [0, 14, 22])),
        canal={k: np.asarray(v, np.float32) for k, v in canal.items()},
        lung_top=_height_of("T1", placed),
        diaphragm=_height_of("T12", placed) - 8,
    )


def _height_of(name: str, placed: Sequence[PlacedBone]) -> float:
    """Return the height z (mm) of a level, estimated if it is absent."""
    steps = [b.level.rank - BY_NAME[name].rank for b in placed]
    nearest = int(np.argmin(np.abs(steps)))
    return float(placed[nearest].origin_mm[2]) + 27.0 * steps[nearest]


def soft_tissue(x: Distance, y: Distance, p: TrunkProfile, patches: Any, voxel_mm: float) -> Distance:
    """Return HU (I, J, K) float32 at x (I, 1, 1), y (1, J, 1) and the z of `p`; `patches` (I, J, K): smooth noise."""

    def lay(value: Any, distance: Any) -> None:
        np.add(hu, (value - hu) * np.clip(0.5 - distance / voxel_mm, 0, 1), out=hu)

    hu = np.full(patches.shape, HU["air"], np.float32)
    skin = ellipse(x, y - p.centre_y, p.half_width, p.half_depth, power=2.4)
    lay(HU["skin"], skin)
    lay(HU["fat"], skin + 2)
    lay(HU["muscle"] + 6 * patches, skin + p.fat)
    off, ahead = x - p.spine_x, y - p.spine_y
    lungs, above_diaphragm = _lungs(x, y, p)
    rear, front = p.spine_y - 16, p.centre_y + p.half_depth - p.fat - 14
    belly = ellipse(x, y - (front + rear) / 2, p.half_width - p.fat - 16, (front - rear) / 2, power=2.5)
    belly = np.maximum(belly, above_diaphragm + 4)
    lay(HU["fat"], belly)
    gut = np.maximum(belly + 3, np.maximum(6 * (patches - 0.2), 30 - ahead - off * off / 150))
    lay(HU["organ"] + 8 * patches, gut)
    liver = ellipsoid((x - 75, ahead - 45, p.z - p.diaphragm), (0, 0, 0), (62, 68, 72))
    lay(HU["organ"] + 5, np.maximum(belly + 2, liver))
    lay(HU["kidney"], ellipsoid((np.abs(off) - 62, ahead + 2, p.z - p.diaphragm + 40), (0, 0, 0), (25, 19, 50)))
    lay(HU["muscle"], ellipse(np.abs(off) - 24 - 0.6 * p.psoas, ahead + 2, p.psoas + 0.1, 1.25 * p.psoas + 0.1))
    lay(HU["lung"] + 45 * patches, lungs)
    lay(HU["blood"], np.maximum(ellipse(off + 10, ahead - 30, 11, 11), p.z - p.lung_top + 70))
    lay(HU["blood"], np.maximum(ellipse(off - 14, ahead - 29, 12, 9), p.z - p.diaphragm))
    lay(HU["air"] + 20, np.maximum(ellipse(x, ahead - 34, 8, 8), p.lung_top - 70 - p.z))
    c = p.canal
    canal_x, canal_y = x - c["x"], y - c["y"]
    lay(HU["fluid"], ellipse(canal_x, canal_y, c["half_width"], c["half_depth"]))
    lay(HU["cord"], np.where(c["cord"] > 0, ellipse(canal_x, canal_y, 6.0, 4.2), np.float32(50)))
    return hu


def _lungs(x: Distance, y: Distance, p: TrunkProfile) -> tuple[Any, Any]:
    """Return both lungs (the rib cage without mediastinum, above the diaphragm) and the height above the diaphragm."""
    back = p.spine_y - 48
    cage = ellipse(x, y - (p.cage_front + back) / 2, p.cage_width - 9, (p.cage_front - back) / 2 - 7, power=2.3)
    off, ahead = x - p.spine_x, y - p.spine_y
    heart = ellipsoid((x + 24, ahead - 62, p.z - p.diaphragm - 75), (0, 0, 0), (46, 38, 62))
    middle = blend(ellipse(off, ahead - 20, 27, 85), heart, radius_mm=12)
    bulge = np.clip(1 - ((np.abs(x) - 62) / 55) ** 2 - ((ahead - 30) / 78) ** 2, 0, 1)
    above = p.z - p.diaphragm - 72 * bulge
    return np.maximum(np.maximum(carve(cage, middle), -above), p.z - p.lung_top - 8), above


@dataclass(frozen=True)
class Solid:
    """One unlabelled bone, the union of pieces (lower corner, upper corner, both (3,) mm; distance in RAS+ mm)."""

    pieces: tuple[tuple[NDArray[np.float64], NDArray[np.float64], Any], ...]


def other_bones(placed: Sequence[PlacedBone], p: TrunkProfile) -> Iterator[Solid]:
    """Yield the ribs, iliac wings and skull base next to the placed bones."""
    for bone in placed:
        if bone.level.name in _CAGE:
            yield from (_rib(bone, p, side) for side in (-1, 1))
        if bone.level.name == "sacrum":
            yield from (_iliac_wing(bone, side) for side in (-1, 1))
        if bone.level.name == "C1":
            yield _skull_base(bone)


def _rib(bone: PlacedBone, p: TrunkProfile, side: int) -> Solid:
    """Return a flat curved bar: from the vertebral body past the transverse process and round the rib cage."""
    width, front, fall, sweep_deg = _CAGE[bone.level.name]
    s, number = bone.size, int(bone.level.name[1:])
    head_z = s.height * (0.5 if 1 < number < 11 else 0.25)
    head = bone.to_world((side * (s.width / 2 + 3.5), s.back + 3, head_z))
    neck = bone.to_world((side * (s.span / 2 + 1), s.arch + 7.5, 0.3 * s.height + 2))
    rear_y = neck[1] - 14
    centre_y, half_depth = (bone.origin_mm[1] + front + rear_y) / 2, (bone.origin_mm[1] + front - rear_y) / 2
    first = 22 + 10 * (number == 1)
    turns = np.linspace(first, sweep_deg, max(4, int(sweep_deg / 14)))
    turn = np.deg2rad(turns)
    sweep = np.stack(
        [
            side * width * np.sin(turn),
            centre_y - half_depth * np.cos(turn),
            neck[2] - 2 - fall * (turns - first) / (sweep_deg - first),
        ],
        axis=1,
    )
    sweep[:, 0] += np.interp(turns, (0, 120), (bone.origin_mm[0], 0))
    knots = np.vstack([head, neck, sweep])
    chord = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
    course = make_interp_spline(chord, knots, k=3)(np.linspace(0, chord[-1], max(8, int(chord[-1] / 7))))
    pieces = []
    for a, b in itertools.pairwise(course):
        ends = np.stack([a, b])
        half = (3.0, 4.5 if number > 1 else 3.5)
        overlap = (b - a) / np.linalg.norm(b - a) * 1.5
        pieces.append((ends.min(axis=0) - 9, ends.max(axis=0) + 9, _as_bar(a - overlap, b + overlap, half)))
    return Solid(tuple(pieces))


def _as_bar(a: Any, b: Any, half: tuple[float, float]) -> Any:
    return lambda points: bar(points, tuple(a), tuple(b), half, half, 2.5)


def _iliac_wing(sacrum: PlacedBone, side: int) -> Solid:
    """Return a bent plate from behind the sacral wing to the front of the pelvis, without its lower part."""
    scale = sacrum.size.span / 112
    knots = np.array([(44, -72), (54, -48), (66, -26), (84, -6), (104, 16), (118, 42), (122, 60)])
    plan = scale * make_interp_spline(np.arange(7), knots)(np.linspace(0, 6, 13))

    def distance(points: Points) -> Any:
        x, y, z = own_frame(points, sacrum.origin_mm, np.diag([side, 1.0, 1.0]))
        aside, along = _ribbon(x - 0.22 * (z + 20), y, plan)
        crest = np.interp(along, (0, 20, 60, 110, 150, 175), (-20, 5, 30, 34, 8, -25)).astype(np.float32)
        foot = np.interp(along, (0, 40, 175), (-48, -70, -62)).astype(np.float32)
        thick = np.interp(along, (0, 50, 100, 160), (5, 5, 2.6, 4.5)).astype(np.float32)
        return np.maximum(aside - thick, np.maximum(z - crest, foot - z) * 0.8)

    corners = np.array([(side * x, y, z) for x, y in ((25, -85), (150, 72)) for z in (-75, 40)]) * scale
    return Solid(((sacrum.origin_mm + corners.min(axis=0), sacrum.origin_mm + corners.max(axis=0), distance),))


def _ribbon(x: Any, y: Any, plan: NDArray[np.float64]) -> tuple[Any, Any]:
    """Return the distance (mm) to the polyline `plan` (N, 2) in x and y, and the length to the nearest point."""
    nearest: Any = np.float32(1e3)
    along: Any = np.float32(0)
    passed = 0.0
    for start, step in zip(plan[:-1].tolist(), np.diff(plan, axis=0).tolist(), strict=True):
        length = math.hypot(*step)
        t = np.clip(((x - start[0]) * step[0] + (y - start[1]) * step[1]) / length**2, 0, 1)
        gap = np.hypot(x - start[0] - t * step[0], y - start[1] - t * step[1])
        along = np.where(gap < nearest, passed + t * length, along)
        nearest = np.minimum(nearest, gap)
        passed += length
    return nearest, along


def _skull_base(atlas: PlacedBone) -> Solid:
    """Return the lower skull with the foramen magnum and the condyles on C1."""

    def distance(points: Points) -> Any:
        q = own_frame(points, atlas.origin_mm, np.eye(3))
        shell = np.abs(ellipsoid(q, (0, 8, 80), (68, 88, 62))) - 2.5
        condyle = ellipsoid((np.abs(q[0]), q[1], q[2]), (15, 1, 15), (6, 11, 6.5))
        foramen = np.maximum(ellipse(q[0], q[1] + 13, 15, 18), q[2] - 45)
        return blend(carve(shell, foramen), condyle, radius_mm=4)

    low, high = np.array([-74.0, -88, 6]), np.array([74.0, 104, 60])
    return Solid(((atlas.origin_mm + low, atlas.origin_mm + high, distance),))
