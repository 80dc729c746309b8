"""Dynamic programming over (instance, its state, the patient's scale there): cheapest path, and sums over all paths.

`cheapest` is Viterbi's recursion, run in both directions so that the best path through any state is known; `marginals`
is the forward-backward recursion over the same costs. Both take O(N x states^2 x scales) for N instances.
"""

from dataclasses import dataclass

import numpy as np

from vertebral.stages.identify.costs import PathCosts
from vertebral.stages.identify.states import Floats

StatePath = tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class BestThrough:
    """The least cost `above` (itself included) and `below` each instance, state and scale, each (N, K, S)."""

    above: Floats
    below: Floats


def cheapest(costs: PathCosts) -> tuple[StatePath, StatePath]:
    """Return the cheapest path, and the cheapest that gives at least one of its instances another level.

    A path holds the index of the state of each instance, or None if it is dropped. The second is empty if there is no
    other.
    """
    through = _best_through(costs)
    total = through.above + through.below
    if costs.drop.sum() < total.min():
        return (None,) * len(costs.own), ()
    best = _trace(costs, through, *_argmin(total))
    for n, state in enumerate(best):
        same = slice(None) if state is None else costs.names[n] == costs.names[n, state]
        total[n, same] = np.inf
    return best, _trace(costs, through, *_argmin(total)) if np.isfinite(total).any() else ()


def _best_through(costs: PathCosts) -> BestThrough:
    steps, count = costs.steps, len(costs.own)
    dropped = np.concatenate([[0.0], np.cumsum(costs.drop)])
    above = np.empty((*costs.own.shape, len(costs.start)))
    moved = np.empty_like(above)
    for n in range(count):
        above[n] = dropped[n] + costs.start
        for m in _uppers(costs, n):
            ways = np.minimum.reduceat(moved[m][steps.upper] + costs.step[m, n], steps.into_start)
            above[n][steps.into] = np.minimum(above[n][steps.into], ways)
        above[n] += costs.own[n][:, None]
        moved[n] = (above[n][:, :, None] + costs.drift).min(1)
    below = np.empty_like(above)
    for m in reversed(range(count)):
        below[m] = dropped[-1] - dropped[m + 1]
        rest = np.full_like(below[m], np.inf)
        for n in _lowers(costs, m):
            ways = ((below[n] + costs.own[n][:, None])[steps.lower] + costs.step[m, n])[steps.by_upper]
            rest[steps.out_of] = np.minimum(rest[steps.out_of], np.minimum.reduceat(ways, steps.out_of_start))
        np.minimum(below[m], (rest[:, None, :] + costs.drift).min(2), out=below[m])
    return BestThrough(above, below)


def _uppers(costs: PathCosts, n: int) -> list[int]:
    return [m for m in range(n) if (m, n) in costs.step]


def _lowers(costs: PathCosts, m: int) -> list[int]:
    return [n for n in range(m + 1, len(costs.own)) if (m, n) in costs.step]


def _argmin(values: Floats) -> tuple[int, int, int]:
    n, state, scale = (int(i) for i in np.unravel_index(int(values.argmin()), values.shape))
    return n, state, scale


def _trace(costs: PathCosts, through: BestThrough, n: int, state: int, scale: int) -> StatePath:
    """Return the cheapest path through one state at one scale, followed up and down."""
    path: list[int | None] = [None] * len(costs.own)
    path[n] = state
    for follow in (_next_above, _next_below):
        at = (n, state, scale)
        while (found := follow(costs, through, *at)) is not None:
            at = found
            path[at[0]] = at[1]
    return tuple(path)


def _next_above(costs: PathCosts, through: BestThrough, n: int, state: int, scale: int) -> tuple[int, int, int] | None:
    least, found = float(costs.drop[:n].sum() + costs.start[scale]), None
    into = costs.steps.lower == state
    for m in _uppers(costs, n) if into.any() else ():
        ways = through.above[m][costs.steps.upper[into]] + costs.drift[:, scale] + costs.step[m, n][into, scale, None]
        if ways.min() < least:
            step, other = divmod(int(ways.argmin()), ways.shape[1])
            least, found = float(ways.min()), (m, int(costs.steps.upper[into][step]), other)
    return found


