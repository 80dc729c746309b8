"""The phantom's labelled bones: a table of dimensions, then each kind of vertebra assembled from primitives.

Every shape takes points in the bone's own frame (mm; x right, y anterior, z cranial) and returns a signed distance in
mm, negative inside. The origin is the centre of the vertebral body, for C1 of the ring around the dens, and for the
sacrum of its upper endplate. Paired structures are drawn once, on |x|.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from vertebral.data.phantom.shapes import Points, bar, blend, carve, ellipse, ellipsoid, rounded


@dataclass(frozen=True)
class VertebraSize:
    """Dimensions of one vertebra in mm.

    `disc` is the height of the disc below, `span` the width between the tips of the transverse processes, `spinous` the
    distance from the posterior wall of the body to the tip of a horizontal spinous process, `drop_deg` the angle by
    which that process points downwards.
    """

    width: float
    depth: float
    height: float
    disc: float
    canal_width: float
    canal_depth: float
    span: float
    spinous: float
    drop_deg: float

    def scaled(self, factor: float) -> "VertebraSize":
        """Return all lengths times `factor` and the same angle."""
        lengths = {f.name: getattr(self, f.name) * factor for f in fields(self) if f.name != "drop_deg"}
        return replace(self, **lengths)

    @property
    def back(self) -> float:
        """The y of the body's posterior wall."""
        return -self.depth / 2

    @property
    def arch(self) -> float:
        """The y of the posterior edge of the vertebral canal."""
        return self.back - self.canal_depth


# Rounded values after Panjabi et al., Quantitative three-dimensional anatomy: cervical (Spine 1991;16:861-869),
# thoracic (Spine 1991;16:888-901) and lumbar (Spine 1992;17:299-306), smoothed from level to level. They should look
# right; they are not normative data. C1 and the sacrum have their own shapes and use few of the columns.
#       width depth height disc  canal w  d   span spinous drop
SIZES: dict[str, VertebraSize] = {
    "C1": VertebraSize(22.0, 16.0, 20.0, 0.0, 26.0, 30.0, 76.0, 36.0, 0),
    "C2": VertebraSize(18.0, 16.0, 17.0, 5.0, 24.0, 17.0, 54.0, 35.0, 22),
    "C3": VertebraSize(18.0, 15.5, 12.5, 5.0, 23.5, 15.5, 50.0, 30.0, 20),
    "C4": VertebraSize(18.5, 15.5, 12.5, 5.0, 24.5, 15.5, 51.0, 30.0, 20),
    "C5": VertebraSize(19.5, 16.0, 12.5, 5.2, 25.0, 15.5, 53.0, 31.0, 22),
    "C6": VertebraSize(21.0, 16.5, 12.5, 5.5, 25.5, 15.5, 55.0, 36.0, 22),
    "C7": VertebraSize(24.0, 17.5, 14.0, 5.5, 24.5, 15.5, 66.0, 47.0, 22),
    "T1": VertebraSize(26.0, 18.5, 15.5, 5.0, 22.0, 16.5, 75.0, 51.0, 24),
    "T2": VertebraSize(26.5, 20.0, 17.0, 4.5, 19.5, 16.0, 69.0, 52.0, 30),
    "T3": VertebraSize(26.5, 22.0, 17.5, 4.2, 18.5, 16.0, 64.0, 53.0, 38),
    "T4": VertebraSize(26.5, 23.5, 18.0, 4.2, 17.5, 16.0, 61.0, 54.0, 45),
    "T5": VertebraSize(27.0, 24.5, 18.3, 4.2, 17.5, 16.0, 61.0, 56.0, 50),
    "T6": VertebraSize(28.0, 26.0, 18.8, 4.4, 17.5, 16.0, 61.0, 57.0, 53),
    "T7": VertebraSize(29.5, 27.5, 19.4, 4.6, 17.5, 16.0, 61.0, 58.0, 53),
    "T8": VertebraSize(30.5, 28.5, 20.0, 4.9, 17.5, 16.0, 60.0, 57.0, 50),
    "T9": VertebraSize(32.0, 29.5, 20.6, 5.3, 18.0, 16.0, 58.0, 55.0, 43),
    "T10": VertebraSize(34.0, 30.5, 21.6, 5.8, 18.5, 16.0, 56.0, 52.0, 33),
    "T11": VertebraSize(37.0, 31.5, 22.7, 6.4, 20.0, 16.5, 52.0, 50.0, 22),
    "T12": VertebraSize(40.0, 32.5, 24.0, 7.2, 22.0, 18.0, 48.0, 50.0, 14),
    "T13": VertebraSize(40.5, 33.0, 24.8, 7.8, 22.5, 18.2, 48.0, 52.0, 12),
    "L1": VertebraSize(41.5, 33.5, 25.5, 8.5, 23.5, 18.5, 72.0, 55.0, 10),
    "L2": VertebraSize(43.0, 34.5, 26.2, 9.5, 24.0, 18.0, 78.0, 57.0, 8),
    "L3": VertebraSize(45.0, 35.0, 26.6, 10.5, 24.5, 18.0, 87.0, 58.0, 8),
    "L4": VertebraSize(47.0, 35.5, 26.6, 11.0, 25.5, 18.0, 83.0, 55.0, 8),
    "L5": VertebraSize(49.0, 35.0, 26.0, 10.5, 27.0, 18.5, 90.0, 48.0, 8),
    "L6": VertebraSize(49.5, 34.5, 25.0, 9.5, 27.5, 18.5, 92.0, 46.0, 8),
    "sacrum": VertebraSize(49.0, 33.0, 0.0, 0.0, 28.0, 17.0, 112.0, 45.0, 0),
}


