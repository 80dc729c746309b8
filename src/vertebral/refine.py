"""From vertebrae on a coarse grid to the same ones on a fine grid: one network looks at each of them in its box.

The network sees the CT around a vertebra and, in a second channel, where the coarse result has it; it answers with the
probability that a voxel is of this vertebra. What is not in the box (the ends of a giant, sacrum and coccyx as a whole)
stays as the coarse result has it. Rules, in order:
1. A vertebra whose answer overlaps the coarse one with a Dice below `MIN_DICE` keeps the coarse one, with a warning.
2. Of each answer the largest part stays, with the parts that hold at least `MIN_PART_SHARE` of it.
3. A voxel is of the vertebra with the highest probability, if that is one half or more. What a vertebra then has apart
   from its largest part (rule 2) is left to its neighbours.
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
from vertebral.preprocess import box_on, occupancy_on, prepare
from vertebral.records import Box, Prepared, Spine, Vertebra
from vertebral.volume import Grid, Volume

MIN_DICE = 0.4
MIN_PART_SHARE = 0.05
_MARGIN_VOXELS = 2
# As in `instances`: the lowest value of an own voxel and the highest of another's, which stay apart in 8 bits.
_OWN, _NOT_OWN = np.float32(128 / 255), np.float32(127 / 255)
_REACH_MM = 10.0

Values = NDArray[np.float32]


@dataclass(frozen=True)
class _Part:
    """Probability of one vertebra on `box` of the fine grid, zero elsewhere."""

    values: Values
    box: Box


def refine(
    spine: Spine,
    scan: Volume,
    network: torch.nn.Module,
    config: ModelConfig,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
    precision: Precision = "auto",
) -> Spine:
    """Return `spine` on a grid of the refiner's spacing that covers it, its vertebrae in the same order.

    `scan` is the CT in HU that `spine` was found in, any orientation. The network takes (1, 2, I, J, K) of
    `config.inference.window`, the CT and the guidance in [0, 1], and gives logits (1, 2, I, J, K); it is moved to
    `device` and left in eval mode. `progress` is called with the finished share in (0, 1]. Occupancies keep what
    `instances` promises: 0.5 or more in a vertebra's own voxels and nowhere else, no voxel owned twice.

    Raises ModelError where `config` is no refiner's or the network's output does not fit or is not finite.
    """
    if not config.network.guided:
        raise ModelError(f"model {config.name}: finds vertebrae, but cannot refine them; give a model that is guided")
    if not spine.vertebrae:
        return spine
    prepared = _prepare_around(spine, scan, config)
    grid = prepared.volume.grid
    network.to(device).eval()
    parts: list[_Part] = []
    kept: list[str] = []
    with torch.inference_mode(), autocast(device, precision):
        for done, vertebra in enumerate(spine.vertebrae, start=1):
            coarse = _coarse_part(vertebra, spine.grid, grid)
            part = _refined(coarse, prepared, network, config, device) if vertebra.level.is_vertebra else coarse
            overlap = _dice(part.values >= _OWN, _highest([coarse], part.box) >= _OWN)
            if overlap < MIN_DICE:
                kept.append(vertebra.level.name)
                part = coarse
            parts.append(replace(part, values=_without_crumbs(part.values)))
            if progress is not None:
                progress(done / len(spine.vertebrae))
    vertebrae: list[Vertebra] = []
    lost: list[str] = []
    for vertebra, part in zip(spine.vertebrae, _kept_apart(parts), strict=True):
        if (part.values >= _OWN).any():
            vertebrae.append(_with_part(vertebra, part, grid))
        else:
            lost.append(vertebra.level.name)
    notes = [f"refined too far from the coarse result, which was kept: {', '.join(kept)}"] if kept else []
    notes += [f"nothing was left after refinement: {', '.join(lost)}"] if lost else []
    return Spine(tuple(vertebrae), grid, (*spine.warnings, *notes))


def _prepare_around(spine: Spine, scan: Volume, config: ModelConfig) -> Prepared:
    """Prepare, at the refiner's spacing, the part of the CT that holds all boxes."""
    ras = scan.to_ras()
    spacing_mm = config.preprocess.spacing_mm
    boxes = [box_on(v.instance, spine.grid, ras.grid) for v in spine.vertebrae]
    parts = []
    for axis, size in enumerate(ras.array.shape):
        half_mm = config.inference.window[axis] * spacing_mm / 2 + _REACH_MM
        # The window's middle lies in the vertebra's box, so it reaches half its size beyond it at most.
        margin = int(np.ceil(half_mm / ras.spacing_mm[axis]))
        low, high = min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)
        parts.append(slice(max(0, low - margin), min(size, high + margin)))
    return prepare(ras.cropped((parts[0], parts[1], parts[2])), config.preprocess)