def _next_below(costs: PathCosts, through: BestThrough, m: int, state: int, scale: int) -> tuple[int, int, int] | None:
    least, found = float(costs.drop[m + 1 :].sum()), None
    out_of = costs.steps.upper == state
    for n in _lowers(costs, m) if out_of.any() else ():
        rest = (through.below[n] + costs.own[n][:, None])[costs.steps.lower[out_of]]
        ways = rest + costs.drift[scale] + costs.step[m, n][out_of]
        if ways.min() < least:
            step, other = divmod(int(ways.argmin()), ways.shape[1])
            least, found = float(ways.min()), (n, int(costs.steps.lower[out_of][step]), other)
    return found


def marginals(costs: PathCosts, temperature: float) -> Floats:
    """Return (N, L): the probability of each level for each instance; the rest to 1 is that of being dropped.

    Costs divided by `temperature` are -ln of odds; above 1 it flattens them. These are sums of exp(-cost), scaled for
    each instance by the largest above it (`offset`), so that nothing underflows.
    """
    steps, count = costs.steps, len(costs.own)
    dropped = np.concatenate([[0.0], np.cumsum(costs.drop)]) / temperature
    odds = {pair: np.exp(cost / -temperature) for pair, cost in costs.step.items()}
    own, drift, start = (np.exp(cost / -temperature) for cost in (costs.own, costs.drift, costs.start))
    above = np.zeros((*costs.own.shape, len(start)))
    moved = np.zeros_like(above)
    offset = np.zeros(count)
    for n in range(count):
        uppers = _uppers(costs, n)
        offset[n] = max([-dropped[n], *(offset[m] for m in uppers)])
        above[n] = np.exp(-dropped[n] - offset[n]) * start
        for m in uppers:
            ways = np.add.reduceat(moved[m][steps.upper] * odds[m, n], steps.into_start)
            above[n][steps.into] += np.exp(offset[m] - offset[n]) * ways
        above[n] *= own[n][:, None]
        largest = above[n].max()
        above[n], offset[n] = above[n] / largest, offset[n] + np.log(largest)
        moved[n] = above[n] @ drift
    # `below` is scaled by the offsets too, so above x below is relative to exp(offset of the last instance of a path).
    ends = offset - (dropped[-1] - dropped[1:])
    below = np.zeros_like(above)
    top = max(float(ends.max()), -float(dropped[-1]))
    for m in reversed(range(count)):
        below[m] = np.exp(ends[m] - top)
        rest = np.zeros_like(below[m])
        for n in _lowers(costs, m):
            ways = ((below[n] * own[n][:, None])[steps.lower] * odds[m, n])[steps.by_upper]
            rest[steps.out_of] += np.exp(offset[m] - offset[n]) * np.add.reduceat(ways, steps.out_of_start)
        below[m] += rest @ drift.T
    total = float((above.sum((1, 2)) * np.exp(ends - top)).sum() + np.exp(-dropped[-1] - top))
    joint = (above * below).sum(2) / total
    width = len(costs.states.levels)
    return np.stack(
        [np.bincount(names, share, minlength=width) for names, share in zip(costs.names, joint, strict=True)]
    )


def cost_of(costs: PathCosts, path: StatePath, temperature: float) -> float:
    """Return -ln of the sum over scales of exp(-cost / temperature) of one path; infinite if it breaks the order."""
    kept = [(n, state) for n, state in enumerate(path) if state is not None]
    if not kept:
        return float(costs.drop.sum()) / temperature
    (m, upper), *others = kept
    cost = (costs.start + costs.drop[:m].sum() + costs.own[m, upper]) / temperature
    for n, lower in others:
        if (m, n) not in costs.step:
            return float("inf")
        ways = costs.step[m, n][(costs.steps.upper == upper) & (costs.steps.lower == lower)] / temperature
        if len(ways) == 0:
            return float("inf")
        cost = _sum(cost[:, None] + costs.drift / temperature) + _sum(ways) + costs.own[n, lower] / temperature
        m, upper = n, lower
    return float(_sum(cost)) + float(costs.drop[m + 1 :].sum()) / temperature


def _sum(values: Floats) -> Floats:
    """Return -ln of the sum of exp(-values) over the first axis."""
    least = values.min(0)
    return np.asarray(least - np.log(np.exp(least - values).sum(0)))
