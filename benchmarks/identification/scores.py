"""Score one named spine against the truth, together with two simple rivals."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from benchmarks.identification.cases import SPACING_MM, Case
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_VERSE_ID, LEVELS, Level
from vertebral.core.records import Instance, Spine
from vertebral.evaluation.naming import levels_off
from vertebral.stages.identify.priors import RARE, VOLUMES_ML

FOUND_DICE = 0.5
# A vertebra is expected if it has this share of its usual volume, and if this share of its voxels is still labelled.
_VOLUME_SHARE = 0.4
_LEFT_SHARE = 0.5
# An instance may have the level of another vertebra if it contains this share of the voxels that it has of its largest.
_HELD_SHARE = 0.5
_COMMON = [level for level in LEVELS if level.name not in RARE and level.is_vertebra]


@dataclass(frozen=True)
class NameScore:
    """`expected` vertebrae are still mostly labelled in the claims; `right` of them have the right name.

    `all_right`: every expected vertebra is inside a named instance, and every named instance has the level of a
    vertebra inside it: the largest, or another with at least half as many voxels. `shifts` counts named instances by
    the number of levels that their name is off (positive: too far down), 0 included. `found` vertebrae have a Dice of
    0.5 or more with a named instance; `named` counts the instances, `true` those that match a vertebra.
    `probabilities` are (confidence, right) of named instances that overlap the truth. The rivals: `vote` gives each
    expected vertebra the majority label of its voxels; `count` numbers them downwards from the first of these votes.
    """

    expected: int
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


def score(spine: Spine, case: Case) -> NameScore:
    """Score the spine that was named from the claims of `case`, on the same grid."""
    truth_voxels = np.bincount(case.truth.ravel(), minlength=256)
    expected = _expected(case, truth_voxels)
    rows = [_overlaps(vertebra.instance, case.truth) for vertebra in spine.vertebrae]
    overlaps = np.array(rows).reshape(-1, 256)
    overlaps[:, 0] = 0
    sizes = [np.count_nonzero(vertebra.instance.occupancy >= 0.5) for vertebra in spine.vertebrae]
    true_levels = [_true(row, v.level) for row, v in zip(overlaps, spine.vertebrae, strict=True)]
    dice = 2 * overlaps / np.maximum(np.array(sizes)[:, None] + truth_voxels[None], 1) if len(rows) else overlaps
    right, held = 0, True
    for level in expected:
        column = overlaps[:, level.verse_id] if len(rows) else np.zeros(1)
        best = int(column.argmax())
        right += bool(column[best] > 0 and spine.vertebrae[best].level == level)
        held &= bool(column[best] >= _LEFT_SHARE / 2 * truth_voxels[level.verse_id])
    pairs = [(v, true) for v, true in zip(spine.vertebrae, true_levels, strict=True) if true is not None]
    votes = _votes(case, expected)
    counted = _counted(votes)
    return NameScore(
        expected=len(expected),
        right=right,
        all_right=held and all(v.level == true for v, true in pairs),
        found=sum(bool((dice[:, level.verse_id] >= FOUND_DICE).any()) for level in expected) if len(rows) else 0,
        named=len(spine.vertebrae),
        true=int((dice.max(1) >= FOUND_DICE).sum()) if len(rows) else 0,
        shifts=dict(
            Counter(levels_off(v.level, true) for v, true in pairs if v.level.is_vertebra and true.is_vertebra)
        ),
        probabilities=tuple((v.confidence, v.level == true) for v, true in pairs),
        vote_right=sum(map(_same, votes, expected)),
        vote_all_right=all(map(_same, votes, expected)),
        count_right=sum(map(_same, counted, expected)),
        count_all_right=all(map(_same, counted, expected)),
    )


def _expected(case: Case, truth_voxels: NDArray[np.int64]) -> list[Level]:
    left = np.bincount(case.truth[case.claims > 0], minlength=256)
    per_ml = 1000 / SPACING_MM**3
    whole = np.median([truth_voxels[x.verse_id] / VOLUMES_ML[x.name] for x in case.levels if x.is_vertebra]) / per_ml
    expected = []
    for level in case.levels:
        voxels = truth_voxels[level.verse_id]
        enough = voxels >= _VOLUME_SHARE * whole * VOLUMES_ML[level.name] * per_ml
        if level.is_vertebra and enough and left[level.verse_id] >= _LEFT_SHARE * voxels:
            expected.append(level)
    return expected


def _overlaps(item: Instance, truth: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the voxels of an instance in each label of the truth; (256,)."""
    return np.bincount(truth[item.box][item.occupancy >= 0.5], minlength=256)


def _true(row: NDArray[np.int64], named: Level) -> Level | None:
    """Return the level with the most voxels in an instance, or `named` if it has at least half as many; else None."""
    if not row.any():
        return None
    return named if row[named.verse_id] >= _HELD_SHARE * row.max() else BY_VERSE_ID[int(row.argmax())]


def _votes(case: Case, expected: list[Level]) -> list[Level | None]:
    """Return the majority label of the claims in each expected vertebra."""
    votes: list[Level | None] = []
    for level in expected:
        counts = np.bincount(case.claims[case.truth == level.verse_id], minlength=256)
        counts[0] = 0
        votes.append(BY_VERSE_ID.get(int(counts.argmax())))
    return votes


def _counted(votes: list[Level | None]) -> list[Level | None]:
    """Number the vertebrae downwards from the most cranial vote, with the levels that most people have."""
    if not votes or votes[0] not in _COMMON:
        return [None] * len(votes)
    first = _COMMON.index(votes[0])
    rest: list[Level | None] = [*_COMMON[first:], *([None] * len(votes))]
    return rest[: len(votes)]


def _same(one: Level | None, other: Level) -> bool:
    return one == other
