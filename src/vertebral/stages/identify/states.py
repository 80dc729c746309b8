"""What an instance can be: one vertebra of some level, or two neighbours that were taken for one."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import Level
from vertebral.stages.identify.priors import ABSENT, RARE, VOLUMES_ML, between, distance_mm

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class States:
    """K choices for an instance; `top` and `bottom` (K,) are indices into `levels`, equal for a single vertebra."""

    levels: tuple[Level, ...]
    top: Ids
    bottom: Ids

    @property
    def double(self) -> NDArray[np.bool_]:
        """(K,): True for two vertebrae in one."""
        return np.asarray(self.top != self.bottom)

    def volumes_ml(self) -> Floats:
        """(K,): the usual volume."""
        single = np.array([VOLUMES_ML[level.name] for level in self.levels])
        return np.where(self.double, single[self.top] + single[self.bottom], single[self.top])


@dataclass(frozen=True)
class Steps:
    """P steps from state `upper` to state `lower` (P,), ordered by `lower`: usual distance, common levels passed over.

    A state pair is there again where the spine may lack a level between them: `absent` is that level's place in
    `ABSENT`, -1 where none is lacking. Steps to state `into[n]` start at `into_start[n]`; `by_upper` (P,) puts them in
    order of `upper`, where those from state `out_of[n]` start at `out_of_start[n]`.
    """

    upper: Ids
    lower: Ids
    usual_mm: Floats
    passed: Ids
    absent: Ids
    to_sacrum: NDArray[np.bool_]
    into: Ids
    into_start: Ids
    by_upper: Ids
    out_of: Ids
    out_of_start: Ids


@cache
def states_of(levels: tuple[Level, ...]) -> States:
    """All single levels and all pairs of vertebrae that are neighbours."""
    pairs = [(n, n) for n in range(len(levels))]
    for a, upper in enumerate(levels):
        for b, lower in enumerate(levels[a + 1 :], start=a + 1):
            if upper.is_vertebra and lower.is_vertebra and not between(upper, lower) and not _free(upper, lower):
                pairs.append((a, b))
    top, bottom = np.array(pairs).T
    return States(levels, top, bottom)


def _free(upper: Level, lower: Level) -> bool:
    """Pairs with a rare level: not worth a state of their own."""
    return upper.name in RARE or lower.name in RARE


@cache
def steps_of(levels: tuple[Level, ...]) -> Steps:
    """All steps downwards between the states of `levels`."""
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
                place = -1 if absent is None else ABSENT.index(absent)
                rows.append((upper, lower, usual_mm, len(gap) - (absent is not None), place))
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
    """Nobody lacks a common level and has the rare one after it."""
    return bool({upper.name, lower.name} & set(RARE))
