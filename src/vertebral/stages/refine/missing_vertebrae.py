"""Vertebrae that the coarse network missed: in gaps along the spine and beyond its ends (thresholds: `RefineRules`).

If the levels of two neighbours are not consecutive, the coarse network has merged two vertebrae or missed one. The
refiner then looks at the expected positions of both and of those between them, interpolated by usual steps between
their outer neighbours. If all answers are distinct from each other and from the rest (Dice below `same_dice`), they
are taken. Otherwise the two stay, and the refiner looks between them only: an answer is new if it is distinct from all
others, has at least `new_min_size_ratio` of its smaller neighbour and at most `new_max_size_ratio` of its larger one.

The refiner also looks one step beyond either end, from the border if that is up to `max_outside_steps` outside the
scan. It goes on while the answer is new, within `max_aim_error_steps` of the expected position and further out than the
last one, with a mean coarse probability of the spine of `new_min_spine_probability`; never below the sacrum.
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
from vertebral.stages.refine.candidate import OWN, Candidate, Values, overlap_dice
from vertebral.stages.refine.predictor import Predictor
from vertebral.stages.refine.rules import RefineRules
from vertebral.stages.restore import box_on, occupancy_on


def find_missing(
    candidates: list[Candidate],
    levels: Sequence[Level | None],
    evidence: Evidence,
    predictor: Predictor,
    ends: bool = True,
) -> tuple[list[Candidate], list[Candidate]]:
    """Return `candidates`, none of them empty, some of them predicted anew, and what is new between and beyond them.

    `levels` are their provisional levels, None for a candidate that fits none. Fewer than `min_candidates` give no
    usual step, so nothing is looked for; without `ends` nothing beyond the ends.
    """
    if len(candidates) < predictor.rules.min_candidates:
        return candidates, []
    candidates, new = _between(candidates, levels, predictor)
    if not ends:
        return candidates, new
    spine: Values = find_bone(evidence).spine_probability.astype(np.float32) / np.float32(255)
    everything = [*zip(candidates, levels, strict=True), *((one, None) for one in new)]
    everything.sort(key=lambda entry: -float(_centre_mm(entry[0], predictor)[2]))
    ordered = [one for one, _ in everything]
    new += _beyond(ordered, predictor, spine, evidence.grid)
    lowest = everything[-1][1]
    if lowest is None or lowest.is_vertebra:
        new += _beyond(ordered[::-1], predictor, spine, evidence.grid)
    return candidates, new


def _centre_mm(candidate: Candidate, predictor: Predictor) -> NDArray[np.float64]:
    return predictor.grid.to_world(candidate.centroid())


def _between(
    candidates: list[Candidate], levels: Sequence[Level | None], predictor: Predictor
) -> tuple[list[Candidate], list[Candidate]]:
    """Return the candidates, some predicted anew, and new ones where the levels of two neighbours leave some out."""
    rules = predictor.rules
    candidates, new = list(candidates), list[Candidate]()
    known = [(n, level) for n, level in enumerate(levels) if level is not None]
    known.sort(key=lambda entry: -float(_centre_mm(candidates[entry[0]], predictor)[2]))
    for place, ((upper, first), (lower, last)) in enumerate(pairwise(known)):
        missing = between(first, last)
        if not missing:
            continue
        ends = [known[place - 1] if place else known[place], known[min(place + 2, len(known) - 1)]]
        rest = [one for n, one in enumerate(candidates) if n not in (upper, lower)] + new
        seen = _predictions((first, *missing, last), ends, candidates, predictor)
        if len(_distinct(seen, rest, rules)) == len(seen):
            candidates[upper], candidates[lower] = seen[0], seen[-1]
            new += seen[1:-1]
        else:
            neighbours = [candidates[upper], candidates[lower]]
            seen = _predictions(missing, [(upper, first), (lower, last)], candidates, predictor)
            new += [
                one for one in _distinct(seen, rest + neighbours, rules) if _has_plausible_size(one, neighbours, rules)
            ]
    return candidates, new


def _predictions(
    wanted: Sequence[Level], ends: list[tuple[int, Level]], candidates: list[Candidate], predictor: Predictor
) -> list[Candidate]:
    """Predict at the expected position of each of `wanted` between two `ends`, indices of `candidates` with levels."""
    (upper, first), (lower, last) = ends
    top_mm, bottom_mm = _centre_mm(candidates[upper], predictor), _centre_mm(candidates[lower], predictor)
    shares = [distance_mm(first, level) / distance_mm(first, last) if level != first else 0.0 for level in wanted]
    return [predictor.predict_at((top_mm * (1 - share) + bottom_mm * share).tolist()) for share in shares]


def _distinct(seen: list[Candidate], others: list[Candidate], rules: RefineRules) -> list[Candidate]:
    """Return those of `seen`, not empty, that share little with `others` and with those before them."""
    kept: list[Candidate] = []
    for one in seen:
        if one.own.any() and all(overlap_dice(one, other) < rules.same_dice for other in [*others, *kept]):
            kept.append(one)
    return kept


def _beyond(candidates: list[Candidate], predictor: Predictor, spine: Values, coarse: Grid) -> list[Candidate]:
    """Return what follows beyond the first of `candidates`; `spine` is the coarse probability of the spine."""
    rules = predictor.rules
    centres_mm = np.array([_centre_mm(one, predictor) for one in candidates])
    steps_mm = np.linalg.norm(np.diff(centres_mm[: rules.averaged_steps + 1], axis=0), axis=1)
    usual_mm = float(np.median(steps_mm))
    last_mm, before_mm, neighbour = centres_mm[0], centres_mm[1], candidates[0]
    new: list[Candidate] = []
    while True:
        aim_mm = last_mm + (last_mm - before_mm) * usual_mm / np.linalg.norm(last_mm - before_mm)
        # The centroid of a vertebra that the border cuts may be outside the scan.
        inside = np.clip(predictor.grid.to_voxel(aim_mm), 0, np.array(predictor.grid.shape) - 1)
        outside_mm = np.linalg.norm(predictor.grid.to_world(inside) - aim_mm)
        if outside_mm > rules.max_outside_steps * usual_mm:
            return new
        aim_mm = predictor.grid.to_world(inside)
        one = predictor.predict_at(aim_mm.tolist())
        if not _distinct([one], [*candidates, *new], rules) or not _has_plausible_size(one, [neighbour], rules):
            return new
        centre_mm = _centre_mm(one, predictor)
        far = np.linalg.norm(centre_mm - aim_mm) > rules.max_aim_error_steps * usual_mm
        back = (centre_mm[2] - last_mm[2]) * (centres_mm[0, 2] - centres_mm[-1, 2]) <= 0
        if far or back or _mean_on(spine, one, coarse, predictor.grid) < rules.new_min_spine_probability:
            return new
        new.append(one)
        before_mm, last_mm, neighbour = last_mm, centre_mm, one


def _has_plausible_size(candidate: Candidate, neighbours: list[Candidate], rules: RefineRules) -> bool:
    sizes = [np.count_nonzero(other.own) for other in neighbours]
    low, high = rules.new_min_size_ratio * min(sizes), rules.new_max_size_ratio * max(sizes)
    return bool(low <= np.count_nonzero(candidate.own) <= high)


def _mean_on(values: Values, candidate: Candidate, coarse: Grid, fine: Grid) -> float:
    """Return the mean of `values`, on the coarse grid, over a candidate on the fine one."""
    item = Instance(candidate.values, candidate.box, np.zeros(0), (0.0, 0.0, 0.0), touches_border=False)
    box = box_on(item, fine, coarse)
    inside = occupancy_on(item, fine, coarse, box) >= OWN
    return float(values[box][inside].mean()) if inside.any() else 0.0
