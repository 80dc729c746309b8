"""Scores of names (VerSe's and stricter ones), and of vertebrae matched whatever their names."""

from collections import Counter

import numpy as np

from vertebral.core.anatomy import BY_VERSE_ID, LEVELS, Level, sort_levels
from vertebral.evaluation.case import Matching, Naming
from vertebral.evaluation.overlaps import OverlapCounts
from vertebral.evaluation.settings import HIT_MM, LEAST_SHARED, MATCH_IOU
from vertebral.stages.identify.priors import RARE


def hits(counts: OverlapCounts, found: tuple[Level, ...], truth: tuple[Level, ...]) -> dict[Level, float]:
    """Return the levels that VerSe counts as identified, with the distance of their centroids in mm.

    As in its official code (anjany/verse, utils/eval_utilities.py): of the levels in both maps, those whose predicted
    centroid is within 20 mm of its own reference centroid and nearer to it than to that of any other level in both.
    """
    both = [level for level in truth if level in found]
    if not both:
        return {}
    ids = [level.verse_id for level in both]
    apart = np.linalg.norm(counts.ours_mm[ids][:, None] - counts.theirs_mm[ids][None], axis=2)
    own = np.diagonal(apart)
    near = (apart.argmin(1) == np.arange(len(both))) & (own <= HIT_MM)
    return {level: float(mm) for level, mm, right in zip(both, own, near, strict=True) if right}


def true_levels(counts: OverlapCounts, found: tuple[Level, ...]) -> dict[Level, Level | None]:
    """Map each predicted vertebra to the reference vertebra that contains most of it; None below `LEAST_SHARED`."""
    result: dict[Level, Level | None] = {}
    for level in found:
        row = counts.voxels[level.verse_id].copy()
        size = row.sum()
        row[0] = 0
        best = int(row.argmax())
        result[level] = BY_VERSE_ID[best] if row[best] >= LEAST_SHARED * size else None
    return result


def name_scores(
    counts: OverlapCounts, found: tuple[Level, ...], truth: tuple[Level, ...], cut: tuple[Level, ...]
) -> Naming | None:
    """Score the names; None if there is no vertebra in either map."""
    if not found and not truth:
        return None
    hit, true_level_of = hits(counts, found, truth), true_levels(counts, found)
    whole = [level for level in truth if level not in cut]
    both = [level.verse_id for level in truth if level in found]
    apart = np.linalg.norm(counts.ours_mm[both] - counts.theirs_mm[both], axis=1)
    judged = [level for level in found if true_level_of[level] not in cut]
    true = {level for level in hit if true_level_of[level] == level}
    right = sum(level in true for level in whole)
    recall = right / len(whole) if whole else None
    precision = right / len(judged) if judged else None
    pairs = [(level, other) for level, other in true_level_of.items() if other is not None]
    every = right == len(whole) and all(other == level for level, other in true_level_of.items())
    return Naming(
        reference=len(truth),
        hits=len(hit),
        id_rate=len(hit) / len(truth) if truth else None,
        localisation_mm=float(apart.mean()) if both else None,
        recall=recall,
        precision=precision,
        f1=2 * right / (len(whole) + len(judged)) if whole or judged else None,
        all_right=every if whole or judged else None,
        shifts={f"{by:+d}": n for by, n in sorted(Counter(levels_off(ours, true) for ours, true in pairs).items())},
        false_positives=len(true_level_of) - len(pairs),
    )


def match(
    counts: OverlapCounts, found: tuple[Level, ...], truth: tuple[Level, ...], cut: tuple[Level, ...]
) -> Matching | None:
    """Return the panoptic quality of the vertebrae, whatever their names; None if there are none in either map."""
    true_level_of = true_levels(counts, found)
    whole = [level for level in truth if level not in cut]
    judged = [level for level in found if true_level_of[level] not in cut]
    if not whole and not judged:
        return None
    ious = []
    dices = []
    for level in judged:
        for other in whole:
            shared = int(counts.voxels[level.verse_id, other.verse_id])
            total = int(counts.ours[level.verse_id] + counts.theirs[other.verse_id])
            if shared > MATCH_IOU * (total - shared):
                ious.append(shared / (total - shared))
                dices.append(2 * shared / total)
    quality = 2 * len(ious) / (len(whole) + len(judged))
    mean_iou = float(np.mean(ious)) if ious else None
    return Matching(
        pairs=len(ious),
        missing=len(whole) - len(ious),
        surplus=len(judged) - len(ious),
        pq=quality * mean_iou if mean_iou is not None else 0.0,
        sq=mean_iou,
        rq=quality,
        dice=float(np.mean(dices)) if dices else None,
    )


def levels_off(named: Level, true: Level) -> int:
    """Return how many levels `named` is below `true`; T13 and L6, which most people lack, count only at the ends."""
    upper, lower = sort_levels((named, true)) if named != true else (named, true)
    passed = sum(level.name not in RARE or level in (upper, lower) for level in LEVELS[upper.rank + 1 : lower.rank + 1])
    return passed if lower == named else -passed