def _mirrored(p: Points) -> Points:
    return np.abs(p[0]), p[1], p[2]


def body(p: Points, s: VertebraSize) -> Any:
    """Vertebral body: waisted elliptic column between two slightly hollow endplates with rounded rims."""
    x, y, z = p
    level = z / (s.height / 2)
    flare = 1 - 0.10 * (1 - np.clip(level, -1, 1) ** 2) - 0.025 * level
    side = ellipse(x, y, s.width / 2 * flare, s.depth / 2 * flare, power=2.3)
    hollow = 0.06 * s.height * np.clip(-side / (s.depth / 2), 0, 1)
    return rounded(side + 1.0, np.abs(z) - (s.height / 2 - 1.0 - hollow), np.float32(-1e3)) - 1.0


def canal(p: Points, s: VertebraSize) -> Any:
    """The vertebral canal as an endless column, narrower behind."""
    ahead = p[1] - (s.back - s.canal_depth / 2)
    narrow = 1 + 0.25 * np.clip(ahead / (s.canal_depth / 2), -1, 1)
    return ellipse(p[0], ahead, s.canal_width / 2 * narrow, s.canal_depth / 2)


def disc(p: Points, s: VertebraSize) -> Any:
    """Intervertebral disc; p is centred midway between the two endplates."""
    side = ellipse(p[0], p[1], s.width * 0.49, s.depth * 0.49, power=2.3)
    return np.maximum(side, np.abs(p[2]) - (s.disc / 2 + 0.08 * s.height))


def _spinous(p: Points, s: VertebraSize, root_z: float, half_root: Any, half_tip: Any) -> Any:
    drop = np.deg2rad(s.drop_deg)
    length = s.spinous - s.canal_depth
    tip = (0.0, s.arch - length * float(np.cos(drop)), root_z - length * float(np.sin(drop)))
    return bar(p, (0.0, s.arch - 1.0, root_z), tip, half_root, half_tip, 2.5)


