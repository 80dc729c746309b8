"""From instances to levels: the cheapest order-keeping path of instances x levels, and how sure it is.

Levels rise strictly from head to tail, so no level is used twice and none changes places. What a path costs is in
`costs`, what a spine usually looks like in `priors`, the recursion in `path`, and what is made of it in `confidence`.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from vertebral.core.anatomy import SPINE, Level
from vertebral.core.errors import ConfigError
from vertebral.core.records import Instances, Spine, Vertebra
from vertebral.stages.identify import confidence
from vertebral.stages.identify.costs import Model, build, evidence_shares, volumes_ml
from vertebral.stages.identify.path import Path, cheapest, marginals
from vertebral.stages.identify.priors import RARE, between, nameable
from vertebral.stages.identify.states import Floats

__all__ = ["RARE", "identify"]


def identify(instances: Instances, temperature: float | None = None, pins: Mapping[int, Level] | None = None) -> Spine:
    """Name each instance, given from head to tail. An instance that fits no level in order is dropped, with a warning.

    The confidence of a level is its posterior probability: the costs over `temperature` (the calibrated one where none
    is given) are read as -ln of odds. A network that knows the spine as a whole only leaves nothing to decide.

    `pins` maps the index of an instance to the level that it certainly is. Raises ConfigError where no path keeps them
    all: a level that cannot be named here, or levels out of order.
    """
    if not instances.items:
        return Spine((), instances.grid, (*instances.warnings, "no vertebrae were found"))
    if instances.levels == (SPINE,):
        return Spine(tuple(Vertebra(SPINE, 1.0, item) for item in instances.items), instances.grid, instances.warnings)
    temperature = confidence.temperature() if temperature is None else temperature
    pins = pins or {}
    _check(instances, pins)
    model = build(instances, pins)
    best, second = cheapest(model)
    called = _called(model, best)
    if broken := [level.name for n, level in pins.items() if called[n] != level]:
        raise ConfigError(f"{', '.join(broken)}: given by hand, but no order of levels allows it there: correct that")
    vertebrae = _vertebrae(instances, model, best, marginals(model, temperature))
    names = tuple(level.name for level in _called(model, second) if level is not None)
    warnings = (*instances.warnings, *_warnings(instances, model, best))
    return Spine(vertebrae, instances.grid, warnings, confidence.shift_probability(model, best, temperature), names)


def _check(instances: Instances, pins: Mapping[int, Level]) -> None:
    unknown = [level.name for level in pins.values() if level not in nameable(instances.levels)]
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: given by hand, but not among the levels that can be named here")
    for (m, upper), (n, lower) in pairwise(sorted(pins.items())):
        if upper.rank >= lower.rank:
            raise ConfigError(
                f"given by hand, {upper.name} lies above {lower.name} (parts {m + 1} and {n + 1} from the head): "
                "levels run from head to tail, each once"
            )


def _called(model: Model, path: Path) -> list[Level | None]:
    """The level that a path gives to each instance."""
    return [None if state is None else model.states.levels[model.names[n, state]] for n, state in enumerate(path)]


def _vertebrae(instances: Instances, model: Model, path: Path, probabilities: Floats) -> tuple[Vertebra, ...]:
    kept = [(n, state) for n, state in enumerate(path) if state is not None]
    items = [instances.items[n] for n, _ in kept]
    levels = [level for level in _called(model, path) if level is not None]
    double = [bool(model.states.double[state]) for _, state in kept]
    quality, ratios = confidence.qualities(items, levels, volumes_ml(instances)[[n for n, _ in kept]], double)
    named = []
    for place, (n, state) in enumerate(kept):
        level = model.names[n, state]
        others = np.delete(probabilities[n], level)
        other = np.delete(np.arange(len(probabilities[n])), level)[int(others.argmax())]
        sure = float(np.clip(probabilities[n, level], 0.0, 1.0))
        ends = {model.states.levels[end].name: None for end in (model.states.top[state], model.states.bottom[state])}
        why = confidence.reasons(tuple(ends), sure, quality[place], ratios[place], model.states.levels[other].name)
        named.append(Vertebra(levels[place], sure, items[place], quality[place], why))
    return tuple(named)


def _warnings(instances: Instances, model: Model, path: Path) -> list[str]:
    warnings = []
    called = _called(model, path)
    for item, level in zip(instances.items, called, strict=True):
        if level is None:
            where = ", ".join(f"{value:.0f}" for value in item.centroid_mm)
            warnings.append(f"a part at {where} mm (RAS) fits no level in order and was dropped")
    kept = [level for level in called if level is not None]
    for upper, lower in pairwise(kept):
        if between(upper, lower):
            warnings.append(f"no vertebra was found between {upper.name} and {lower.name}")
    overruled = [
        level.name
        for level, share in zip(called, evidence_shares(instances), strict=True)
        if level is not None and share[model.states.levels.index(level)] < share.max()
    ]
    if overruled:
        warnings.append(f"named by the order of the spine, against the network's own guess: {', '.join(overruled)}")
    return warnings
