"""Vertebrae that the coarse network missed: in gaps along the spine and beyond its ends.

Where two neighbours lie apart by `WIDE` usual steps or more, the network looks between them. An answer that shares
little with others (Dice below `NEW_DICE`) and holds `NEW_SHARE` of its smaller neighbour is new. It looks a step beyond
either end as well, and goes on while what it finds there is new, lies where it was looked for (within half a step) and
has `NEW_EVIDENCE` of coarse evidence for a spine; never below the sacrum.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vertebral.instances.bone import find_bone
from vertebral.preprocess import box_on, occupancy_on
from vertebral.records import Evidence, Instance
from vertebral.refine.eye import Eye
from vertebral.refine.part import OWN, Part, Values, dice
from vertebral.volume import Grid

WIDE = 1.6
NEW_DICE = 0.3
NEW_SHARE = 0.4
NEW_EVIDENCE = 0.2


def find_missed(parts: list[Part], evidence: Evidence, eye: Eye, below: bool) -> list[Part]:
    """Return what lies between `parts`, none of them empty, and beyond them; beyond the last one only if `below`.

    Without two steps along the spine, of which the usual one is a median, nothing is looked for.
    """
    centres_mm = np.array([eye.grid.to_world(part.centroid()) for part in parts]).reshape(-1, 3)
    order = np.argsort(-centres_mm[:, 2])
    centres_mm, ordered = centres_mm[order], [parts[n] for n in order]
    if len(parts) < 3:
        return []
    new = _between(ordered, centres_mm, eye)
    spine: Values = find_bone(evidence).spine_probability.astype(np.float32) / np.float32(255)
    new += _beyond(ordered, new, centres_mm, eye, spine, evidence.grid)
    if below:
        new += _beyond(ordered[::-1], new, centres_mm[::-1], eye, spine, evidence.grid)
    return new


def _between(parts: list[Part], centres_mm: NDArray[np.float64], eye: Eye) -> list[Part]:
    steps_mm = np.linalg.norm(np.diff(centres_mm, axis=0), axis=1)
    new: list[Part] = []
    for n, step_mm in enumerate(steps_mm):
        near = np.delete(steps_mm, n)[max(0, n - 3) : n + 3]
        usual_mm = float(np.median(near)) if len(near) > 1 else np.inf
        missing = round(step_mm / usual_mm) - 1 if step_mm >= WIDE * usual_mm else 0
        for share in np.arange(1, missing + 1) / (missing + 1):
            part = eye.look_at(centres_mm[n] * (1 - share) + centres_mm[n + 1] * share)
            if _is_new(part, [*parts, *new], parts[n : n + 2]):
                new.append(part)
    return new


def _beyond(
    parts: list[Part], others: list[Part], centres_mm: NDArray[np.float64], eye: Eye, spine: Values, coarse: Grid
) -> list[Part]:
    """What follows beyond the first of `parts`; `spine` is the coarse probability of one."""
    usual_mm = float(np.median(np.linalg.norm(np.diff(centres_mm[:4], axis=0), axis=1)))
    last_mm, before_mm, neighbour = centres_mm[0], centres_mm[1], parts[0]
    new: list[Part] = []
    while True:
        aim_mm = last_mm + (last_mm - before_mm) * usual_mm / np.linalg.norm(last_mm - before_mm)
        voxel = eye.grid.to_voxel(aim_mm)
        if (voxel < 0).any() or (voxel > np.array(eye.grid.shape) - 1).any():
            return new
        part = eye.look_at(aim_mm)
        if not _is_new(part, [*parts, *others, *new], [neighbour]):
            return new
        centre_mm = eye.grid.to_world(part.centroid())
        if np.linalg.norm(centre_mm - aim_mm) > usual_mm / 2 or _mean_on(spine, part, coarse, eye.grid) < NEW_EVIDENCE:
            return new
        new.append(part)
        before_mm, last_mm, neighbour = last_mm, centre_mm, part


def _is_new(part: Part, others: Iterable[Part], neighbours: list[Part]) -> bool:
    least = NEW_SHARE * min(np.count_nonzero(other.own) for other in neighbours)
    return bool(np.count_nonzero(part.own) >= least) and all(dice(part, other) < NEW_DICE for other in others)


def _mean_on(values: Values, part: Part, coarse: Grid, fine: Grid) -> float:
    """The mean of `values`, on the coarse grid, over a part of the fine one."""
    item = Instance(part.values, part.box, np.zeros(0), (0.0, 0.0, 0.0), touches_border=False)
    box = box_on(item, fine, coarse)
    inside = occupancy_on(item, fine, coarse, box) >= OWN
    return float(values[box][inside].mean()) if inside.any() else 0.0
