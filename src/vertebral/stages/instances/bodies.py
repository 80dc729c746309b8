"""Where along the column of vertebral bodies each body begins and ends, whatever its labels.

Of all ways to cut the column into bodies and gaps the cheapest, by dynamic programming. A body pays for

- a height (base-2 logarithm, squared) other than that of its level, times one scale for the whole scan: `TALL_SHARE`
  times that if it is too high, since no disease makes a body higher, but for the outermost, where the column may run on
  into the arch; less where the end of the column may cut it. One that is too low pays `SHORT_SHARE` of that, and
  `CROWDED_SHORT_SHARE` of it for each neighbour that touches it: between two discs it is a fractured vertebra, not a
  part of one;
- `EMPTY_COST_PER_MM` for each mm of disc inside it: places on the column where less than half is bone;
- `MIXED_COST` times the share of its bone that does not carry its commonest label, in usual heights;
- `BODY_COST`, that there be no more of them than needed.

Bone left in a gap pays `GAP_COST_PER_MM`. Two bodies without a gap between them pay `TOUCH_COST`, `FUSED_COST` where
they carry one label, and only `ORDERED_COST` where each carries one label alone (but for `PURE_SHARE` of it) and these
follow each other as levels do. So a disc tells neighbours apart whatever their labels; where no disc can be seen, the
labels do; and two labels in what is as high as one body are one vertebra. At either end of the column, a label that no
body carries beyond a body of `FULL_SHARE` of its neighbour's height is what the field of view left of one more.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import Level
from vertebral.stages.instances.column import STEP_MM

EMPTY_COST_PER_MM = 0.25
MIXED_COST = 1.0
BODY_COST = 0.2
GAP_COST_PER_MM = 0.12
TOUCH_COST = 0.3
ORDERED_COST = 0.05
PURE_SHARE = 0.1
FUSED_COST = 2.0
CUT_SHARE = 0.15
SHORT_SHARE, CROWDED_SHORT_SHARE, TALL_SHARE = 0.25, 0.375, 3.0
FULL_SHARE = 0.9
SCALES = (0.65, 0.8, 1.0, 1.2)
SCALE_COST = 0.5
_LEAST_MM, _MOST_SHARE = 4.0, 2.6
_SMOOTH_MM = 60.0

# Medians over the 31 training label maps (adults; 4 to 27 maps a level, L6 in 3), along the column as found here, in
# whole mm. T13 lies between its neighbours; C1, which the column passes by, is a guess.
HEIGHT_MM = {
    "C1": 12, "C2": 35, "C3": 16, "C4": 15, "C5": 15, "C6": 15, "C7": 16,
    "T1": 19, "T2": 20, "T3": 19, "T4": 20, "T5": 21, "T6": 21, "T7": 21, "T8": 23, "T9": 23, "T10": 25, "T11": 27,
    "T12": 27, "T13": 28, "L1": 29, "L2": 32, "L3": 32, "L4": 35, "L5": 38, "L6": 39,
}  # fmt: skip
# A map that tells no levels apart: the height of a body in radii of the column.
_HEIGHT_IN_RADII = 3.0


@dataclass(frozen=True)
class Body:
    """Places `start` to `stop` (half open) of the column; `best` is the commonest class there."""

    start: int
    stop: int
    best: int


@dataclass(frozen=True)
class Profile:
    """Along the column: `bone` (S,), the share of each disc that is bone, `classes` (S, C), that of each class.

    `usual_mm` (S,) is the height of a body of the level thereabouts, at scale 1.
    """

    bone: NDArray[np.float64]
    classes: NDArray[np.float64]
    usual_mm: NDArray[np.float64]


def profile_of(
    found: NDArray[np.uint8], inside: NDArray[np.bool_], radius_mm: NDArray[np.float64], levels: tuple[Level, ...]
) -> Profile:
    """`found` (S, P) is the class at each point of the column's discs, 0 for none; `inside` (S, P) the grid."""
    counts = np.stack([((found == n) & inside).sum(1) for n in range(len(levels) + 1)], axis=1)
    shares = counts[:, 1:] / np.maximum(1, inside.sum(1))[:, None]
    bone = shares.sum(1)
    known = np.array([HEIGHT_MM.get(level.name, 0) for level in levels], np.float64)
    usual = np.where(bone > 0, known[shares.argmax(1)], 0)
    usual = np.where(usual > 0, usual, np.where(bone > 0, _HEIGHT_IN_RADII * radius_mm, 0))
    return Profile(bone, shares, _smoothed(usual))


