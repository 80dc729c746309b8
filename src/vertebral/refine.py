"""From vertebrae on a coarse grid to the same ones on a fine grid: one network looks at each of them in its box.

The network sees the CT around the centroid that the coarse result gives a vertebra, and a mark in the middle; it gives
the probability that a voxel is of the marked vertebra, whatever shape the coarse result has. Sacrum and coccyx,
which the box does not hold, stay as the coarse result has them. Rules, in order:
1. The network looks a second time, from the centroid of its first answer.
2. An answer that shares too little with the coarse vertebra (Dice below `MIN_DICE`) is not taken: the coarse one stays,
   with a warning.
3. Two answers that are mostly the same (Dice of `SAME_DICE` or more) are one vertebra: the one that agrees better with
   its coarse vertebra stays.
4. Where two neighbours lie apart by `WIDE` usual steps or more, the network looks between them for what was missed. An
   answer that shares little with others (Dice below `NEW_DICE`) and holds `NEW_SHARE` of its smaller neighbour is new.
5. Of each answer the largest part stays, with the parts that hold at least `MIN_PART_SHARE` of it.
6. A voxel is of the vertebra with the highest probability, if that is one half or more. What a vertebra then has apart
   from its largest part (rule 5) is left to its neighbours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.config import ModelConfig
from vertebral.errors import ModelError
from vertebral.inference import Precision, air_values, autocast, cut_window
from vertebral.instances import class_masses
from vertebral.preprocess import box_on, centre_mark, occupancy_on, prepare
from vertebral.records import Box, Evidence, Instance, Instances, Prepared
from vertebral.volume import Grid, Volume

MIN_DICE = 0.25
SAME_DICE = 0.5
WIDE = 1.6
NEW_DICE = 0.3
NEW_SHARE = 0.4
MIN_PART_SHARE = 0.05
_MARGIN_VOXELS = 2
# As in `instances`: the lowest value of an own voxel and the highest of another's, which stay apart in 8 bits.
_OWN, _NOT_OWN = np.float32(128 / 255), np.float32(127 / 255)
_REACH_MM = 20.0
# A second look from closer than this would see the same.
_SAME_CENTRE_MM = 1.5

Values = NDArray[np.float32]


@dataclass(frozen=True)
class _Part:
    """Probability of one vertebra on `box` of the fine grid, zero elsewhere."""

    values: Values
    box: Box


# A coarse instance, its part on the fine grid and the Dice with which they agree.
_Found = tuple[Instance, _Part, float]


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
    prepared = _prepare_around([box_on(item, instances.grid, ras.grid) for item in instances.items], ras, config)
    grid = prepared.volume.grid
    network.to(device).eval()
    found: list[_Found] = []
    kept: list[str] = []
    with torch.inference_mode(), autocast(device, precision):
        for done, item in enumerate(instances.items, start=1):
            coarse, overlap = _coarse_part(item, instances.grid, grid), 1.0
            part = coarse
            if instances.levels[int(np.argmax(item.class_mass[1:]))].is_vertebra:
                answer = _refined(item.centroid_mm, prepared, network, config, device)
                overlap = _dice(answer, coarse)
                if overlap >= MIN_DICE:
                    part = answer
                else:
                    kept.append(_text(item))
            found.append((item, part, overlap))
            if progress is not None:
                progress(done / len(instances.items))
        single, twice = _without_twins(found)
        missed = _between(single, prepared, network, config, device)
    single += missed
    items: list[Instance] = []
    lost: list[str] = []
    for (item, _, _), part in zip(single, _kept_apart([part for _, part, _ in single]), strict=True):
        if (part.values >= _OWN).any():
            items.append(_with_part(item, part, grid))
        else:
            lost.append(_text(item))
    notes = [
        f"{what}: {', '.join(where)} mm (RAS)"
        for what, where in (
            ("refinement led too far from the coarse result, which was kept", kept),
            ("found twice by the coarse network, taken as one vertebra", twice),
            ("missed by the coarse network, found between its neighbours", [_text(item) for item, _, _ in missed]),
            ("nothing was left after refinement", lost),
        )
        if where
    ]
    items.sort(key=lambda item: -item.centroid_mm[2])
    refined = Instances(tuple(items), instances.levels, grid, (*instances.warnings, *notes))
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
    prepared = _prepare_around([tuple(slice(v, v + 1) for v in voxel) for voxel in voxels], ras, config)
    network.to(device).eval()
    with torch.inference_mode(), autocast(device, precision):
        parts = [_refined(centre, prepared, network, config, device) for centre in centres_mm]
    items = []
    for centre, part in zip(centres_mm, _kept_apart(parts), strict=True):
        x, y, z = (float(value) for value in centre)
        item = Instance(part.values, part.box, np.zeros(0), (x, y, z), touches_border=False)
        if not (part.values >= _OWN).any():
            raise ModelError(f"no vertebra was found at {_text(item)} mm (RAS): set its centre anew")
        items.append(_with_part(item, part, prepared.volume.grid))
    return Instances(tuple(items), (), prepared.volume.grid)


def _prepare_around(boxes: Sequence[Sequence[slice]], ras: Volume, config: ModelConfig) -> Prepared:
    """Prepare, at the refiner's spacing, the part of the CT that holds `boxes` of it and the windows around them."""
    parts = []
    for axis, size in enumerate(ras.array.shape):
        # The window's middle lies in the vertebra's box or near it, so it reaches half its size beyond it at most.
        half_mm = config.inference.window[axis] * config.preprocess.spacing_mm / 2 + _REACH_MM
        margin = int(np.ceil(half_mm / ras.spacing_mm[axis]))
        low, high = min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)
        parts.append(slice(max(0, low - margin), min(size, high + margin)))
    return prepare(ras.cropped((parts[0], parts[1], parts[2])), config.preprocess)


