"""One named spine against the truth: which levels are right, which vertebrae were found, and the simple rivals."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_VERSE_ID, LEVELS, Level, sort_levels
from vertebral.core.records import Instance, Spine
from vertebral.evaluation.identification.cases import SPACING_MM, Case
from vertebral.stages.identify.priors import RARE, VOLUMES_ML

FOUND_DICE = 0.5
# What is left of a vertebra must hold this share of its usual volume, and of its own voxels, to be asked for.
_ASKED_SHARE = 0.4
_LEFT_SHARE = 0.5
# From this share of what it holds most on, an instance may be called by another vertebra that it holds.
_HELD_SHARE = 0.5
_COMMON = [level for level in LEVELS if level.name not in RARE and level.is_vertebra]


@dataclass(frozen=True)
class Score:
    """`asked` vertebrae are in the claims for the most part; `right` of them are named as what they are.

    `all_right`: every one of them lies in a named instance, and every named instance has the level of a vertebra that
    it holds: the one that most of it belongs to, or another with half as much. `shifts` counts named instances by how
    many levels they are off (too far down counts up), 0 included. `found` vertebrae share a Dice of 0.5 with a named
    instance; `named` counts instances, `true` those that found one. `probabilities` are (confidence, right) of named
    instances with a truth. The rivals: `vote` gives each asked vertebra the level that most of its voxels claim,
    `count` numbers them on from the first of those votes.
    """

    asked: int
    right: int
    all_right: bool
    found: int
    named: int
    true: int
    shifts: dict[int, int]
    probabilities: tuple[tuple[float, bool], ...]
    vote_right: int
    vote_all_right: bool
    count_right: int
    count_all_right: bool


def score(spine: Spine, case: Case) -> Score:
    """Score what was named of a case's claims, which lie on its grid."""
    truth_voxels = np.bincount(case.truth.ravel(), minlength=256)
    asked = _asked(case, truth_voxels)
    rows = [_overlaps(vertebra.instance, case.truth) for vertebra in spine.vertebrae]
    overlaps = np.array(rows).reshape(-1, 256)
    overlaps[:, 0] = 0
    sizes = [np.count_nonzero(vertebra.instance.occupancy >= 0.5) for vertebra in spine.vertebrae]
    true_levels = [_true(row, v.level) for row, v in zip(overlaps, spine.vertebrae, strict=True)]
    dice = 2 * overlaps / np.maximum(np.array(sizes)[:, None] + truth_voxels[None], 1) if len(rows) else overlaps
    right, held = 0, True
    for level in asked:
        column = overlaps[:, level.verse_id] if len(rows) else np.zeros(1)
        best = int(column.argmax())
        right += bool(column[best] > 0 and spine.vertebrae[best].level == level)
        held &= bool(column[best] >= _LEFT_SHARE / 2 * truth_voxels[level.verse_id])
    pairs = [(v, true) for v, true in zip(spine.vertebrae, true_levels, strict=True) if true is not None]
    votes = _votes(case, asked)
    counted = _counted(votes)
    return Score(
        asked=len(asked),
        right=right,
        all_right=held and all(v.level == true for v, true in pairs),
        found=sum(bool((dice[:, level.verse_id] >= FOUND_DICE).any()) for level in asked) if len(rows) else 0,
        named=len(spine.vertebrae),
        true=int((dice.max(1) >= FOUND_DICE).sum()) if len(rows) else 0,
        shifts=dict(
            Counter(levels_off(v.level, true) for v, true in pairs if v.level.is_vertebra and true.is_vertebra)
        ),
        probabilities=tuple((v.confidence, v.level == true) for v, true in pairs),
        vote_right=sum(map(_same, votes, asked)),
        vote_all_right=all(map(_same, votes, asked)),
        count_right=sum(map(_same, counted, asked)),
        count_all_right=all(map(_same, counted, asked)),
    )


def _asked(case: Case, truth_voxels: NDArray[np.int64]) -> list[Level]:
    left = np.bincount(case.truth[case.claims > 0], minlength=256)
    per_ml = 1000 / SPACING_MM**3
    whole = np.median([truth_voxels[x.verse_id] / VOLUMES_ML[x.name] for x in case.levels if x.is_vertebra]) / per_ml
    asked = []
    for level in case.levels:
        voxels = truth_voxels[level.verse_id]
        enough = voxels >= _ASKED_SHARE * whole * VOLUMES_ML[level.name] * per_ml
        if level.is_vertebra and enough and left[level.verse_id] >= _LEFT_SHARE * voxels:
            asked.append(level)
    return asked


def _overlaps(item: Instance, truth: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256,): how many of an instance's voxels belong to each label of the truth."""
    return np.bincount(truth[item.box][item.occupancy >= 0.5], minlength=256)


def _true(row: NDArray[np.int64], named: Level) -> Level | None:
    """The level of the vertebra that an instance holds; `named` where it holds that one nearly as well."""
    if not row.any():
        return None
    return named if row[named.verse_id] >= _HELD_SHARE * row.max() else BY_VERSE_ID[int(row.argmax())]


def _votes(case: Case, asked: list[Level]) -> list[Level | None]:
    """The level that most claimed voxels of each asked vertebra say."""
    votes: list[Level | None] = []
    for level in asked:
        counts = np.bincount(case.claims[case.truth == level.verse_id], minlength=256)
        counts[0] = 0
        votes.append(BY_VERSE_ID.get(int(counts.argmax())))
    return votes


def _counted(votes: list[Level | None]) -> list[Level | None]:
    """Numbered on from the most cranial one, with the levels that most people have."""
    if not votes or votes[0] not in _COMMON:
        return [None] * len(votes)
    first = _COMMON.index(votes[0])
    rest: list[Level | None] = [*_COMMON[first:], *([None] * len(votes))]
    return rest[: len(votes)]


def _same(one: Level | None, other: Level) -> bool:
    return one == other


def levels_off(named: Level, true: Level) -> int:
    """How many levels `named` lies below `true`, those that most people lack not counted on the way."""
    upper, lower = sort_levels((named, true)) if named != true else (named, true)
    passed = sum(level.name not in RARE or level in (upper, lower) for level in LEVELS[upper.rank + 1 : lower.rank + 1])
    return passed if lower == named else -passed
