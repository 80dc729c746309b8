"""How far to trust a named vertebra: its level, the shift of the whole chain, its mask, and reasons to look."""

import json
from functools import cache
from importlib.resources import files

import numpy as np

from vertebral.anatomy import Level
from vertebral.identify.costs import Model
from vertebral.identify.path import Path, cost_of
from vertebral.identify.priors import RARE, VOLUMES_ML, shifted
from vertebral.identify.states import Floats, States
from vertebral.records import Instance

SURE = 0.9
FAIR_QUALITY = 0.5
# A second level with this share of what the first has may be a second vertebra.
_TWO_IN_ONE = 0.6
_SIZE_TOLERANCE = 0.5


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


def qualities(items: list[Instance], levels: list[Level], volumes_ml: Floats) -> tuple[list[float], list[float]]:
    """For each named instance its quality in [0, 1] and its volume beside the usual one for its level in this patient.

    Quality is the product of two: how sharp the mask is (mean of |2 occupancy - 1| over its voxels, 0.5 or less counts
    as 0 and 0.9 or more as 1) and how usual its size is (exp(-(ln ratio / 0.5)^2 / 2); 1 for what touches the border,
    for the sacrum and where fewer than three vertebrae are whole).
    """
    usual = np.array([VOLUMES_ML.get(level.name, np.nan) for level in levels])
    logs = np.log(np.maximum(volumes_ml, 1e-3) / usual)
    whole = np.array([level.is_vertebra and not item.touches_border for item, level in zip(items, levels, strict=True)])
    ratios = np.ones(len(items))
    if np.count_nonzero(whole) >= 3:
        ratios[whole] = np.exp(logs[whole] - np.median(logs[whole]))
    sharp = [_sharpness(item) for item in items]
    plausible = np.exp(-0.5 * (np.log(ratios) / _SIZE_TOLERANCE) ** 2)
    return [float(value) for value in sharp * plausible], [float(value) for value in ratios]


def _sharpness(item: Instance) -> float:
    own = item.occupancy[item.occupancy >= 0.5]
    margin = float(np.abs(2 * own - 1).mean()) if own.size else 0.0
    return float(np.clip((margin - 0.5) / 0.4, 0.0, 1.0))


def reasons(names: tuple[str, ...], probability: float, quality: float, ratio: float, other: str) -> tuple[str, ...]:
    """Why somebody should look at this vertebra, or two in one, of `names`; empty where nothing speaks for it."""
    found = []
    if probability < SURE:
        found.append(f"level uncertain ({probability:.2f}; next best {other})")
    if len(names) > 1:
        found.append(f"may hold two vertebrae ({' and '.join(names)})")
    found += [f"{name} is rare" for name in names if name in RARE]
    if quality < FAIR_QUALITY:
        size = f"{100 * ratio:.0f} % of the usual volume" if abs(np.log(ratio)) > _SIZE_TOLERANCE else "blurred"
        found.append(f"mask doubtful ({size})")
    return tuple(found)
