"""From vertebrae on a coarse grid to the same ones on a fine grid: one network looks at each of them in its box.

The network sees the CT around the centroid that the coarse result gives a vertebra, and a mark in the middle; it gives
the probability that a voxel is of the marked vertebra, whatever shape the coarse result has. Sacrum and coccyx, which
the box does not hold, stay as the coarse result has them. Rules, in order:
1. The network looks a second time, from the centroid of its first answer (`eye`).
2. An answer that shares too little with the coarse vertebra (Dice below `MIN_DICE`) is not taken: the coarse one stays,
   with a warning.
3. Two answers that are mostly the same (Dice of `SAME_DICE` or more) are one vertebra: the one that agrees better with
   its coarse vertebra stays.
4. Levels are named provisionally, and the network looks for what was missed, in gaps and beyond the ends (`missed`).
5. Of each answer the largest part stays, with the parts that hold at least `MIN_PART_SHARE` of it (`part`).
6. A voxel is of the vertebra with the highest probability, if that is one half or more. What a vertebra then has apart
   from its largest part (rule 5) is left to its neighbours.
7. A vertebra whose centroid neighbours have moved by more than `MOVED_MM` is looked at once more, from there.
8. Rules 4 and 7 are gone through `ROUNDS` times, since what moves one vertebra may move the next or open a gap; beyond
   the ends only the first time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import Level
from vertebral.core.errors import ModelError
from vertebral.core.records import Evidence, Instance, Instances
from vertebral.core.volume import Grid, Volume
from vertebral.models.config import ModelConfig
from vertebral.models.devices import Precision, autocast
from vertebral.stages.identify import identify
from vertebral.stages.instances import class_masses
from vertebral.stages.refine.candidate import OWN, SAME_DICE, Part, dice, kept_apart, without_crumbs
from vertebral.stages.refine.missing_vertebrae import find_missed
from vertebral.stages.refine.predictor import Eye
from vertebral.stages.restore import box_on, occupancy_on

MIN_DICE = 0.25
MOVED_MM = 2.0
ROUNDS = 2
_MARGIN_VOXELS = 2


@dataclass(frozen=True)
class _Found:
    """A coarse instance, or what it `missed`, its part on the fine grid and the Dice with which they agree."""

    item: Instance
    part: Part
    overlap: float
    missed: bool = False


def refine(
    instances: Instances,
    evidence: Evidence,
    scan: Volume,
    network: torch.nn.Module,
    config: ModelConfig,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
    precision: Precision = "auto",
) -> Instances:
    """Return `instances` on a grid of the refiner's spacing that covers them, from head to tail.

    `scan` is the CT in HU that they were found in, any orientation; `evidence` is what they were found by, and gives
    the new shapes their class masses. The network takes (1, 2, I, J, K) of `config.inference.window`, the CT and the
    mark in [0, 1], and gives logits (1, 2, I, J, K); it goes to `device` and is left in eval mode. `progress` is called
    with the finished share in (0, 1]. Occupancies keep what `instances` promises: 0.5 or more in a vertebra's own
    voxels and nowhere else, no voxel owned twice.

    Raises ModelError where `config` is no refiner's or the network's output does not fit or is not finite.
    """
    if not config.network.guided:
        raise ModelError(f"model {config.name}: finds vertebrae, but cannot refine them; give a model that is guided")
    if not instances.items:
        return instances
    ras = scan.to_ras()
    eye = Eye(network, config, device, ras, [box_on(item, instances.grid, ras.grid) for item in instances.items])
    found: list[_Found] = []
    kept: list[Instance] = []
    with torch.inference_mode(), autocast(device, precision):
        for done, item in enumerate(instances.items, start=1):
            coarse = _coarse_part(item, instances.grid, eye.grid)
            entry = _Found(item, coarse, 1.0)
            if _is_vertebra(item, instances):
                answer = eye.look_at(item.centroid_mm)
                entry = _Found(item, answer, dice(answer, coarse))
                if entry.overlap < MIN_DICE:
                    entry = _Found(item, coarse, entry.overlap)
                    kept.append(item)
            found.append(entry)
            if progress is not None:
                progress(done / len(instances.items))
        single, twice = _without_twins(found)
        for round_ in range(ROUNDS):
            single = _with_missed(single, instances, evidence, eye, ends=round_ == 0)
            single = _seen_again(single, instances, eye)
    parts = [entry.part for entry in single]
    missed = [entry.item for entry in single if entry.missed]
    items: list[Instance] = []
    lost: list[Instance] = []
    for entry, part in zip(single, kept_apart(parts), strict=True):
        if part.own.any():
            items.append(_with_part(entry.item, part, eye))
        else:
            lost.append(entry.item)
    notes = [
        f"{what}: {', '.join(map(_text, where))} mm (RAS)"
        for what, where in (
            ("refinement led too far from the coarse result, which was kept", kept),
            ("found twice by the coarse network, taken as one vertebra", twice),
            ("missed by the coarse network, found beside its neighbours", missed),
            ("nothing was left after refinement", lost),
        )
        if where
    ]
    items.sort(key=lambda item: -item.centroid_mm[2])
    refined = Instances(tuple(items), instances.levels, eye.grid, (*instances.warnings, *notes))
    return _with_class_masses(refined, evidence)


def refine_at(
    centres_mm: Sequence[Sequence[float]],
    scan: Volume,
    network: torch.nn.Module,
    config: ModelConfig,
    device: torch.device,
    precision: Precision = "auto",
) -> Instances:
    """Return the vertebra at each of `centres_mm` (RAS), set by hand, in their order and without evidence of a level.

    Otherwise as `refine`. Raises ModelError where there is no vertebra at a centre.
    """
    ras = scan.to_ras()
    voxels = np.rint([ras.grid.to_voxel(np.array(centre)) for centre in centres_mm]).astype(int)
    eye = Eye(network, config, device, ras, [tuple(slice(v, v + 1) for v in voxel) for voxel in voxels])
    with torch.inference_mode(), autocast(device, precision):
        parts = [eye.look_at(centre) for centre in centres_mm]
    items = []
    for centre, part in zip(centres_mm, kept_apart(parts), strict=True):
        if not part.own.any():
            where = ", ".join(f"{value:.0f}" for value in centre)
            raise ModelError(f"no vertebra was found at ({where}) mm (RAS): set its centre anew")
        items.append(_with_part(_instance(part, np.zeros(0), eye.grid), part, eye))
    return Instances(tuple(items), (), eye.grid)


def _levels(found: list[_Found], instances: Instances, evidence: Evidence, eye: Eye) -> list[Level | None]:
    """The levels of what was found so far; None where it fits none."""
    items = [_with_part(entry.item, part, eye) for entry, part in _with_own_voxels(found)]
    order = sorted(range(len(items)), key=lambda n: -items[n].centroid_mm[2])
    ordered = tuple(items[n] for n in order)
    named = identify(_with_class_masses(replace(instances, items=ordered, grid=eye.grid), evidence))
    level_at = {vertebra.instance.centroid_mm: vertebra.level for vertebra in named.vertebrae}
    return [level_at.get(item.centroid_mm) for item in items]


def _with_own_voxels(found: list[_Found]) -> list[tuple[_Found, Part]]:
    """Each with its part once neighbours have their share of it, or its whole part where they would have all."""
    left = kept_apart([entry.part for entry in found])
    return [(entry, part if part.own.any() else entry.part) for entry, part in zip(found, left, strict=True)]


def _is_vertebra(item: Instance, instances: Instances) -> bool:
    return instances.levels[int(np.argmax(item.class_mass[1:]))].is_vertebra


def _coarse_part(item: Instance, coarse: Grid, fine: Grid) -> Part:
    box = box_on(item, coarse, fine)
    return Part(without_crumbs(occupancy_on(item, coarse, fine, box)), box)


def _instance(part: Part, class_mass: NDArray[np.float64], grid: Grid) -> Instance:
    x, y, z = (float(value) for value in grid.to_world(part.centroid()))
    return Instance(part.values, part.box, class_mass, (x, y, z), touches_border=False)


def _without_twins(found: list[_Found]) -> tuple[list[_Found], list[Instance]]:
    """Rule 3. Also returns the twins that were left out."""
    kept: list[_Found] = []
    twice = []
    for entry in sorted(found, key=lambda entry: -entry.overlap):
        if any(dice(entry.part, other.part) >= SAME_DICE for other in kept):
            twice.append(entry.item)
        else:
            kept.append(entry)
    return kept, twice


def _with_missed(found: list[_Found], instances: Instances, evidence: Evidence, eye: Eye, ends: bool) -> list[_Found]:
    """Rule 4: `found`, some of it seen anew, and what it misses."""
    seen = [entry for entry in found if entry.part.own.any()]
    levels = _levels(seen, instances, evidence, eye)
    anew, new = find_missed([entry.part for entry in seen], levels, evidence, eye, ends)
    masses = np.zeros(len(instances.levels) + 1)
    return [
        *(entry for entry in found if not entry.part.own.any()),
        *(replace(entry, part=part) for entry, part in zip(seen, anew, strict=True)),
        *(_Found(_instance(part, masses, eye.grid), part, 1.0, missed=True) for part in new),
    ]


def _seen_again(found: list[_Found], instances: Instances, eye: Eye) -> list[_Found]:
    """Rule 7."""
    again = []
    for entry, left in zip(found, kept_apart([entry.part for entry in found]), strict=True):
        answer = entry.part
        if left.own.any() and (entry.missed or _is_vertebra(entry.item, instances)):
            moved_mm = np.linalg.norm(left.centroid() - entry.part.centroid()) * eye.grid.spacing_mm[0]
            if moved_mm > MOVED_MM:
                answer = eye.look_at(eye.grid.to_world(left.centroid()).tolist())
        again.append(replace(entry, part=answer) if dice(answer, left) >= MIN_DICE else entry)
    return again


def _with_part(item: Instance, part: Part, eye: Eye) -> Instance:
    """`item` with its own voxels of `part` and a margin around them, and whether the border of the scan cuts it."""
    own = part.own
    inner = ndimage.find_objects(own.astype(np.uint8))[0]
    box = tuple(
        slice(max(0, s.start - _MARGIN_VOXELS), min(n, s.stop + _MARGIN_VOXELS))
        for s, n in zip(inner, own.shape, strict=True)
    )
    near = ndimage.binary_dilation(own[box], ndimage.generate_binary_structure(3, 3), iterations=_MARGIN_VOXELS)
    i, j, k = (slice(s.start + p.start, s.stop + p.start) for s, p in zip(box, part.box, strict=True))
    voxels = np.argwhere(own[box]) + np.array([i.start, j.start, k.start])
    x, y, z = eye.grid.to_world(voxels.mean(0))
    # A fine voxel reaches half its size around its centre; the scan knows nothing beyond its outermost centres.
    on_scan = eye.scan.to_voxel(eye.grid.to_world(voxels))
    reach = np.array(eye.grid.spacing_mm) / np.array(eye.scan.spacing_mm) / 2
    cut = bool((on_scan < reach).any() or (on_scan > np.array(eye.scan.shape) - 1 - reach).any())
    occupancy = np.where(near, part.values[box], np.float32(0))
    place = (float(x), float(y), float(z))
    return replace(item, occupancy=occupancy, box=(i, j, k), centroid_mm=place, touches_border=cut)


def _with_class_masses(instances: Instances, evidence: Evidence) -> Instances:
    """The class masses of the new shapes; one too small for the evidence's grid keeps the one it has."""
    owner = np.zeros(evidence.grid.shape, np.int32)
    for number, item in enumerate(instances.items, start=1):
        box = box_on(item, instances.grid, evidence.grid)
        inside = occupancy_on(item, instances.grid, evidence.grid, box) >= OWN
        owner[box][inside] = number
    masses = class_masses(evidence, owner, len(instances.items))
    items = [
        replace(item, class_mass=mass) if mass[1:].any() else item
        for item, mass in zip(instances.items, masses[1:], strict=True)
    ]
    return replace(instances, items=tuple(items))


def _text(item: Instance) -> str:
    return f"({', '.join(f'{value:.0f}' for value in item.centroid_mm)})"