def _coarse_part(item: Instance, coarse: Grid, fine: Grid) -> _Part:
    box = box_on(item, coarse, fine)
    return _Part(_without_crumbs(occupancy_on(item, coarse, fine, box)), box)


def _refined(
    centre_mm: Sequence[float],
    prepared: Prepared,
    network: torch.nn.Module,
    config: ModelConfig,
    device: torch.device,
) -> _Part:
    """Rules 1 and 5: the network's answer, seen from `centre_mm` and then from the answer's own centroid."""
    centre = prepared.volume.grid.to_voxel(np.array(centre_mm))
    part = _seen_from(centre, prepared, network, config, device)
    if (part.values >= _OWN).any():
        again = _centroid(part)
        if np.linalg.norm(again - centre) * config.preprocess.spacing_mm > _SAME_CENTRE_MM:
            part = _seen_from(again, prepared, network, config, device)
    return part


def _seen_from(
    centre: NDArray[np.float64], prepared: Prepared, network: torch.nn.Module, config: ModelConfig, device: torch.device
) -> _Part:
    """The answer in the window around `centre` (3,), voxels of the prepared grid, as far as the CT reaches."""
    window, array = config.inference.window, prepared.volume.array
    corner = [round(float(c) - (w - 1) / 2) for c, w in zip(centre, window, strict=True)]
    corner = [min(max(c, -w + 1), n - 1) for c, w, n in zip(corner, window, array.shape, strict=True)]
    ct = cut_window(array, tuple(corner), window, air_values(config.preprocess)[0])
    mark = centre_mark(window, config.preprocess.spacing_mm)
    probability = _probability(network, np.stack([ct, mark]), device)
    i, j, k = (slice(max(0, c), min(n, c + w)) for c, w, n in zip(corner, window, array.shape, strict=True))
    whole = [slice(c, c + w) for c, w in zip(corner, window, strict=True)]
    return _Part(_without_crumbs(probability[_within((i, j, k), whole)]), (i, j, k))