def lumbar(p: Points, s: VertebraSize) -> Any:
    """L1-L6: square spinous process, long thin transverse processes, upright facets facing sideways."""
    m, h, edge = _mirrored(p), s.height, s.canal_width / 2
    joint = h / 2 + s.disc
    pedicle_half = 0.22 * s.width - 5.0
    pedicle = bar(m, (edge + 2.5, s.back + 5, 0.2 * h), (edge + 4, s.back - 9, 0.18 * h), (pedicle_half, 7), (5, 7), 3)
    skew = (1, 1, 0)
    upper_facet = bar(m, (edge + 4, s.back - 10, 0), (edge + 6.5, s.back - 12, joint + 2), (6, 5), (6, 4), 3, skew)
    lower_facet = bar(m, (edge + 1, s.arch + 1, 0.1 * h), (edge - 1, s.arch - 1, -joint - 3), (6.5, 5), (6, 4), 3, skew)
    transverse = bar(m, (edge + 4, s.back - 9, 0.12 * h), (s.span / 2, s.back - 14, 0.2 * h), (3.5, 5.5), (2.2, 4), 2)
    lamina = bar(
        m, (edge + 3, s.arch + 4, -0.12 * h), (-1, s.arch - 4, -0.28 * h), (3.4, 9), (3.4, 9.5), 2.5, (0, 0.25, 1)
    )
    spinous = _spinous(p, s, -0.25 * h, (3.2, 8), (4.2, 9.5 if s.width < 48 else 7))
    arch = blend(pedicle, upper_facet, lower_facet, transverse, lamina, spinous, radius_mm=4)
    return carve(blend(body(p, s), arch, radius_mm=3), canal(p, s))


def thoracic(p: Points, s: VertebraSize) -> Any:
    """T1-T13: long sloping spinous process, club-ended transverse processes pointing backwards, flat coronal facets."""
    m, h, edge = _mirrored(p), s.height, s.canal_width / 2
    joint = h / 2 + s.disc
    pedicle = bar(m, (edge + 2, s.back + 4, 0.22 * h), (edge + 2.5, s.arch + 4, 0.2 * h), (2.8, 5), (3, 5.5), 2)
    top = joint + 3 if s.span < 72 else joint - 5  # T1 carries the oblique facet of C7
    upper_facet = bar(m, (edge + 1.5, s.arch + 4, 0), (edge + 1, s.arch + 2.5, top), (5, 2.8), (3.8, 2), 1.5, (0, 1, 0))
    lower_end = (edge - 0.5, s.arch - 3.5, -joint - 4)
    lower_facet = bar(m, (edge - 1.5, s.arch - 2.5, 0), lower_end, (6, 2.8), (3.8, 2.2), 1.8, (0, 1, 0))
    tip = (s.span / 2, s.arch - 3, 0.3 * h)
    transverse = blend(
        bar(m, (edge + 1, s.arch + 3, 0.1 * h), tip, (3.8, 5), (3.6, 4.5), 2),
        ellipsoid(m, (tip[0] - 4, tip[1] + 0.5, tip[2]), (5, 4.8, 6)),
    )
    lamina = bar(
        m, (edge + 2, s.arch + 3, -0.05 * h), (-1, s.arch - 4, -0.2 * h), (2.9, 7.5), (2.9, 8.5), 2, (0, 0.35, 1)
    )
    spinous = _spinous(p, s, -0.2 * h, (3, 6.5), (2.6, 3.5 if s.drop_deg > 20 else 7))
    arch = blend(pedicle, upper_facet, lower_facet, transverse, lamina, spinous, radius_mm=3)
    return carve(blend(body(p, s), arch, radius_mm=2), canal(p, s))


def _pillar(m: Points, s: VertebraSize, z: float, half_height: float) -> Any:
    """Cervical articular pillar: a block whose upper and lower faces, the facets, slope backwards by 40 degrees."""
    dx, dy = m[0] - (s.canal_width / 2 + 5), m[1] - (s.back - 5)
    facet = (np.abs(m[2] - z - 0.84 * dy) - half_height) * 0.766
    return rounded(np.abs(dx) - 4.2, np.abs(dy) - 5.2, facet + 1.3) - 1.3