def _smoothed(usual_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle value of what lies around, which a few wrong labels do not change; places without bone say nothing."""
    says = np.flatnonzero(usual_mm > 0)
    if len(says) == 0:
        return np.full(len(usual_mm), float(HEIGHT_MM["T6"]))
    width = min(len(says), int(_SMOOTH_MM / STEP_MM)) // 2 * 2 + 1
    # C2 stands alone at one end, twice as high as its neighbours: no middle value finds it.
    is_c2 = usual_mm[says] == HEIGHT_MM["C2"]
    middle = ndimage.median_filter(np.where(is_c2, HEIGHT_MM["C3"], usual_mm[says]), width, mode="nearest")
    middle = np.where(is_c2 & (middle < HEIGHT_MM["T1"]), HEIGHT_MM["C2"], middle)
    return np.interp(np.arange(len(usual_mm)), says, middle)


def find_bodies(profile: Profile) -> list[Body]:
    """The bodies from head to tail, at the scale of the patient that makes them cheapest."""
    found = [_cheapest(profile, scale) for scale in SCALES]
    costs = [cost + SCALE_COST * abs(np.log2(scale)) for (cost, _), scale in zip(found, SCALES, strict=True)]
    bodies = _with_end(profile, found[int(np.argmin(costs))][1])
    turned = [Body(-body.stop, -body.start, body.best) for body in bodies[::-1]]
    back = Profile(profile.bone[::-1], profile.classes[::-1], profile.usual_mm[::-1])
    places = len(profile.bone)
    turned = [Body(body.start + places, body.stop + places, body.best) for body in turned]
    return [Body(places - body.stop, places - body.start, body.best) for body in _with_end(back, turned)[::-1]]


def _with_end(profile: Profile, bodies: list[Body]) -> list[Body]:
    """Set apart what the end of the column leaves of one more body: a label of its own beyond a body of full height."""
    if len(bodies) < 2:
        return bodies
    first, second = bodies[:2]
    labels = profile.classes[first.start : first.stop].argmax(1) + 1
    apart = np.flatnonzero(labels != labels[0])
    own = int(apart[0]) if len(apart) else 0
    full = FULL_SHARE * (second.stop - second.start)
    if own == 0 or labels[0] in {body.best for body in bodies} or first.stop - first.start - own < full:
        return bodies
    edge = first.start + own
    return [Body(first.start, edge, int(labels[0])), Body(edge, first.stop, first.best), *bodies[1:]]


def _cheapest(profile: Profile, scale: float) -> tuple[float, list[Body]]:
    places = len(profile.bone)
    usual = profile.usual_mm * scale / STEP_MM
    empty = np.concatenate([[0.0], np.cumsum(np.maximum(0, 1 - 2 * profile.bone))]) * STEP_MM * EMPTY_COST_PER_MM
    bone = np.concatenate([[0.0], np.cumsum(profile.bone)])
    classes = np.concatenate([np.zeros((1, profile.classes.shape[1])), np.cumsum(profile.classes, axis=0)])
    gap_cost = profile.bone * STEP_MM * GAP_COST_PER_MM
    after_gap, after_body = np.full(places + 1, np.inf), np.full(places + 1, np.inf)
    gap_from_body = np.zeros(places + 1, bool)
    # A gap that is none costs as much as touching: the least bone within 3 mm of a body's end must be less than half.
    sill = TOUCH_COST * np.maximum(0, 2 * profile.bone - 1)
    leave = np.append(ndimage.minimum_filter1d(sill, 3, origin=-1), 0.0)
    enter = np.append(0.0, ndimage.minimum_filter1d(sill, 3, origin=1))
    shortness, pure = np.zeros(places + 1), np.zeros(places + 1, bool)
    start, best, touches = (np.zeros(places + 1, int) for _ in range(3))
    after_gap[0] = 0
    for b in range(1, places + 1):
        left = after_body[b - 1] + leave[b - 1]
        gap_from_body[b] = left < after_gap[b - 1]
        after_gap[b] = min(after_gap[b - 1], left) + gap_cost[b - 1]
        first = max(0, b - int(_MOST_SHARE * usual[b - 1]))
        a = np.arange(first, b - int(_LEAST_MM / STEP_MM) + 1)
        if len(a) == 0:
            continue
        per_class = classes[b] - classes[a]
        label = per_class.argmax(1)
        mixed = bone[b] - bone[a] - per_class.max(1)
        expected = usual[np.minimum((a + b) // 2, places - 1)]
        height = np.log2((b - a) / expected)
        cut = ((a == 0) | (b == places)) & (height < 0)
        short = np.where(cut, 0, CROWDED_SHORT_SHARE * np.minimum(height, 0) ** 2)
        own = BODY_COST + empty[b] - empty[a] + MIXED_COST * mixed / expected
        outermost = (bone[a] < _LEAST_MM / STEP_MM) | (bone[-1] - bone[b] < _LEAST_MM / STEP_MM)
        tall = np.where(outermost, 1.0, TALL_SHARE)
        own += np.where(cut, CUT_SHARE, np.where(height < 0, SHORT_SHARE, tall)) * height**2
        is_pure = mixed < PURE_SHARE * (b - a)
        ordered = is_pure & pure[a] & (label > best[a])
        meet = np.where(label == best[a], FUSED_COST, np.where(ordered, ORDERED_COST, TOUCH_COST))
        touching = after_body[a] + shortness[a] + short + meet
        apart = after_gap[a] + enter[a]
        total = np.minimum(apart, touching) + own
        n = int(total.argmin())
        after_body[b], start[b], best[b], touches[b] = total[n], a[n], label[n], touching[n] < apart[n]
        shortness[b], pure[b] = short[n], is_pure[n]
    return _traced(after_gap, after_body, gap_from_body, start, best, touches)


def _traced(
    after_gap: NDArray[np.float64],
    after_body: NDArray[np.float64],
    gap_from_body: NDArray[np.bool_],
    start: NDArray[np.int_],
    best: NDArray[np.int_],
    touches: NDArray[np.int_],
) -> tuple[float, list[Body]]:
    b = len(after_gap) - 1
    in_body = after_body[b] < after_gap[b]
    cost = float(min(after_body[b], after_gap[b]))
    bodies = []
    while b > 0:
        if in_body:
            bodies.append(Body(int(start[b]), b, int(best[b]) + 1))
            b, in_body = int(start[b]), bool(touches[b])
        else:
            b, in_body = b - 1, bool(gap_from_body[b])
    return cost, bodies[::-1]
