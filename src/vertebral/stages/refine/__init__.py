"""From vertebrae on a coarse grid to the same ones on a fine grid: one network refines each of them in its own box.

The network sees the CT around the centroid of a coarse vertebra and a mark in the middle. It returns the probability
that a voxel belongs to the marked vertebra; the coarse shape plays no role. Sacrum and coccyx do not fit into the box
and keep their coarse shape. Rules, in order (thresholds: `RefineRules`):
1. The network predicts a second time, from the centroid of its first answer (`predictor`).
2. An answer that shares too little with the coarse vertebra (Dice below `min_dice`) is rejected: the coarse shape
   stays, with a warning.
3. Two answers that mostly coincide (Dice of `same_dice` or more) are one vertebra: the one that agrees better with its
   coarse vertebra stays.
4. Levels are assigned provisionally, and the network looks for missing vertebrae in gaps and beyond the ends
   (`missing_vertebrae`).
5. Of each answer the largest component stays, and those that have at least `min_island_share` of it (`candidate`).
6. A voxel belongs to the vertebra with the highest probability, if that is at least 0.5. What a vertebra then has apart
   from its largest component (rule 5) is left to its neighbours.
7. If its neighbours move the centroid of a vertebra by more than `moved_mm`, it is predicted again from there.
8. Rules 4 and 7 run for `rounds` rounds, because moving one vertebra may move the next or open a gap; beyond the ends
   the network looks in the first round only.
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
from vertebral.stages.instances import class_masses
from vertebral.stages.refine.candidate import OWN, Candidate, overlap_dice, resolve_overlaps, without_islands
from vertebral.stages.refine.missing_vertebrae import find_missing
from vertebral.stages.refine.predictor import Predictor
from vertebral.stages.refine.rules import RefineRules
from vertebral.stages.restore import box_on, occupancy_on

__all__ = ["NameLevels", "RefineRules", "refine", "refine_at"]

_MARGIN_VOXELS = 2
NameLevels = Callable[[Instances], Sequence[Level | None]]


@dataclass(frozen=True)
class _Refined:
    """A coarse instance, or one that was `missing`, its candidate on the fine grid and the Dice of the two."""

    item: Instance
    candidate: Candidate
    overlap: float
    missing: bool = False


@dataclass(frozen=True)
class _Context:
    """What all rules need: the coarse result, its evidence, the network, and how levels are assigned provisionally."""

    instances: Instances
    evidence: Evidence
    predictor: Predictor
    name_levels: NameLevels


def refine(
    instances: Instances,
    evidence: Evidence,
    scan: Volume,
    network: torch.nn.Module,
    config: ModelConfig,
    device: torch.device,
    name_levels: NameLevels,
    progress: Callable[[float], None] = lambda share: None,
    precision: Precision = "auto",
    rules: RefineRules = RefineRules(),
) -> Instances:
    """Return `instances` on a grid of the refiner's spacing that covers them, from head to tail.

    `scan` is the CT in HU that they were found in, any orientation; `evidence` gives the new shapes their class masses.
    The network takes (1, 2, I, J, K) of `config.inference.window`, the CT and the mark in [0, 1], and returns logits
    (1, 2, I, J, K); it is moved to `device` and left in eval mode. `name_levels` assigns a provisional level, or None,
    to each of the instances found so far, given from head to tail (`identify.provisional_levels`). `progress` is called
    with the finished share in (0, 1]. As after `instances`, occupancies are 0.5 or more in a vertebra's own voxels and
    nowhere else, and no voxel belongs to two.

    Raises ModelError if `config` is not a refiner's, or if the network's output does not fit or is not finite.
    """
    if not config.network.guided:
        raise ModelError(f"model {config.name}: not a refiner; choose a model with `guided: true`")
    if not instances.items:
        return instances
    ras = scan.to_ras()
    boxes = [box_on(item, instances.grid, ras.grid) for item in instances.items]
    predictor = Predictor(network, config, device, ras, boxes, rules)
    context = _Context(instances, evidence, predictor, name_levels)
    with torch.inference_mode(), autocast(device, precision):
        refined = []
        for done, item in enumerate(instances.items, start=1):
            refined.append(_refined(item, context))
            progress(done / len(instances.items))
        rejected = [entry.item for entry in refined if entry.overlap < rules.min_dice]
        single, duplicates = _without_duplicates(refined, rules)
        for round_ in range(rules.rounds):
            single = _with_missing(single, context, ends=round_ == 0)
            single = _predicted_again(single, context)
    resolved = list(zip(single, _resolved(single, rules), strict=True))
    items = [_with_candidate(entry.item, one, predictor) for entry, one in resolved if one.own.any()]
    notes = [
        f"{what}: {', '.join(map(_point_text, where))} mm (RAS)"
        for what, where in (
            ("refinement rejected because its mask differed too much; the coarse mask was kept", rejected),
            ("vertebra found twice by the coarse network, duplicate removed", duplicates),
            ("vertebra missing from the coarse result, added by the refiner", [e.item for e in single if e.missing]),
            (
                "vertebra removed because refinement left no voxels of it",
                [entry.item for entry, one in resolved if not one.own.any()],
            ),
        )
        if where
    ]
    items.sort(key=lambda item: -item.centroid_mm[2])
    result = Instances(tuple(items), instances.levels, predictor.grid, (*instances.warnings, *notes))
    return _with_class_masses(result, evidence)


def refine_at(
    centres_mm: Sequence[Sequence[float]],
    scan: Volume,
    network: torch.nn.Module,
    config: ModelConfig,
    device: torch.device,
    precision: Precision = "auto",
    rules: RefineRules = RefineRules(),
) -> Instances:
    """Return the vertebra at each of `centres_mm` (RAS), set by hand, in their order and without evidence of a level.

    Otherwise as `refine`. Raises ModelError if there is no vertebra at a centre.
    """
    ras = scan.to_ras()
    voxels = np.rint([ras.grid.to_voxel(np.array(centre)) for centre in centres_mm]).astype(int)
    boxes = [tuple(slice(v, v + 1) for v in voxel) for voxel in voxels]
    predictor = Predictor(network, config, device, ras, boxes, rules)
    with torch.inference_mode(), autocast(device, precision):
        candidates = [predictor.predict_at(centre) for centre in centres_mm]
    items = []
    for centre, one in zip(centres_mm, resolve_overlaps(candidates, rules.min_island_share), strict=True):
        if not one.own.any():
            where = ", ".join(f"{value:.0f}" for value in centre)
            raise ModelError(f"no vertebra was found at ({where}) mm (RAS); move this centre into a vertebra")
        items.append(_with_candidate(_instance(one, np.zeros(0), predictor.grid), one, predictor))
    return Instances(tuple(items), (), predictor.grid)


def _refined(item: Instance, context: _Context) -> _Refined:
    """Rules 1 and 2."""
    predictor = context.predictor
    box = box_on(item, context.instances.grid, predictor.grid)
    occupancy = occupancy_on(item, context.instances.grid, predictor.grid, box)
    coarse = Candidate(without_islands(occupancy, predictor.rules.min_island_share), box)
    if not _is_vertebra(item, context.instances):
        return _Refined(item, coarse, 1.0)
    answer = predictor.predict_at(item.centroid_mm)
    overlap = overlap_dice(answer, coarse)
    return _Refined(item, coarse if overlap < predictor.rules.min_dice else answer, overlap)


def _without_duplicates(refined: list[_Refined], rules: RefineRules) -> tuple[list[_Refined], list[Instance]]:
    """Rule 3. Also returns the duplicates that were left out."""
    kept: list[_Refined] = []
    duplicates = []
    for entry in sorted(refined, key=lambda entry: -entry.overlap):
        if any(overlap_dice(entry.candidate, other.candidate) >= rules.same_dice for other in kept):
            duplicates.append(entry.item)
        else:
            kept.append(entry)
    return kept, duplicates


def _with_missing(refined: list[_Refined], context: _Context, ends: bool) -> list[_Refined]:
    """Rule 4: `refined`, some of it predicted anew, and the vertebrae missing from it."""
    seen = [entry for entry in refined if entry.candidate.own.any()]
    candidates = [entry.candidate for entry in seen]
    levels = _provisional_levels(seen, context)
    anew, new = find_missing(candidates, levels, context.evidence, context.predictor, ends)
    masses = np.zeros(len(context.instances.levels) + 1)
    return [
        *(entry for entry in refined if not entry.candidate.own.any()),
        *(replace(entry, candidate=one) for entry, one in zip(seen, anew, strict=True)),
        *(_Refined(_instance(one, masses, context.predictor.grid), one, 1.0, missing=True) for one in new),
    ]


def _provisional_levels(refined: list[_Refined], context: _Context) -> list[Level | None]:
    """Return the level of each entry, as far as it is known yet; None where it fits none.

    A candidate has the voxels that its neighbours leave it, or all of its own if they would leave none.
    """
    predictor = context.predictor
    left = _resolved(refined, predictor.rules)
    items = [
        _with_candidate(entry.item, one if one.own.any() else entry.candidate, predictor)
        for entry, one in zip(refined, left, strict=True)
    ]
    order = sorted(range(len(items)), key=lambda n: -items[n].centroid_mm[2])
    ordered = replace(context.instances, items=tuple(items[n] for n in order), grid=predictor.grid)
    levels = context.name_levels(_with_class_masses(ordered, context.evidence))
    level_at = dict(zip(order, levels, strict=True))
    return [level_at[n] for n in range(len(items))]


def _predicted_again(refined: list[_Refined], context: _Context) -> list[_Refined]:
    """Rule 7."""
    predictor, rules = context.predictor, context.predictor.rules
    again = []
    for entry, left in zip(refined, _resolved(refined, rules), strict=True):
        answer = entry.candidate
        if left.own.any() and (entry.missing or _is_vertebra(entry.item, context.instances)):
            moved_mm = np.linalg.norm(left.centroid() - answer.centroid()) * predictor.grid.spacing_mm[0]
            if moved_mm > rules.moved_mm:
                answer = predictor.predict_at(predictor.grid.to_world(left.centroid()).tolist())
        again.append(replace(entry, candidate=answer) if overlap_dice(answer, left) >= rules.min_dice else entry)
    return again


def _resolved(refined: list[_Refined], rules: RefineRules) -> list[Candidate]:
    return resolve_overlaps([entry.candidate for entry in refined], rules.min_island_share)


def _is_vertebra(item: Instance, instances: Instances) -> bool:
    return instances.levels[int(np.argmax(item.class_mass[1:]))].is_vertebra


def _instance(candidate: Candidate, class_mass: NDArray[np.float64], grid: Grid) -> Instance:
    x, y, z = (float(value) for value in grid.to_world(candidate.centroid()))
    return Instance(candidate.values, candidate.box, class_mass, (x, y, z), touches_border=False)


def _with_candidate(item: Instance, candidate: Candidate, predictor: Predictor) -> Instance:
    """Return `item` with the own voxels of `candidate`, a margin around them, and whether the scan's border cuts it."""
    own = candidate.own
    inner = ndimage.find_objects(own.astype(np.uint8))[0]
    box = tuple(
        slice(max(0, s.start - _MARGIN_VOXELS), min(n, s.stop + _MARGIN_VOXELS))
        for s, n in zip(inner, own.shape, strict=True)
    )
    near = ndimage.binary_dilation(own[box], ndimage.generate_binary_structure(3, 3), iterations=_MARGIN_VOXELS)
    i, j, k = (slice(s.start + c.start, s.stop + c.start) for s, c in zip(box, candidate.box, strict=True))
    voxels = np.argwhere(own[box]) + np.array([i.start, j.start, k.start])
    grid, scan = predictor.grid, predictor.scan
    x, y, z = grid.to_world(voxels.mean(0))
    # A fine voxel extends half its size around its centre; the scan has no values beyond its outermost centres.
    on_scan = scan.to_voxel(grid.to_world(voxels))
    half = np.array(grid.spacing_mm) / np.array(scan.spacing_mm) / 2
    cut = bool((on_scan < half).any() or (on_scan > np.array(scan.shape) - 1 - half).any())
    occupancy = np.where(near, candidate.values[box], np.float32(0))
    centroid_mm = (float(x), float(y), float(z))
    return replace(item, occupancy=occupancy, box=(i, j, k), centroid_mm=centroid_mm, touches_border=cut)


def _with_class_masses(instances: Instances, evidence: Evidence) -> Instances:
    """Return the new shapes with their class masses; one too small for the evidence's grid keeps its old ones."""
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


def _point_text(item: Instance) -> str:
    return f"({', '.join(f'{value:.0f}' for value in item.centroid_mm)})"