def _cervical_arch(p: Points, m: Points, s: VertebraSize, forked: bool) -> Any:
    edge = s.canal_width / 2
    lamina = bar(
        m, (edge + 3.5, s.back - 8.5, -1.5), (-1, s.arch - 2.5, -2.5), (2.6, 5.2), (2.4, 5.8), 1.5, (0, 0.3, 1)
    )
    parts = [lamina, _spinous(p, s, -2.5, (2.6, 4.5), (2.8, 3.5))]
    if forked:
        drop = np.deg2rad(s.drop_deg)
        reach = s.spinous - s.canal_depth - 4
        y, z = s.arch - reach * float(np.cos(drop)), -2.5 - reach * float(np.sin(drop))
        parts.append(bar(m, (1.0, y + 2, z + 1), (5.0, y - 5, z - 2), (2.2, 2.6), (2, 2.4)))
    return blend(*parts)


def cervical(p: Points, s: VertebraSize) -> Any:
    """C3-C7: uncinate lips, oblique facets, transverse processes pierced by a foramen, forked spinous process."""
    m, edge, half = _mirrored(p), s.canal_width / 2, s.width / 2
    prominent = s.spinous > 40
    lips = bar(m, (half - 1.6, s.back + 2.5, s.height / 2), (half - 1.6, 4.5, s.height / 2), (1.8, 3), (1.8, 2.5))
    pedicle = bar(m, (half - 3, s.back + 3.5, 0), (edge + 5, s.back - 5, 0), (2.7, 3.5), (3, 3.5))
    front = bar(m, (half - 3, 1.5, -1), (edge + 9.5, 0, -2), (2.2, 2.4), (2.2, 2.8))
    rear = bar(
        m, (edge + 4, s.back - 2, -1), (s.span / 2, s.back + 1, -2), (2.6, 3.2), (2.6, 3 if not prominent else 4)
    )
    tip = bar(m, (edge + 8.5, 1, -2), (edge + 8.5, s.back, -2), (2, 2.4), (2, 2.4))
    arch = _cervical_arch(p, m, s, forked=not prominent)
    pillar = _pillar(m, s, -1.0, (s.height + s.disc - 2.4) / 2)
    bone = blend(blend(body(p, s), lips, pedicle, front), rear, tip, pillar, arch, radius_mm=1.5)
    return carve(bone, canal(p, s))


def axis(p: Points, s: VertebraSize) -> Any:
    """C2: the dens, sloping shoulders for C1, a broad forked spinous process."""
    m, edge, half_height = _mirrored(p), s.canal_width / 2, s.height / 2
    dens = blend(
        bar(p, (0, 1, 0), (0, 0.5, half_height + 14), (5.5, 5.5), (5, 5.2), 4, (0, 1, 0)),
        ellipsoid(p, (0, 0.3, half_height + 12), (5.6, 5.4, 6)),
    )
    shoulder = bar(m, (5, 0, half_height - 1), (22, -2, half_height - 7), (8, 5), (7, 4), 2)
    pedicle = bar(m, (7, s.back + 4, 0), (edge + 5, s.back - 5, -3), (3.5, 5), (3.2, 4.5), 2)
    transverse = bar(m, (edge + 3, s.back, -1), (s.span / 2, s.back + 1, -4), (3.2, 3.5), (2.4, 2.8))
    pillar = _pillar(m, s, -half_height + 1, (s.height + s.disc) / 4)
    arch = _cervical_arch(p, m, replace(s, drop_deg=25), forked=True)
    bone = blend(body(p, s), dens, shoulder, pedicle, transverse, pillar, arch)
    foramen = ellipse(m[0] - (edge + 8), m[1] - (s.back + 5), 2.6, 2.6)
    return carve(carve(bone, canal(p, s)), foramen)


