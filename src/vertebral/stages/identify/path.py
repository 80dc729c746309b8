"""Dynamic programming over (instance, what it is, the patient's scale there): cheapest path, and sums over all paths.

`cheapest` is Viterbi's recursion, run in both directions so that the best path through any state is known; `marginals`
is the forward-backward recursion over the same costs. Both take O(N x states^2 x scales) for N instances.
"""

from dataclasses import dataclass

import numpy as np

from vertebral.stages.identify.costs import Model
from vertebral.stages.identify.states import Floats

Path = tuple[int | None, ...]


@dataclass(frozen=True)
class Through:
    """Per instance, state and scale the cost of what lies `above` it (itself included) and `below`, each (N, K, S)."""

    above: Floats
    below: Floats


def cheapest(model: Model) -> tuple[Path, Path]:
    """The cheapest path and the cheapest that calls at least one instance of it by another level.

    Paths hold for each instance the index of its state, or None where it is dropped. The second is empty where there is
    no other.
    """
    costs = _through(model)
    total = costs.above + costs.below
    if model.drop.sum() < total.min():
        return (None,) * len(model.own), ()
    best = _trace(model, costs, *_argmin(total))
    for n, state in enumerate(best):
        same = slice(None) if state is None else model.names[n] == model.names[n, state]
        total[n, same] = np.inf
    return best, _trace(model, costs, *_argmin(total)) if np.isfinite(total).any() else ()


def _through(model: Model) -> Through:
    steps, count = model.steps, len(model.own)
    dropped = np.concatenate([[0.0], np.cumsum(model.drop)])
    above = np.empty((*model.own.shape, len(model.start)))
    moved = np.empty_like(above)
    for n in range(count):
        above[n] = dropped[n] + model.start
        for m in _uppers(model, n):
            ways = np.minimum.reduceat(moved[m][steps.upper] + model.step[m, n], steps.into_start)
            above[n][steps.into] = np.minimum(above[n][steps.into], ways)
        above[n] += model.own[n][:, None]
        moved[n] = (above[n][:, :, None] + model.drift).min(1)
    below = np.empty_like(above)
    for m in reversed(range(count)):
        below[m] = dropped[-1] - dropped[m + 1]
        rest = np.full_like(below[m], np.inf)
        for n in _lowers(model, m):
            ways = ((below[n] + model.own[n][:, None])[steps.lower] + model.step[m, n])[steps.by_upper]
            rest[steps.out_of] = np.minimum(rest[steps.out_of], np.minimum.reduceat(ways, steps.out_of_start))
        np.minimum(below[m], (rest[:, None, :] + model.drift).min(2), out=below[m])
    return Through(above, below)


def _uppers(model: Model, n: int) -> list[int]:
    return [m for m in range(n) if (m, n) in model.step]


def _lowers(model: Model, m: int) -> list[int]:
    return [n for n in range(m + 1, len(model.own)) if (m, n) in model.step]


def _argmin(values: Floats) -> tuple[int, int, int]:
    n, state, scale = (int(i) for i in np.unravel_index(int(values.argmin()), values.shape))
    return n, state, scale


def _trace(model: Model, costs: Through, n: int, state: int, scale: int) -> Path:
    """The cheapest path through one state at one scale, followed up and down."""
    path: list[int | None] = [None] * len(model.own)
    path[n] = state
    for follow in (_next_above, _next_below):
        at = (n, state, scale)
        while (found := follow(model, costs, *at)) is not None:
            at = found
            path[at[0]] = at[1]
    return tuple(path)


def _next_above(model: Model, costs: Through, n: int, state: int, scale: int) -> tuple[int, int, int] | None:
    least, found = float(model.drop[:n].sum() + model.start[scale]), None
    into = model.steps.lower == state
    for m in _uppers(model, n) if into.any() else ():
        ways = costs.above[m][model.steps.upper[into]] + model.drift[:, scale] + model.step[m, n][into, scale, None]
        if ways.min() < least:
            step, other = divmod(int(ways.argmin()), ways.shape[1])
            least, found = float(ways.min()), (m, int(model.steps.upper[into][step]), other)
    return found


