"""The recursions against all paths, counted one by one."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vertebral.core.anatomy import parse_levels
from vertebral.stages.identify.costs import PathCosts
from vertebral.stages.identify.path import StatePath, cheapest, cost_of, marginals
from vertebral.stages.identify.states import states_of, steps_of

LEVELS = parse_levels("T11,T12,L1")
STATES, STEPS = states_of(LEVELS), steps_of(LEVELS)
SCALES = 2


@st.composite
def random_costs(draw: st.DrawFn) -> PathCosts:
    count = draw(st.integers(1, 4))
    costs = st.floats(0, 8)
    width = len(STATES.top)
    step = {
        (m, n): draw(arrays(np.float32, (len(STEPS.upper), SCALES), elements=st.floats(0, 8, width=32)))
        for n in range(count)
        for m in range(max(0, n - 2), n)
    }
    return PathCosts(
        STATES,
        STEPS,
        draw(arrays(np.float64, (count, width), elements=costs)),
        draw(arrays(np.float64, count, elements=costs)),
        draw(arrays(np.float64, SCALES, elements=costs)),
        draw(arrays(np.float64, (SCALES, SCALES), elements=costs)),
        step,
        np.where(draw(arrays(np.bool_, (count, width))), STATES.bottom, STATES.top),
    )


def costs_of(costs: PathCosts, path: StatePath) -> list[float]:
    """The cost of one path in each of its ways: over scales, and over a level passed that is lost or absent."""
    kept = [(n, state) for n, state in enumerate(path) if state is not None]
    drops = sum(float(costs.drop[n]) for n, state in enumerate(path) if state is None)
    if not kept:
        return [drops]
    # Drops between two that are kept are in the cost of the step.
    drops -= sum(float(costs.drop[n]) for (m, _), (k, _) in pairwise(kept) for n in range(m + 1, k))
    own = sum(float(costs.own[n, state]) for n, state in kept)
    ways = []
    for scales in product(range(SCALES), repeat=len(kept)):
        totals = [drops + own + float(costs.start[scales[0]])]
        for place, ((m, upper), (n, lower)) in enumerate(pairwise(kept)):
            rows = np.flatnonzero((STEPS.upper == upper) & (STEPS.lower == lower))
            if len(rows) == 0 or (m, n) not in costs.step:
                totals = []
                break
            drift = float(costs.drift[scales[place], scales[place + 1]])
            totals = [t + drift + float(costs.step[m, n][row, scales[place + 1]]) for t in totals for row in rows]
        ways += totals
    return ways


def all_paths(costs: PathCosts) -> dict[StatePath, list[float]]:
    choices = [None, *range(len(STATES.top))]
    found = {path: costs_of(costs, path) for path in product(choices, repeat=len(costs.own))}
    return {path: totals for path, totals in found.items() if totals}


def names(costs: PathCosts, path: StatePath) -> list[int | None]:
    return [None if state is None else int(costs.names[n, state]) for n, state in enumerate(path)]


@settings(deadline=None, max_examples=25)
@given(random_costs())
def test_no_path_is_cheaper_and_none_that_differs_beats_the_second(costs: PathCosts) -> None:
    paths = {path: min(totals) for path, totals in all_paths(costs).items()}
    best, second = cheapest(costs)
    assert paths[best] == pytest.approx(min(paths.values()), abs=1e-4)
    called = names(costs, best)
    others = [
        cost
        for path, cost in paths.items()
        if any(a is not None and b is not None and a != b for a, b in zip(names(costs, path), called, strict=True))
    ]
    if any(name is not None for name in called):
        assert bool(second) == bool(others)
        assert not second or paths[second] == pytest.approx(min(others), abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(random_costs(), st.floats(0.5, 4))
def test_marginals_are_sums_over_all_paths(costs: PathCosts, temperature: float) -> None:
    weights = {path: sum(np.exp(-total / temperature) for total in totals) for path, totals in all_paths(costs).items()}
    expected = np.zeros((len(costs.own), len(LEVELS)))
    for path, weight in weights.items():
        for n, name in enumerate(names(costs, path)):
            if name is not None:
                expected[n, name] += weight / sum(weights.values())
    assert marginals(costs, temperature) == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(random_costs(), st.floats(0.5, 4))
def test_the_cost_of_a_path_sums_over_its_ways(costs: PathCosts, temperature: float) -> None:
    for path, totals in list(all_paths(costs).items())[::7]:
        expected = -np.log(sum(np.exp(-total / temperature) for total in totals))
        assert cost_of(costs, path, temperature) == pytest.approx(expected, abs=1e-4)