def _probability(network: torch.nn.Module, image: Values, device: torch.device) -> Values:
    """Run the network on `image` (2, I, J, K); return the vertebra's probability (I, J, K)."""
    output = network(torch.from_numpy(image)[None].to(device))
    expected = (1, 2, *image.shape[1:])
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != expected:
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(f"the refiner gives {found} where {expected} is expected: does its window fit it?")
    probability = torch.softmax(output[0].float(), 0)[1]
    if not bool(torch.isfinite(probability).all()):
        raise ModelError("the refiner's output is not finite: its weights are damaged, or it needs float32")
    return np.asarray(probability.cpu().numpy(), np.float32)


def _without_crumbs(values: Values) -> Values:
    """Rule 5: set to zero what is one half or more apart from the largest part."""
    pieces = cc3d.connected_components(values >= _OWN, connectivity=6)
    voxels = np.bincount(pieces.ravel())
    voxels[0] = 0
    if len(voxels) <= 2:
        return values
    crumb = voxels < max(1, MIN_PART_SHARE * voxels.max())
    crumb[0] = False
    return np.where(crumb[pieces], np.float32(0), values)


def _kept_apart(parts: list[_Part]) -> list[_Part]:
    """Rule 6. A voxel's value falls by half of what the rival's exceeds the rest, and never crosses one half twice."""
    once = [_contested(part, parts[:n], parts[n + 1 :]) for n, part in enumerate(parts)]
    left = []
    for part, own in zip(parts, once, strict=True):
        # What is cut off from a vertebra by its neighbours becomes theirs.
        lost = (own.values >= _OWN) & (_without_crumbs(own.values) < _OWN)
        left.append(replace(part, values=np.where(lost, np.float32(0), part.values)))
    final = [_contested(part, left[:n], left[n + 1 :]) for n, part in enumerate(left)]
    return [replace(part, values=_without_crumbs(part.values)) for part in final]


def _contested(part: _Part, before: list[_Part], after: list[_Part]) -> _Part:
    """Lower the values of `part` where rivals have a higher one; of equals the one before wins."""
    first, second = _highest(before, part.box), _highest(after, part.box)
    values = part.values
    own = (values >= _OWN) & (values > first) & (values >= second)
    lead = np.minimum(values, np.float32(0.5) + (values - np.maximum(first, second)) / 2)
    return replace(part, values=np.where(own, np.maximum(lead, _OWN), np.clip(lead, 0, _NOT_OWN)).astype(np.float32))


def _highest(parts: list[_Part], box: Box) -> Values:
    """The highest value of `parts` at each voxel of `box`."""
    found = np.zeros([s.stop - s.start for s in box], np.float32)
    for part in parts:
        shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(part.box, box, strict=True)]
        if all(s.start < s.stop for s in shared):
            here = found[_within(shared, box)]
            np.maximum(here, part.values[_within(shared, part.box)], out=here)
    return found


def _without_twins(found: list[_Found]) -> tuple[list[_Found], list[str]]:
    """Rule 3. Also returns where the twins that were left out lie."""
    kept: list[_Found] = []
    twice = []
    for entry in sorted(found, key=lambda entry: -entry[2]):
        if any(_dice(entry[1], other) >= SAME_DICE for _, other, _ in kept):
            twice.append(_text(entry[0]))
        else:
            kept.append(entry)
    return kept, twice


