"""Dynamic programming over (instance, what it is, the patient's scale there): cheapest path, and sums over all paths.

`cheapest` is Viterbi's recursion, run in both directions so that the best path through any state is known; `marginals`
is the forward-backward recursion over the same costs. Both take O(N x states^2 x scales) for N instances.
"""

from dataclasses import dataclass

import numpy as np

from vertebral.identify.costs import Model
from vertebral.identify.states import Floats

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
    count = len(model.own)
    dropped = np.concatenate([[0.0], np.cumsum(model.drop)])
    above = np.empty((*model.own.shape, len(model.start)))
    moved = np.empty_like(above)
    for n in range(count):
        above[n] = dropped[n] + model.start
        for m in range(n):
            if (m, n) in model.step:
                np.minimum(above[n], (moved[m][:, None] + model.step[m, n]).min(0), out=above[n])
        above[n] += model.own[n][:, None]
        moved[n] = (above[n][:, :, None] + model.drift).min(1)
    below = np.empty_like(above)
    for m in reversed(range(count)):
        below[m] = dropped[-1] - dropped[m + 1]
        rest = np.full_like(below[m], np.inf)
        for n in range(m + 1, count):
            if (m, n) in model.step:
                np.minimum(rest, (model.step[m, n] + (below[n] + model.own[n][:, None])).min(1), out=rest)
        np.minimum(below[m], (rest[:, None, :] + model.drift).min(2), out=below[m])
    return Through(above, below)


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
    for m in range(n):
        if (m, n) in model.step:
            ways = costs.above[m] + model.drift[None, :, scale] + model.step[m, n][:, state, scale, None]
            if ways.min() < least:
                least, found = float(ways.min()), (m, *_place(ways))
    return found


def _next_below(model: Model, costs: Through, m: int, state: int, scale: int) -> tuple[int, int, int] | None:
    least, found = float(model.drop[m + 1 :].sum()), None
    for n in range(m + 1, len(model.own)):
        if (m, n) in model.step:
            ways = model.step[m, n][state] + costs.below[n] + model.own[n][:, None] + model.drift[scale][None]
            if ways.min() < least:
                least, found = float(ways.min()), (n, *_place(ways))
    return found


def _place(ways: Floats) -> tuple[int, int]:
    state, scale = np.unravel_index(int(ways.argmin()), ways.shape)
    return int(state), int(scale)


def marginals(model: Model, temperature: float) -> Floats:
    """(N, L): the probability of each level for each instance; what lacks to one is that of being dropped.

    Costs are divided by `temperature` before they are read as -ln of odds: above one, the odds are less sure.

    Sums of exp(-cost), each instance's scaled by the largest above it (`offset`), so that nothing underflows.
    """
    count, levels = len(model.own), len(model.states.levels)
    dropped = np.concatenate([[0.0], np.cumsum(model.drop)]) / temperature
    odds = {pair: np.exp(cost / -temperature) for pair, cost in model.step.items()}
    own, drift, start = (np.exp(cost / -temperature) for cost in (model.own, model.drift, model.start))
    above = np.zeros((*model.own.shape, len(start)))
    moved = np.zeros_like(above)
    offset = np.zeros(count)
    for n in range(count):
        uppers = [m for m in range(n) if (m, n) in odds]
        offset[n] = max([-dropped[n], *(offset[m] for m in uppers)])
        above[n] = np.exp(-dropped[n] - offset[n]) * start
        for m in uppers:
            above[n] += np.exp(offset[m] - offset[n]) * np.einsum("as,abs->bs", moved[m], odds[m, n])
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
        for n in range(m + 1, count):
            if (m, n) in odds:
                rest = np.einsum("abs,bs->as", odds[m, n], below[n] * own[n][:, None])
                below[m] += np.exp(offset[m] - offset[n]) * (rest @ drift.T)
    total = float((above.sum((1, 2)) * np.exp(ends - top)).sum() + np.exp(-dropped[-1] - top))
    joint = (above * below).sum(2) / total
    level = np.zeros((count, levels))
    for n in range(count):
        level[n] = np.bincount(model.names[n], joint[n], minlength=levels)
    return level


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
        here = model.step[m, n][upper, lower] + model.own[n, lower]
        cost = _sum(cost[:, None] + model.drift / temperature) + here / temperature
        m, upper = n, lower
    return float(_sum(cost)) + float(model.drop[m + 1 :].sum()) / temperature


def _sum(costs: Floats) -> Floats:
    """-ln of the sum of exp(-costs) over the first axis."""
    least = costs.min(0)
    if not np.isfinite(least).all():
        return np.full_like(least, np.inf)
    return np.asarray(least - np.log(np.exp(least - costs).sum(0)))
