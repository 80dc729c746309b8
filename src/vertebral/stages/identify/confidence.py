"""How far to trust a named vertebra: its level, the shift of the whole spine, its mask, and reasons for a review."""

import json
from functools import cache
from importlib.resources import files

import numpy as np

from vertebral.core.anatomy import Level
from vertebral.core.records import Instance
from vertebral.stages.identify.costs import PathCosts
from vertebral.stages.identify.path import StatePath, cost_of
from vertebral.stages.identify.priors import RARE, VOLUMES_ML, shifted
from vertebral.stages.identify.rules import IdentifyRules
from vertebral.stages.identify.states import Floats, States


@cache
def temperature() -> float:
    """Return the divisor of path costs before they are read as odds; tools/calibrate_levels.py fits it."""
    return float(json.loads(files(__package__).joinpath("calibration.json").read_text(encoding="utf-8"))["temperature"])


def shift_probability(costs: PathCosts, path: StatePath, temperature: float) -> dict[int, float]:
    """Return the odds, as shares of 1, that all levels are right (0) or all are off by one (-1, +1).

    The key is what would have to be added to each level: +1 if L1 is in truth L2.
    """
    states = costs.states
    cost_by_shift = {}
    for by in (-1, 0, 1):
        moved = [None if state is None else _shifted_state(states, state, by) for state in path]
        cost_by_shift[by] = np.inf if -1 in moved else cost_of(costs, tuple(moved), temperature)
    odds = {by: float(np.exp(cost_by_shift[0] - cost)) for by, cost in cost_by_shift.items()}
    return {by: share / sum(odds.values()) for by, share in odds.items()}


def _shifted_state(states: States, state: int, by: int) -> int:
    """Return the state `by` levels further down, -1 if there is none."""
    ends = [shifted(states.levels[end], by) for end in (states.top[state], states.bottom[state])]
    if not set(ends) <= set(states.levels):
        return -1
    top, bottom = (states.levels.index(end) for end in ends if end is not None)
    same = np.flatnonzero((states.top == top) & (states.bottom == bottom))
    return int(same[0]) if same.size else -1


def qualities(
    items: list[Instance], levels: list[Level], volumes_ml: Floats, double: list[bool], rules: IdentifyRules
) -> tuple[list[float], list[float]]:
    """Return for each named instance its quality in [0, 1], and its volume over what level and neighbours suggest.

    Quality is a product: how usual the size is (exp(-(ln ratio / `size_tolerance`)^2 / 2)), how far its voxels agree on
    one level (the largest share of the class evidence, `full_agreement_share` or more counting as 1), and
    `double_quality_factor` if it is taken for two vertebrae in one. How sharp an occupancy is was left out: on
    validation scans it does not correlate with the mask's Dice.
    """
    logs = np.log(np.maximum(volumes_ml, 1e-3) / [VOLUMES_ML[level.name] for level in levels])
    whole = np.array([level.is_vertebra and not item.touches_border for item, level in zip(items, levels, strict=True)])
    reach = rules.neighbours_each_side
    ratios, found = [], []
    for n, item in enumerate(items):
        near = [m for m in range(max(0, n - reach), min(len(items), n + reach + 1)) if m != n and whole[m]]
        ratio = float(np.exp(logs[n] - np.median(logs[near]))) if whole[n] and len(near) > 1 else 1.0
        total = item.class_mass[1:].sum()
        agreement = float(item.class_mass[1:].max() / total) if total > 0 else 0.0
        size = float(np.exp(-0.5 * (np.log(ratio) / rules.size_tolerance) ** 2))
        ratios.append(ratio)
        factor = rules.double_quality_factor if double[n] else 1.0
        found.append(size * min(1.0, agreement / rules.full_agreement_share) * factor)
    return found, ratios


def reasons(
    names: tuple[str, ...], probability: float, quality: float, ratio: float, other: str, rules: IdentifyRules
) -> tuple[str, ...]:
    """Return why a vertebra, or two in one, of `names` needs review; empty if nothing suggests it."""
    found = []
    if probability < rules.sure_probability:
        found.append(f"level uncertain ({probability:.2f}; next best {other})")
    if len(names) > 1:
        found.append(f"may contain two vertebrae ({' and '.join(names)})")
    found += [f"{name} is a rare variant" for name in names if name in RARE]
    if quality < rules.fair_quality:
        odd = abs(np.log(ratio)) > rules.size_tolerance
        why = f"{100 * ratio:.0f} % of the usual volume" if odd else "the network gave its voxels different levels"
        found.append(f"mask questionable ({why})")
    return tuple(found)