def _next_below(model: Model, costs: Through, m: int, state: int, scale: int) -> tuple[int, int, int] | None:
    least, found = float(model.drop[m + 1 :].sum()), None
    out_of = model.steps.upper == state
    for n in _lowers(model, m) if out_of.any() else ():
        rest = (costs.below[n] + model.own[n][:, None])[model.steps.lower[out_of]]
        ways = rest + model.drift[scale] + model.step[m, n][out_of]
        if ways.min() < least:
            step, other = divmod(int(ways.argmin()), ways.shape[1])
            least, found = float(ways.min()), (n, int(model.steps.lower[out_of][step]), other)
    return found


def marginals(model: Model, temperature: float) -> Floats:
    """(N, L): the probability of each level for each instance; what lacks to one is that of being dropped.

    Costs are divided by `temperature` before they are read as -ln of odds: above one, the odds are less sure.

    Sums of exp(-cost), each instance's scaled by the largest above it (`offset`), so that nothing underflows.
    """
    steps, count = model.steps, len(model.own)
    dropped = np.concatenate([[0.0], np.cumsum(model.drop)]) / temperature
    odds = {pair: np.exp(cost / -temperature) for pair, cost in model.step.items()}
    own, drift, start = (np.exp(cost / -temperature) for cost in (model.own, model.drift, model.start))
    above = np.zeros((*model.own.shape, len(start)))
    moved = np.zeros_like(above)
    offset = np.zeros(count)
    for n in range(count):
        uppers = _uppers(model, n)
        offset[n] = max([-dropped[n], *(offset[m] for m in uppers)])
        above[n] = np.exp(-dropped[n] - offset[n]) * start
        for m in uppers:
            ways = np.add.reduceat(moved[m][steps.upper] * odds[m, n], steps.into_start)
            above[n][steps.into] += np.exp(offset[m] - offset[n]) * ways
        above[n] *= own[n][:, None]
        largest = above[n].max()
        above[n], offset[n] = above[n] / largest, offset[n] + np.log(largest)
        moved[n] = above[n] @ drift
    # `below` is scaled by the offsets too: above x below is a share of exp(offset of the last that ends a path).
    ends = offset - (dropped[-1] - dropped[1:])
    below = np.zeros_like(above)
    top = max(float(ends.max()), -float(dropped[-1]))
    for m in reversed(range(count)):
        below[m] = np.exp(ends[m] - top)
        rest = np.zeros_like(below[m])
        for n in _lowers(model, m):
            ways = ((below[n] * own[n][:, None])[steps.lower] * odds[m, n])[steps.by_upper]
            rest[steps.out_of] += np.exp(offset[m] - offset[n]) * np.add.reduceat(ways, steps.out_of_start)
        below[m] += rest @ drift.T
    total = float((above.sum((1, 2)) * np.exp(ends - top)).sum() + np.exp(-dropped[-1] - top))
    joint = (above * below).sum(2) / total
    width = len(model.states.levels)
    return np.stack(
        [np.bincount(names, share, minlength=width) for names, share in zip(model.names, joint, strict=True)]
    )


def cost_of(model: Model, path: Path, temperature: float) -> float:
    """-ln of the sum over scales of exp(-cost / temperature) of one path; infinite where it breaks the order."""
    kept = [(n, state) for n, state in enumerate(path) if state is not None]
    if not kept:
        return float(model.drop.sum()) / temperature
    (m, upper), *others = kept
    cost = (model.start + model.drop[:m].sum() + model.own[m, upper]) / temperature
    for n, lower in others:
        if (m, n) not in model.step:
            return float("inf")
        ways = model.step[m, n][(model.steps.upper == upper) & (model.steps.lower == lower)] / temperature
        if len(ways) == 0:
            return float("inf")
        cost = _sum(cost[:, None] + model.drift / temperature) + _sum(ways) + model.own[n, lower] / temperature
        m, upper = n, lower
    return float(_sum(cost)) + float(model.drop[m + 1 :].sum()) / temperature


def _sum(costs: Floats) -> Floats:
    """-ln of the sum of exp(-costs) over the first axis."""
    least = costs.min(0)
    return np.asarray(least - np.log(np.exp(least - costs).sum(0)))
