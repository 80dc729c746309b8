"""From instances to levels: the cheapest order-keeping path of instances x levels (first version).

Each instance pays -log of its share of class evidence for the level it gets. Levels rise strictly from head to tail.
A level that is passed over costs `SKIP_COST`, except T13 and L6, which most people lack. An instance may be left
unnamed, and so dropped, for `DROP_COST`, or for less where it is smaller than the median instance, in proportion.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vertebral.anatomy import Level
from vertebral.records import Instances, Spine, Vertebra

SKIP_COST = 2.0
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
    path = _cheapest_path(np.minimum(-np.log(shares + 1e-9), MAX_EVIDENCE_COST), drop_costs, levels)
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


def _cheapest_path(
    costs: NDArray[np.float64], drop_costs: NDArray[np.float64], levels: list[Level]
) -> list[int | None]:
    """`costs` (instances, levels), `drop_costs` (instances,) -> the level index of each instance, None if dropped.

    Dynamic programming over (instance, last level used): O(instances x levels^2).
    """
    count, width = costs.shape
    passed = np.concatenate([[0.0], np.cumsum([0.0 if level.name in RARE else SKIP_COST for level in levels])])
    best = np.full((count + 1, width + 1), math.inf)  # column 0: no level used yet
    best[0, 0] = 0.0
    came_from = np.zeros((count + 1, width + 1), int)
    for n in range(count):
        best[n + 1] = best[n] + drop_costs[n]
        came_from[n + 1] = -1
        for level in range(width):
            before = best[n, : level + 1].copy()
            before[1:] += passed[level] - passed[1 : level + 1]
            previous = int(np.argmin(before))
            total = before[previous] + costs[n, level]
            if total < best[n + 1, level + 1]:
                best[n + 1, level + 1] = total
                came_from[n + 1, level + 1] = previous
    path: list[int | None] = []
    column = int(np.argmin(best[count]))
    for n in range(count, 0, -1):
        previous = int(came_from[n, column])
        path.append(None if previous < 0 else column - 1)
        column = column if previous < 0 else previous
    return path[::-1]


def _gap_warnings(vertebrae: list[Vertebra]) -> list[str]:
    warnings = []
    for upper, lower in pairwise(vertebrae):
        if lower.level.rank - upper.level.rank > 1 + (upper.level.name == "T12") + (upper.level.name == "L5"):
            warnings.append(f"no vertebra was found between {upper.level.name} and {lower.level.name}")
    return warnings


def _text(point_mm: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.0f}" for value in point_mm)
