"""How far to trust a named vertebra: its level, the shift of the whole chain, its mask, and reasons to look."""

import json
from functools import cache
from importlib.resources import files

import numpy as np

from vertebral.core.anatomy import Level
from vertebral.core.records import Instance
from vertebral.stages.identify.costs import Model
from vertebral.stages.identify.path import Path, cost_of
from vertebral.stages.identify.priors import RARE, VOLUMES_ML, shifted
from vertebral.stages.identify.states import Floats, States

SURE = 0.9
FAIR_QUALITY = 0.5
_SIZE_TOLERANCE = 0.4
_FULL_AGREEMENT = 0.7
# A vertebra's size is compared with so many to each side.
_NEAR = 3


@cache
def temperature() -> float:
    """By what the path's costs are divided before they are read as odds; fitted by tools/calibrate_levels.py."""
    return float(json.loads(files(__package__).joinpath("calibration.json").read_text(encoding="utf-8"))["temperature"])


def shift_probability(model: Model, path: Path, temperature: float) -> dict[int, float]:
    """Odds that all vertebrae are right, or all one level too far down (-1) or up (+1), as shares of the three.

    The key is what would have to be added to each level: 1 where L1 is in truth L2.
    """
    states = model.states
    costs = {}
    for by in (-1, 0, 1):
        moved = [None if state is None else _moved(states, state, by) for state in path]
        costs[by] = np.inf if -1 in moved else cost_of(model, tuple(moved), temperature)
    odds = {by: float(np.exp(costs[0] - cost)) for by, cost in costs.items()}
    return {by: share / sum(odds.values()) for by, share in odds.items()}


def _moved(states: States, state: int, by: int) -> int:
    """The state `by` levels further down, -1 where there is none."""
    ends = [shifted(states.levels[end], by) for end in (states.top[state], states.bottom[state])]
    if not set(ends) <= set(states.levels):
        return -1
    top, bottom = (states.levels.index(end) for end in ends if end is not None)
    same = np.flatnonzero((states.top == top) & (states.bottom == bottom))
    return int(same[0]) if same.size else -1


def qualities(
    items: list[Instance], levels: list[Level], volumes_ml: Floats, double: list[bool]
) -> tuple[list[float], list[float]]:
    """For each named instance its quality in [0, 1], and its volume beside what its level and its neighbours suggest.

    Quality is a product: how usual the size is (exp(-(ln ratio / 0.4)^2 / 2)), how far its voxels agree on one level
    (the largest share of the class evidence, 0.7 or more counting as 1), and one half where it is taken for two
    vertebrae in one. How sharp an occupancy is was left out: on validation scans it says nothing about the mask's Dice.
    """
    logs = np.log(np.maximum(volumes_ml, 1e-3) / [VOLUMES_ML[level.name] for level in levels])
    whole = np.array([level.is_vertebra and not item.touches_border for item, level in zip(items, levels, strict=True)])
    ratios, found = [], []
    for n, item in enumerate(items):
        near = [m for m in range(max(0, n - _NEAR), min(len(items), n + _NEAR + 1)) if m != n and whole[m]]
        ratio = float(np.exp(logs[n] - np.median(logs[near]))) if whole[n] and len(near) > 1 else 1.0
        total = item.class_mass[1:].sum()
        agreement = float(item.class_mass[1:].max() / total) if total > 0 else 0.0
        size = float(np.exp(-0.5 * (np.log(ratio) / _SIZE_TOLERANCE) ** 2))
        ratios.append(ratio)
        found.append(size * min(1.0, agreement / _FULL_AGREEMENT) * (0.5 if double[n] else 1.0))
    return found, ratios


def reasons(names: tuple[str, ...], probability: float, quality: float, ratio: float, other: str) -> tuple[str, ...]:
    """Why somebody should look at this vertebra, or two in one, of `names`; empty where nothing speaks for it."""
    found = []
    if probability < SURE:
        found.append(f"level uncertain ({probability:.2f}; next best {other})")
    if len(names) > 1:
        found.append(f"may hold two vertebrae ({' and '.join(names)})")
    found += [f"{name} is rare" for name in names if name in RARE]
    if quality < FAIR_QUALITY:
        odd = abs(np.log(ratio)) > _SIZE_TOLERANCE
        why = f"{100 * ratio:.0f} % of the usual volume" if odd else "its voxels speak for several levels"
        found.append(f"mask doubtful ({why})")
    return tuple(found)
