"""The start and end of each vertebral body along the column, whatever its labels (costs: `LabelMapRules`).

The column is divided into bodies and gaps in the cheapest way, by dynamic programming. A body pays for

- a height (squared base-2 logarithm) other than that of its level times one scale for the whole scan: `tall_cost` if it
  is too high, since no disease makes a body higher, but `outermost_tall_cost` at the ends, where the column may
  continue into posterior elements; `cut_cost` if the end of the column may cut it; `short_cost` if it is too low, plus
  `crowded_short_cost` for each neighbour that touches it, because a low body between two discs is a fractured vertebra,
  not a fragment of one;
- disc inside it, `empty_cost_per_mm`: positions on the column where less than half is bone;
- bone without its most common label, `mixed_cost` per usual height;
- being there, `body_cost`, so that there are no more bodies than needed.

Bone in a gap pays `gap_cost_per_mm`. Two bodies without a gap between them pay `touch_cost`, or `fused_cost` if they
have the same label, or only `ordered_cost` if each has a single label (except for `max_mixed_share`) and these are in
anatomical order. So a disc separates neighbours whatever their labels; where no disc is visible, labels do; and two
labels within the height of one body are one vertebra. At either end of the column, a label of its own beyond a body of
`full_height_share` of its neighbour's height is one more vertebra, cut by the field of view.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import Level
from vertebral.stages.instances.column import STEP_MM
from vertebral.stages.instances.rules import LabelMapRules

# Medians over the 31 training label maps (adults; 4 to 27 maps per level, 3 for L6), along the column as found here, in
# whole mm. T13 is set between its neighbours; C1, which the column does not cross, is a guess.
HEIGHT_MM = {
    "C1": 12, "C2": 35, "C3": 16, "C4": 15, "C5": 15, "C6": 15, "C7": 16,
    "T1": 19, "T2": 20, "T3": 19, "T4": 20, "T5": 21, "T6": 21, "T7": 21, "T8": 23, "T9": 23, "T10": 25, "T11": 27,
    "T12": 27, "T13": 28, "L1": 29, "L2": 32, "L3": 32, "L4": 35, "L5": 38, "L6": 39,
}  # fmt: skip


@dataclass(frozen=True)
class BodySegment:
    """Positions `start` to `stop` (half open) of the column; `best` is the most common class there."""

    start: int
    stop: int
    best: int


@dataclass(frozen=True, eq=False)
class ColumnProfile:
    """Along the column: `bone` (S,), the share of each disc that is bone, `classes` (S, C), that of each class.

    `usual_mm` (S,) is the usual height of a body of the level around there, at scale 1.
    """

    bone: NDArray[np.float64]
    classes: NDArray[np.float64]
    usual_mm: NDArray[np.float64]


def column_profile(
    found: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    radius_mm: NDArray[np.float64],
    levels: tuple[Level, ...],
    rules: LabelMapRules,
) -> ColumnProfile:
    """Return the profile for the class `found` (S, P) at each point of the column's discs, 0 for none.

    `inside` (S, P) is True for points inside the grid, `radius_mm` (S,) is the discs' radius.
    """
    counts = np.stack([((found == n) & inside).sum(1) for n in range(len(levels) + 1)], axis=1)
    shares = counts[:, 1:] / np.maximum(1, inside.sum(1))[:, None]
    bone = shares.sum(1)
    heights = np.array([HEIGHT_MM.get(level.name, 0) for level in levels], np.float64)
    usual = np.where(bone > 0, heights[shares.argmax(1)], 0)
    usual = np.where(usual > 0, usual, np.where(bone > 0, rules.height_in_radii * radius_mm, 0))
    return ColumnProfile(bone, shares, _smoothed(usual, rules))


def _smoothed(usual_mm: NDArray[np.float64], rules: LabelMapRules) -> NDArray[np.float64]:
    """Return the running median, which a few wrong labels do not change; positions without bone do not count."""
    known = np.flatnonzero(usual_mm > 0)
    if len(known) == 0:
        return np.full(len(usual_mm), float(HEIGHT_MM["T6"]))
    width = min(len(known), int(rules.height_smoothing_mm / STEP_MM)) // 2 * 2 + 1
    # C2 is alone at one end and twice as high as its neighbours: no median finds it.
    is_c2 = usual_mm[known] == HEIGHT_MM["C2"]
    median = ndimage.median_filter(np.where(is_c2, HEIGHT_MM["C3"], usual_mm[known]), width, mode="nearest")
    median = np.where(is_c2 & (median < HEIGHT_MM["T1"]), HEIGHT_MM["C2"], median)
    return np.interp(np.arange(len(usual_mm)), known, median)


def find_bodies(profile: ColumnProfile, rules: LabelMapRules) -> list[BodySegment]:
    """Return the bodies from head to tail, at the patient's scale that makes them cheapest."""
    found = [_cheapest(profile, scale, rules) for scale in rules.scales]
    costs = [
        cost + rules.scale_cost * abs(np.log2(scale)) for (cost, _), scale in zip(found, rules.scales, strict=True)
    ]
    bodies = _with_cut_end(profile, found[int(np.argmin(costs))][1], rules)
    upside_down = ColumnProfile(profile.bone[::-1], profile.classes[::-1], profile.usual_mm[::-1])
    positions = len(profile.bone)
    return _reversed(_with_cut_end(upside_down, _reversed(bodies, positions), rules), positions)


