"""From instances to levels: the cheapest order-keeping path of instances x levels.

Each instance pays -log of its share of class evidence for the level it gets. Levels rise strictly from head to tail.
Between two instances in a row as many levels are passed over as the gap between them has room for, counted in usual
steps along the spine; each one more or fewer costs `SKIP_COST`. T13 and L6, which most people lack, may be passed over
freely and cost `RARE_COST` where they are used. An instance may be left unnamed, and so dropped, for `DROP_COST`, or
for less where it is smaller than the median instance, in proportion.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vertebral.anatomy import Level
from vertebral.records import Instances, Spine, Vertebra

SKIP_COST = 4.0
RARE_COST = 2.0
DROP_COST = 40.0
MAX_EVIDENCE_COST = 5.0
RARE = ("T13", "L6")


def identify(instances: Instances) -> Spine:
    """Name each instance. No level is used twice and the order from head to tail is anatomical."""
    warnings = list(instances.warnings)
    if not instances.items:
        warnings.append("no vertebrae were found")
        return Spine((), instances.grid, tuple(warnings))
    order = sorted(range(len(instances.levels)), key=lambda n: instances.levels[n].rank)
    levels = [instances.levels[n] for n in order]
    shares = np.stack([_shares(item.class_mass)[order] for item in instances.items])
    sizes = np.array([item.class_mass[1:].sum() for item in instances.items])
    drop_costs = DROP_COST * np.minimum(1.0, sizes / max(float(np.median(sizes)), 1e-9))
    costs = np.minimum(-np.log(shares + 1e-9), MAX_EVIDENCE_COST)
    path = _cheapest_path(costs, drop_costs, _room([item.centroid_mm for item in instances.items]), levels)
    vertebrae, overruled = [], []
    for item, share, chosen in zip(instances.items, shares, path, strict=True):
        if chosen is None:
            warnings.append(f"a part at {_text(item.centroid_mm)} mm (RAS) fits no level in order and was dropped")
            continue
        vertebrae.append(Vertebra(levels[chosen], float(share[chosen]), item))
        if share[chosen] < share.max():
            overruled.append(levels[chosen].name)
    warnings += _gap_warnings(vertebrae)
    if overruled:
        warnings.append(f"named by the order of the spine, against the network's own guess: {', '.join(overruled)}")
    return Spine(tuple(vertebrae), instances.grid, tuple(warnings))


def _shares(class_mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each level in the evidence of one instance, background left out."""
    total = class_mass[1:].sum()
    return class_mass[1:] / total if total > 0 else np.full(len(class_mass) - 1, 1 / (len(class_mass) - 1))


def _room(centroids_mm: list[tuple[float, float, float]]) -> NDArray[np.int64]:
    """(N, N): how many vertebrae have room between instances m < n; none where too few steps tell what is usual."""
    steps_mm = np.linalg.norm(np.diff(np.array(centroids_mm), axis=0), axis=1)
    usual = []
    for n in range(len(steps_mm)):
        near = np.delete(steps_mm, n)[max(0, n - 3) : n + 3]
        usual.append(float(np.median(near)) if len(near) > 1 else math.inf)
    along = np.concatenate([[0.0], np.cumsum(steps_mm / np.maximum(usual, 1e-9))])
    room: NDArray[np.int64] = np.maximum(0, np.rint(along[None] - along[:, None]) - 1).astype(np.int64)
    return room


def _cheapest_path(
    costs: NDArray[np.float64], drop_costs: NDArray[np.float64], room: NDArray[np.int64], levels: list[Level]
) -> list[int | None]:
    """`costs` (N, levels), `drop_costs` (N,), `room` (N, N) -> the level index of each instance, None if dropped.

    Dynamic programming over (instance, its level): O(N^2 x levels^2).
    """
    count, width = costs.shape
    rare = np.array([level.name in RARE for level in levels])
    dropped = np.concatenate([[0.0], np.cumsum(drop_costs)])
    # Between levels a < b: as many are passed as lie between, those that are rare or not.
    index = np.arange(width)
    most = index[None] - index[:, None] - 1
    before = np.concatenate([[0], np.cumsum(rare)])
    least = most - (before[index][None] - before[index + 1][:, None])
    own = costs + RARE_COST * rare
    best = own + dropped[:count, None]
    came_from = np.full((count, width, 2), -1)
    for n in range(count):
        for m in range(n):
            surplus = np.maximum(room[m, n] - most, 0) + np.maximum(least - room[m, n], 0)
            total = best[m][:, None] + dropped[n] - dropped[m + 1] + SKIP_COST * surplus + own[n][None]
            total = np.where(most >= 0, total, math.inf)
            cheaper = total.min(0) < best[n]
            came_from[n][cheaper] = np.stack([np.full(width, m), total.argmin(0)], axis=1)[cheaper]
            best[n] = np.minimum(best[n], total.min(0))
    ends = best + (dropped[-1] - dropped[1:])[:, None]
    path: list[int | None] = [None] * count
    n, level = (int(value) for value in np.unravel_index(ends.argmin(), ends.shape))
    if ends[n, level] > dropped[-1]:
        return path
    while n >= 0:
        path[n] = level
        n, level = (int(value) for value in came_from[n, level])
    return path


def _gap_warnings(vertebrae: list[Vertebra]) -> list[str]:
    warnings = []
    for upper, lower in pairwise(vertebrae):
        if lower.level.rank - upper.level.rank > 1 + (upper.level.name == "T12") + (upper.level.name == "L5"):
            warnings.append(f"no vertebra was found between {upper.level.name} and {lower.level.name}")
    return warnings


def _text(point_mm: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.0f}" for value in point_mm)
