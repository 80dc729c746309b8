"""The states of an instance: one vertebra of some level, or two neighbours merged into one instance."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import Level
from vertebral.stages.identify.priors import ABSENT, RARE, VOLUMES_ML, between, distance_mm

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class States:
    """K states of an instance; `top` and `bottom` (K,) are indices into `levels`, equal for a single vertebra."""

    levels: tuple[Level, ...]
    top: Indices
    bottom: Indices

    @property
    def double(self) -> NDArray[np.bool_]:
        """(K,): True for two vertebrae in one instance."""
        return np.asarray(self.top != self.bottom)

    def volumes_ml(self) -> Floats:
        """Return (K,): the usual volume in ml."""
        single = np.array([VOLUMES_ML[level.name] for level in self.levels])
        return np.where(self.double, single[self.top] + single[self.bottom], single[self.top])


@dataclass(frozen=True, eq=False)
class Steps:
    """P steps from state `upper` to state `lower` (P,), ordered by `lower`: usual distance, common levels passed over.

    A pair of states has a second row if the spine may lack a level between them: `absent` is the index of that level in
    `ABSENT`, -1 if none is absent. Steps to state `into[n]` start at `into_start[n]`. `by_upper` (P,) sorts the steps
    by `upper`; in that order, those from state `out_of[n]` start at `out_of_start[n]`.
    """

    upper: Indices
    lower: Indices
    usual_mm: Floats
    passed: Indices
    absent: Indices
    to_sacrum: NDArray[np.bool_]
    into: Indices
    into_start: Indices
    by_upper: Indices
    out_of: Indices
    out_of_start: Indices


@cache
def states_of(levels: tuple[Level, ...]) -> States:
    """Return all single levels and all pairs of neighbouring vertebrae."""
    pairs = [(n, n) for n in range(len(levels))]
    for a, upper in enumerate(levels):
        for b, lower in enumerate(levels[a + 1 :], start=a + 1):
            if upper.is_vertebra and lower.is_vertebra and not between(upper, lower) and not _has_rare(upper, lower):
                pairs.append((a, b))
    top, bottom = np.array(pairs).T
    return States(levels, top, bottom)


@cache
def steps_of(levels: tuple[Level, ...]) -> Steps:
    """Return all steps downwards between the states of `levels`."""
    states = states_of(levels)
    rows = []
    half = [
        distance_mm(levels[a], levels[b]) / 2 if a != b else 0.0 for a, b in zip(states.top, states.bottom, strict=True)
    ]
    for lower in range(len(states.top)):
        for upper in range(len(states.top)):
            a, b = states.bottom[upper], states.top[lower]
            if a >= b:
                continue
            gap = [level.name for level in between(levels[a], levels[b])]
            for absent in (None, *(name for name in ABSENT if name in gap and not _has_rare(levels[a], levels[b]))):
                usual_mm = half[upper] + distance_mm(levels[a], levels[b], absent) + half[lower]
                missing = -1 if absent is None else ABSENT.index(absent)
                rows.append((upper, lower, usual_mm, len(gap) - (absent is not None), missing))
    table = np.array(rows, np.float64).reshape(-1, 5)
    uppers, lowers, passed, absents = (table[:, n].astype(np.int64) for n in (0, 1, 3, 4))
    vertebra = np.array([level.is_vertebra for level in levels])
    by_upper = np.argsort(uppers, kind="stable")
    into, into_start = np.unique(lowers, return_index=True)
    out_of, out_of_start = np.unique(uppers[by_upper], return_index=True)
    return Steps(
        uppers,
        lowers,
        table[:, 2],
        passed,
        absents,
        ~vertebra[states.top[lowers]],
        into,
        into_start,
        by_upper,
        out_of,
        out_of_start,
    )


def _has_rare(upper: Level, lower: Level) -> bool:
    """Return whether either level is rare: such a pair is never merged, and never next to an absent common level."""
    return bool({upper.name, lower.name} & set(RARE))
