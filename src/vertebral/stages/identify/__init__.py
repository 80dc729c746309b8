"""From instances to levels: the cheapest path through instances and levels in anatomical order, and its confidence.

Levels increase strictly from head to tail, so none is used twice and none out of order. `costs` holds the cost of each
choice, `priors` what a spine usually looks like, `path` the recursion and `confidence` the probabilities.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from vertebral.core.anatomy import SPINE, Level
from vertebral.core.errors import ConfigError
from vertebral.core.records import Instances, Spine, Vertebra
from vertebral.stages.identify import confidence
from vertebral.stages.identify.costs import PathCosts, evidence_shares, path_costs, volumes_ml
from vertebral.stages.identify.path import StatePath, cheapest, marginals
from vertebral.stages.identify.priors import RARE, between, nameable
from vertebral.stages.identify.rules import IdentifyRules
from vertebral.stages.identify.states import Floats

__all__ = ["RARE", "IdentifyRules", "identify", "provisional_levels"]


def identify(
    instances: Instances,
    temperature: float | None = None,
    pins: Mapping[int, Level] | None = None,
    rules: IdentifyRules = IdentifyRules(),
) -> Spine:
    """Give each instance its level; `instances` are ordered from head to tail.

    An instance that fits no level in sequence is dropped with a warning. The confidence of a level is its posterior
    probability: costs divided by `temperature` (default: the calibrated one) are -ln of odds. A network with the single
    class "spine" leaves nothing to decide.

    `pins` maps the index of an instance to its known level. Raises ConfigError if a pinned level cannot be assigned, or
    if no path contains all of them.
    """
    if not instances.items:
        return Spine((), instances.grid, (*instances.warnings, "no vertebrae were found"))
    if instances.levels == (SPINE,):
        return Spine(tuple(Vertebra(SPINE, 1.0, item) for item in instances.items), instances.grid, instances.warnings)
    temperature = confidence.temperature() if temperature is None else temperature
    pins = pins or {}
    _check_pins(instances, pins)
    costs = path_costs(instances, pins, rules)
    best, second = cheapest(costs)
    assigned = _levels_on(costs, best)
    if broken := [level.name for n, level in pins.items() if assigned[n] != level]:
        raise ConfigError(
            f"{', '.join(broken)}: these manual levels cannot be ordered head to tail; change or remove them"
        )
    vertebrae = _vertebrae(instances, costs, best, marginals(costs, temperature), rules)
    names = tuple(level.name for level in _levels_on(costs, second) if level is not None)
    warnings = (*instances.warnings, *_warnings(instances, costs, best, rules))
    return Spine(vertebrae, instances.grid, warnings, confidence.shift_probability(costs, best, temperature), names)


def provisional_levels(instances: Instances, rules: IdentifyRules = IdentifyRules()) -> tuple[Level | None, ...]:
    """Return the level of each instance, ordered from head to tail, as far as it is known yet; None where it fits none.

    `refine` looks for missing vertebrae between these levels, before `identify` sees the complete spine.
    """
    level_of = {vertebra.instance: vertebra.level for vertebra in identify(instances, rules=rules).vertebrae}
    return tuple(level_of.get(item) for item in instances.items)


def _check_pins(instances: Instances, pins: Mapping[int, Level]) -> None:
    allowed = nameable(instances.levels)
    if unknown := [level.name for level in pins.values() if level not in allowed]:
        choices = ", ".join(level.name for level in allowed)
        raise ConfigError(f"{', '.join(unknown)}: not a level that can be set here; choose from {choices}")
    for (m, upper), (n, lower) in pairwise(sorted(pins.items())):
        if upper.rank >= lower.rank:
            raise ConfigError(
                f"manual level {upper.name} is above {lower.name} (vertebrae {m + 1} and {n + 1} from the head), but "
                "levels run from head to tail, each at most once; change or remove one of them"
            )


def _levels_on(costs: PathCosts, path: StatePath) -> list[Level | None]:
    """Return the level that a path gives to each instance."""
    return [None if state is None else costs.states.levels[costs.names[n, state]] for n, state in enumerate(path)]


def _vertebrae(
    instances: Instances, costs: PathCosts, path: StatePath, probabilities: Floats, rules: IdentifyRules
) -> tuple[Vertebra, ...]:
    kept = [(n, state) for n, state in enumerate(path) if state is not None]
    items = [instances.items[n] for n, _ in kept]
    levels = [level for level in _levels_on(costs, path) if level is not None]
    states = costs.states
    double = [bool(states.double[state]) for _, state in kept]
    volumes = volumes_ml(instances)[[n for n, _ in kept]]
    quality, ratios = confidence.qualities(items, levels, volumes, double, rules)
    named = []
    for index, (n, state) in enumerate(kept):
        level = costs.names[n, state]
        others = np.delete(probabilities[n], level)
        other = np.delete(np.arange(len(probabilities[n])), level)[int(others.argmax())]
        sure = float(np.clip(probabilities[n, level], 0.0, 1.0))
        ends = tuple({states.levels[end].name: None for end in (states.top[state], states.bottom[state])})
        why = confidence.reasons(ends, sure, quality[index], ratios[index], states.levels[other].name, rules)
        named.append(Vertebra(levels[index], sure, items[index], quality[index], why))
    return tuple(named)


def _warnings(instances: Instances, costs: PathCosts, path: StatePath, rules: IdentifyRules) -> list[str]:
    warnings = []
    assigned = _levels_on(costs, path)
    for item, level in zip(instances.items, assigned, strict=True):
        if level is None:
            where = ", ".join(f"{value:.0f}" for value in item.centroid_mm)
            warnings.append(f"the bone at {where} mm (RAS) did not fit the sequence of levels and was left out")
    kept = [level for level in assigned if level is not None]
    for upper, lower in pairwise(kept):
        if between(upper, lower):
            warnings.append(f"no vertebra was found between {upper.name} and {lower.name}")
    overruled = [
        level.name
        for level, share in zip(assigned, evidence_shares(instances, rules), strict=True)
        if level is not None and share[costs.states.levels.index(level)] < share.max()
    ]
    if overruled:
        names = ", ".join(overruled)
        warnings.append(
            f"named to fit the order of the spine, not by the network's first choice (check these): {names}"
        )
    return warnings