def _reversed(bodies: list[BodySegment], positions: int) -> list[BodySegment]:
    return [BodySegment(positions - body.stop, positions - body.start, body.best) for body in bodies[::-1]]


def _with_cut_end(profile: ColumnProfile, bodies: list[BodySegment], rules: LabelMapRules) -> list[BodySegment]:
    """Separate one more body cut by the upper end of the column: a label of its own beyond a body of full height."""
    if len(bodies) < 2:
        return bodies
    first, second = bodies[:2]
    labels = profile.classes[first.start : first.stop].argmax(1) + 1
    changes = np.flatnonzero(labels != labels[0])
    own = int(changes[0]) if len(changes) else 0
    full = rules.full_height_share * (second.stop - second.start)
    if own == 0 or labels[0] in {body.best for body in bodies} or first.stop - first.start - own < full:
        return bodies
    edge = first.start + own
    return [BodySegment(first.start, edge, int(labels[0])), BodySegment(edge, first.stop, first.best), *bodies[1:]]


def _cheapest(profile: ColumnProfile, scale: float, rules: LabelMapRules) -> tuple[float, list[BodySegment]]:
    positions = len(profile.bone)
    usual = profile.usual_mm * scale / STEP_MM
    empty = np.concatenate([[0.0], np.cumsum(np.maximum(0, 1 - 2 * profile.bone))]) * STEP_MM * rules.empty_cost_per_mm
    bone = np.concatenate([[0.0], np.cumsum(profile.bone)])
    classes = np.concatenate([np.zeros((1, profile.classes.shape[1])), np.cumsum(profile.classes, axis=0)])
    gap_cost = profile.bone * STEP_MM * rules.gap_cost_per_mm
    after_gap, after_body = np.full(positions + 1, np.inf), np.full(positions + 1, np.inf)
    gap_from_body = np.zeros(positions + 1, bool)
    # An invisible gap costs as much as touching: within 3 mm of a body's end, less than half must be bone somewhere.
    sill = rules.touch_cost * np.maximum(0, 2 * profile.bone - 1)
    leave = np.append(ndimage.minimum_filter1d(sill, 3, origin=-1), 0.0)
    enter = np.append(0.0, ndimage.minimum_filter1d(sill, 3, origin=1))
    shortness, pure = np.zeros(positions + 1), np.zeros(positions + 1, bool)
    start, best, touches = (np.zeros(positions + 1, int) for _ in range(3))
    after_gap[0] = 0
    for b in range(1, positions + 1):
        left = after_body[b - 1] + leave[b - 1]
        gap_from_body[b] = left < after_gap[b - 1]
        after_gap[b] = min(after_gap[b - 1], left) + gap_cost[b - 1]
        first = max(0, b - int(rules.max_body_heights * usual[b - 1]))
        a = np.arange(first, b - int(rules.min_body_mm / STEP_MM) + 1)
        if len(a) == 0:
            continue
        per_class = classes[b] - classes[a]
        label = per_class.argmax(1)
        mixed = bone[b] - bone[a] - per_class.max(1)
        expected = usual[np.minimum((a + b) // 2, positions - 1)]
        height = np.log2((b - a) / expected)
        cut = ((a == 0) | (b == positions)) & (height < 0)
        short = np.where(cut, 0, rules.crowded_short_cost * np.minimum(height, 0) ** 2)
        own = rules.body_cost + empty[b] - empty[a] + rules.mixed_cost * mixed / expected
        least = rules.min_body_mm / STEP_MM
        outermost = (bone[a] < least) | (bone[-1] - bone[b] < least)
        tall = np.where(outermost, rules.outermost_tall_cost, rules.tall_cost)
        own += np.where(cut, rules.cut_cost, np.where(height < 0, rules.short_cost, tall)) * height**2
        is_pure = mixed < rules.max_mixed_share * (b - a)
        ordered = is_pure & pure[a] & (label > best[a])
        meet = np.where(label == best[a], rules.fused_cost, np.where(ordered, rules.ordered_cost, rules.touch_cost))
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
) -> tuple[float, list[BodySegment]]:
    b = len(after_gap) - 1
    in_body = after_body[b] < after_gap[b]
    cost = float(min(after_body[b], after_gap[b]))
    bodies = []
    while b > 0:
        if in_body:
            bodies.append(BodySegment(int(start[b]), b, int(best[b]) + 1))
            b, in_body = int(start[b]), bool(touches[b])
        else:
            b, in_body = b - 1, bool(gap_from_body[b])
    return cost, bodies[::-1]