def _coarse_part(vertebra: Vertebra, coarse: Grid, fine: Grid) -> _Part:
    box = box_on(vertebra.instance, coarse, fine)
    return _Part(occupancy_on(vertebra.instance, coarse, fine, box), box)


def _window_corner(inside: NDArray[np.bool_], corner: Sequence[int], window: tuple[int, int, int]) -> tuple[int, ...]:
    """First voxel of the box around a vertebra: its middle is that of the vertebra's extent along each axis.

    `inside` (I, J, K) is the vertebra, not empty, on a part of the grid that begins at voxel `corner`.
    """
    found = []
    for axis in range(3):
        hit = np.flatnonzero(inside.any(tuple(other for other in range(3) if other != axis)))
        middle = corner[axis] + (int(hit[0]) + int(hit[-1]) + 1) / 2
        found.append(int(np.floor(middle - window[axis] / 2)))
    return tuple(found)


def _refined(
    coarse: _Part, prepared: Prepared, network: torch.nn.Module, config: ModelConfig, device: torch.device
) -> _Part:
    """The network's answer in the window, the coarse part outside of it."""
    inside = coarse.values >= _OWN
    if not inside.any():
        return coarse
    window, array = config.inference.window, prepared.volume.array
    corner = _window_corner(inside, [s.start for s in coarse.box], window)
    ct = cut_window(array, corner, window, air_values(config.preprocess)[0])
    own = tuple(start - s.start for start, s in zip(corner, coarse.box, strict=True))
    guidance = cut_window(coarse.values, own, window, 0.0)
    probability = _probability(network, np.stack([ct, guidance]), device)
    begin = [max(0, c) for c in corner]
    end = [min(n, c + w) for n, c, w in zip(array.shape, corner, window, strict=True)]
    box = _hull(coarse.box, [slice(b, e) for b, e in zip(begin, end, strict=True)])
    values = np.zeros([s.stop - s.start for s in box], np.float32)
    values[_within(coarse.box, box)] = coarse.values
    seen = [slice(b, e) for b, e in zip(begin, end, strict=True)]
    values[_within(seen, box)] = probability[
        _within(seen, [slice(c, c + w) for c, w in zip(corner, window, strict=True)])
    ]
    return _Part(values, box)


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
    """Rule 2: set to zero what is one half or more apart from the largest part."""
    pieces = cc3d.connected_components(values >= _OWN, connectivity=6)
    voxels = np.bincount(pieces.ravel())
    voxels[0] = 0
    if len(voxels) <= 2:
        return values
    crumb = voxels < max(1, MIN_PART_SHARE * voxels.max())
    crumb[0] = False
    return np.where(crumb[pieces], np.float32(0), values)


def _kept_apart(parts: list[_Part]) -> list[_Part]:
    """Rule 3. A voxel's value falls by half of what the rival's exceeds the rest, and never crosses one half twice."""
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


def _with_part(vertebra: Vertebra, part: _Part, grid: Grid) -> Vertebra:
    """`vertebra` with its own voxels of `part` and a margin around them."""
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
    centroid_mm = (float(x), float(y), float(z))
    return replace(
        vertebra, instance=replace(vertebra.instance, occupancy=occupancy, box=(i, j, k), centroid_mm=centroid_mm)
    )


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0


def _hull(one: Sequence[slice], other: Sequence[slice]) -> Box:
    i, j, k = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return i, j, k


def _within(inner: Sequence[slice], outer: Sequence[slice]) -> Box:
    """`inner`, counted from the start of `outer`."""
    i, j, k = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    return i, j, k