def _between(
    found: list[_Found], prepared: Prepared, network: torch.nn.Module, config: ModelConfig, device: torch.device
) -> list[_Found]:
    """Rule 4: what lies in gaps along the spine. The usual step is a median of nearby ones."""
    grid = prepared.volume.grid
    parts = [part for _, part, _ in found if (part.values >= _OWN).any()]
    centres_mm = np.array([grid.to_world(_centroid(part)) for part in parts]).reshape(-1, 3)
    order = np.argsort(-centres_mm[:, 2])
    steps_mm = np.linalg.norm(np.diff(centres_mm[order], axis=0), axis=1)
    new: list[_Found] = []
    for n, step_mm in enumerate(steps_mm):
        near = np.delete(steps_mm, n)[max(0, n - 3) : n + 3]
        usual_mm = float(np.median(near)) if len(near) > 1 else np.inf
        missing = round(step_mm / usual_mm) - 1 if step_mm >= WIDE * usual_mm else 0
        upper, lower = order[n], order[n + 1]
        least = NEW_SHARE * min(np.count_nonzero(parts[m].values >= _OWN) for m in (upper, lower))
        for share in np.arange(1, missing + 1) / (missing + 1):
            centre_mm = centres_mm[upper] * (1 - share) + centres_mm[lower] * share
            part = _refined(centre_mm.tolist(), prepared, network, config, device)
            rivals = [*parts, *(part for _, part, _ in new)]
            if np.count_nonzero(part.values >= _OWN) < least or any(_dice(part, r) >= NEW_DICE for r in rivals):
                continue
            x, y, z = (float(value) for value in grid.to_world(_centroid(part)))
            masses = np.zeros_like(found[0][0].class_mass)
            new.append((Instance(part.values, part.box, masses, (x, y, z), touches_border=False), part, 1.0))
    return new


def _centroid(part: _Part) -> NDArray[np.float64]:
    """(3,): of the part's own voxels, in voxels of the fine grid."""
    centre: NDArray[np.float64] = np.argwhere(part.values >= _OWN).mean(0) + [s.start for s in part.box]
    return centre


def _with_part(item: Instance, part: _Part, grid: Grid) -> Instance:
    """`item` with its own voxels of `part` and a margin around them."""
    own = part.values >= _OWN
    inner = ndimage.find_objects(own.astype(np.uint8))[0]
    box = tuple(
        slice(max(0, s.start - _MARGIN_VOXELS), min(n, s.stop + _MARGIN_VOXELS))
        for s, n in zip(inner, own.shape, strict=True)
    )
    near = ndimage.binary_dilation(own[box], ndimage.generate_binary_structure(3, 3), iterations=_MARGIN_VOXELS)
    i, j, k = (slice(s.start + p.start, s.stop + p.start) for s, p in zip(box, part.box, strict=True))
    x, y, z = grid.to_world(np.argwhere(own[box]).mean(0) + np.array([i.start, j.start, k.start]))
    occupancy = np.where(near, part.values[box], np.float32(0))
    return replace(item, occupancy=occupancy, box=(i, j, k), centroid_mm=(float(x), float(y), float(z)))


def _with_class_masses(instances: Instances, evidence: Evidence) -> Instances:
    """The class masses of the new shapes; one too small for the evidence's grid keeps the one it has."""
    owner = np.zeros(evidence.grid.shape, np.int32)
    for number, item in enumerate(instances.items, start=1):
        box = box_on(item, instances.grid, evidence.grid)
        inside = occupancy_on(item, instances.grid, evidence.grid, box) >= _OWN
        owner[box][inside] = number
    masses = class_masses(evidence, owner, len(instances.items))
    items = [
        replace(item, class_mass=mass) if mass[1:].any() else item
        for item, mass in zip(instances.items, masses[1:], strict=True)
    ]
    return replace(instances, items=tuple(items))


def _dice(one: _Part, other: _Part) -> float:
    first, second = one.values >= _OWN, other.values >= _OWN
    total = np.count_nonzero(first) + np.count_nonzero(second)
    shared = np.count_nonzero(first & (_highest([other], one.box) >= _OWN))
    return 2 * shared / total if total else 1.0


def _text(item: Instance) -> str:
    return f"({', '.join(f'{value:.0f}' for value in item.centroid_mm)})"


def _within(inner: Sequence[slice], outer: Sequence[slice]) -> Box:
    """`inner`, counted from the start of `outer`."""
    i, j, k = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    return i, j, k