def atlas(p: Points, s: VertebraSize) -> Any:
    """C1: a ring around the dens with two lateral masses and wide transverse processes, without a body."""
    m, z = _mirrored(p), p[2]
    ring = np.abs(ellipse(p[0], p[1] + 10.5, 19.5, 21.5))
    arch = rounded(ring - 1.6, np.abs(z) - 3.0, np.float32(-1e3)) - 1.5
    tubercle = ellipsoid(p, (0, 12, 0), (5, 3.2, 6))
    mass = bar(m, (17.5, -1, -8), (18, -1, 7.5), (7, 9), (6.5, 9), 3, (0, 1, 0))
    transverse = bar(m, (20, -3, 0), (s.span / 2, -5, -1), (6.5, 4.5), (4, 3.5), 2.5)
    foramen = ellipse(m[0] - 28, m[1] + 4, 2.7, 2.7)
    return carve(blend(arch, tubercle, mass, transverse), foramen)


def sacrum(p: Points, s: VertebraSize) -> Any:
    """S1-S5 fused: a wedge bent forwards with wings, four pairs of foramina, a canal and a median crest."""
    q = _unbent(p, 95.0)
    m, u, t = _mirrored(q), q[1], q[2]  # u towards the front, t = -z along the curved bone (mm below the S1 endplate)
    share = np.clip(t / 105, 0, 1)
    promontory = ellipse(q[0], u, (s.width / 2) * (1 - 0.72 * share), (s.depth / 2) * (1 - 0.62 * share), power=2.3)
    bodies = rounded(promontory + 1.5, np.abs(t - 51.5) - 50, np.float32(-1e3)) - 1.5
    half_width = np.interp(t, (0, 12, 30, 55, 80, 105), (41, 53, 52, 39, 24, 7)).astype(np.float32)
    half_thick = np.interp(t, (0, 20, 60, 105), (14, 14.5, 10.5, 5)).astype(np.float32)
    middle = np.interp(t, (0, 105), (-18.5, -9)).astype(np.float32) + 0.12 * m[0]
    top = 3 + 0.22 * m[0]
    wings = rounded(m[0] - half_width, np.abs(u - middle) - half_thick, np.maximum(top - t, t - 100))
    facet = bar(_mirrored(p), (20, s.back - 11, -22), (20, s.back - 14, 6), (6, 5), (5.5, 4), 2.5, (1, 1, 0))
    crest = bar((q[0], u, t), (0, -34, 14), (0, -16, 95), (3, 7), (3, 4), 2.5, (0, 1, 0))
    bone = blend(bodies, wings - 3.0, crest, facet, radius_mm=4)
    for down, out in ((27, 18.5), (47, 15.5), (65, 13), (82, 10.5)):
        bone = carve(bone, ellipse(m[0] - out, t - down, 4.5, 4.0))
    narrow = 1 - 0.7 * share
    tunnel = ellipse(q[0], u - (s.back - s.canal_depth / 2 + 1) * (1 - 0.45 * share), 13 * narrow, 6 * narrow)
    return carve(bone, np.maximum(tunnel, t - 88))


def _unbent(p: Points, radius_mm: float) -> Points:
    """Straighten an arc that starts at the origin downwards and turns to the front: (x, to the front, along it)."""
    x, y, z = p
    ahead = radius_mm - y
    turn = np.arctan2(-z, ahead)
    return x, radius_mm - np.hypot(ahead, z), radius_mm * turn


def shape(name: str, p: Points, s: VertebraSize) -> Any:
    """Signed distance (mm) of the bone called `name` (a key of SIZES) with dimensions `s`."""
    if name in ("C1", "C2", "sacrum"):
        return {"C1": atlas, "C2": axis, "sacrum": sacrum}[name](p, s)
    return {"C": cervical, "T": thoracic, "L": lumbar}[name[0]](p, s)
