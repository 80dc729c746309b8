"""Vertebrae that the coarse network missed: in gaps along the spine and beyond its ends.

Where the levels of two neighbours are not in a row, the coarse network has taken two vertebrae for one, or none. The
network looks where the two and those between them should lie, as usual steps along the spine between their own
neighbours say. Where all answers are apart from each other and from the rest (Dice below `SAME_DICE`), they stand; else
the two stay, and it looks between them alone: an answer that is apart from all others, holds `NEW_SHARE` of its smaller
neighbour and no more than `NEW_MOST` of its larger one is new. It looks a step beyond either end as well (up to
`MOST_OUTSIDE` steps outside of the scan it looks from the border), and goes on while what it finds there is new, lies
where it was looked for (within `NEAR_AIM` steps), further out than the last one, and has `NEW_EVIDENCE` of coarse
evidence for a spine; never below the sacrum.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import Level
from vertebral.core.records import Evidence, Instance
from vertebral.core.volume import Grid
from vertebral.stages.identify.priors import between, distance_mm
from vertebral.stages.instances.bone import find_bone
from vertebral.stages.refine.candidate import OWN, SAME_DICE, Part, Values, dice
from vertebral.stages.refine.predictor import Eye
from vertebral.stages.restore import box_on, occupancy_on

NEW_SHARE = 0.4
NEW_EVIDENCE = 0.2
NEAR_AIM = 0.75
MOST_OUTSIDE = 0.25
NEW_MOST = 2.0


def find_missed(
    parts: list[Part], levels: list[Level | None], evidence: Evidence, eye: Eye, ends: bool = True
) -> tuple[list[Part], list[Part]]:
    """Return `parts`, none of them empty, some of them seen anew, and what lies between and beyond them.

    `levels` are theirs, as far as they are known yet; None for a part that fits none. With fewer than three parts,
    whose steps say what is usual, nothing is looked for; without `ends` nothing beyond the ends.
    """
    if len(parts) < 3:
        return parts, []
    parts, new = _between(parts, levels, eye)
    if not ends:
        return parts, new
    spine: Values = find_bone(evidence).spine_probability.astype(np.float32) / np.float32(255)
    everything = [*zip(parts, levels, strict=True), *((part, None) for part in new)]
    everything.sort(key=lambda entry: -float(_centre_mm(entry[0], eye)[2]))
    ordered = [part for part, _ in everything]
    new += _beyond(ordered, eye, spine, evidence.grid)
    lowest = everything[-1][1]
    if lowest is None or lowest.is_vertebra:
        new += _beyond(ordered[::-1], eye, spine, evidence.grid)
    return parts, new


def _centre_mm(part: Part, eye: Eye) -> NDArray[np.float64]:
    return eye.grid.to_world(part.centroid())


def _between(parts: list[Part], levels: list[Level | None], eye: Eye) -> tuple[list[Part], list[Part]]:
    """The parts, some of them seen anew, and what lies where the levels of two neighbours leave some out."""
    parts, new = list(parts), list[Part]()
    known = [(n, level) for n, level in enumerate(levels) if level is not None]
    known.sort(key=lambda entry: -float(_centre_mm(parts[entry[0]], eye)[2]))
    for place, ((upper, first), (lower, last)) in enumerate(pairwise(known)):
        missing = between(first, last)
        if not missing:
            continue
        ends = [known[place - 1] if place else known[place], known[min(place + 2, len(known) - 1)]]
        rest = [part for n, part in enumerate(parts) if n not in (upper, lower)] + new
        seen = _looks((first, *missing, last), ends, parts, eye)
        if len(_apart(seen, rest)) == len(seen):
            parts[upper], parts[lower] = seen[0], seen[-1]
            new += seen[1:-1]
        else:
            neighbours = [parts[upper], parts[lower]]
            seen = _looks(missing, [(upper, first), (lower, last)], parts, eye)
            new += [part for part in _apart(seen, rest + neighbours) if _has_a_size(part, neighbours)]
    return parts, new


def _looks(wanted: Sequence[Level], ends: list[tuple[int, Level]], parts: list[Part], eye: Eye) -> list[Part]:
    """What the network sees where `wanted` should lie between the two `ends`, indices of `parts` with their levels."""
    (upper, first), (lower, last) = ends
    top_mm, bottom_mm = _centre_mm(parts[upper], eye), _centre_mm(parts[lower], eye)
    shares = [distance_mm(first, level) / distance_mm(first, last) if level != first else 0.0 for level in wanted]
    return [eye.look_at((top_mm * (1 - share) + bottom_mm * share).tolist()) for share in shares]


def _apart(seen: list[Part], others: list[Part]) -> list[Part]:
    """Those of `seen`, not empty, that share little with `others` and with those before them."""
    kept: list[Part] = []
    for part in seen:
        if part.own.any() and all(dice(part, other) < SAME_DICE for other in [*others, *kept]):
            kept.append(part)
    return kept


def _beyond(parts: list[Part], eye: Eye, spine: Values, coarse: Grid) -> list[Part]:
    """What follows beyond the first of `parts`; `spine` is the coarse probability of one."""
    centres_mm = np.array([_centre_mm(part, eye) for part in parts])
    usual_mm = float(np.median(np.linalg.norm(np.diff(centres_mm[:4], axis=0), axis=1)))
    last_mm, before_mm, neighbour = centres_mm[0], centres_mm[1], parts[0]
    new: list[Part] = []
    while True:
        aim_mm = last_mm + (last_mm - before_mm) * usual_mm / np.linalg.norm(last_mm - before_mm)
        # The middle of a vertebra that the border cuts may lie beyond it.
        inside = np.clip(eye.grid.to_voxel(aim_mm), 0, np.array(eye.grid.shape) - 1)
        outside_mm = np.linalg.norm(eye.grid.to_world(inside) - aim_mm)
        if outside_mm > MOST_OUTSIDE * usual_mm:
            return new
        aim_mm = eye.grid.to_world(inside)
        part = eye.look_at(aim_mm.tolist())
        if not _apart([part], [*parts, *new]) or not _has_a_size(part, [neighbour]):
            return new
        centre_mm = _centre_mm(part, eye)
        far = np.linalg.norm(centre_mm - aim_mm) > NEAR_AIM * usual_mm
        back = (centre_mm[2] - last_mm[2]) * (centres_mm[0, 2] - centres_mm[-1, 2]) <= 0
        if far or back or _mean_on(spine, part, coarse, eye.grid) < NEW_EVIDENCE:
            return new
        new.append(part)
        before_mm, last_mm, neighbour = last_mm, centre_mm, part


def _has_a_size(part: Part, neighbours: list[Part]) -> bool:
    sizes = [np.count_nonzero(other.own) for other in neighbours]
    return bool(NEW_SHARE * min(sizes) <= np.count_nonzero(part.own) <= NEW_MOST * max(sizes))


def _mean_on(values: Values, part: Part, coarse: Grid, fine: Grid) -> float:
    """The mean of `values`, on the coarse grid, over a part of the fine one."""
    item = Instance(part.values, part.box, np.zeros(0), (0.0, 0.0, 0.0), touches_border=False)
    box = box_on(item, fine, coarse)
    inside = occupancy_on(item, fine, coarse, box) >= OWN
    return float(values[box][inside].mean()) if inside.any() else 0.0
