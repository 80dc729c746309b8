"""Sliding-window inference: from `Prepared` and a network to the two most probable classes of each voxel.

Windows overlap and are blended with Gaussian weights. Softmax probabilities are averaged, not logits (MONAI averages
whatever its predictor returns), so that one over-confident window cannot outvote its neighbours. A plane that no later
window reaches is reduced to its two best classes at once, so memory holds classes x one window's depth, never
classes x volume.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vertebral.core.anatomy import Level
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ModelError, VertebralError
from vertebral.core.records import Evidence, Prepared
from vertebral.models.config import OFFSET_UNIT_MM, InferenceConfig
from vertebral.models.devices import Precision, autocast, memory_format, place_network
from vertebral.stages.inference.rules import InferenceRules
from vertebral.stages.inference.windows import BODY_AXIS, Corner, SpineSearch, WindowPlan, plan_windows, visit_layer

__all__ = ["InferenceRules", "air_values", "crop_window", "infer", "top2"]

Index = tuple[slice, ...]

_SLICES_PER_CHUNK = 8


def infer(
    prepared: Prepared,
    network: torch.nn.Module,
    config: InferenceConfig,
    levels: tuple[Level, ...],
    device: torch.device,
    progress: Callable[[float], None] | None = None,
    precision: Precision = "auto",
    offsets: bool = False,
    follow: bool = False,
    rules: InferenceRules = InferenceRules(),
) -> Evidence:
    """Run `network` over the prepared grid; class 0 is background and class n is `levels[n - 1]`.

    The network takes (1, 1, I, J, K) of `config.window` and returns logits (1, classes, I, J, K); it is moved to
    `device` and left in eval mode. With `offsets` three more channels follow the classes (see `networks`). A volume
    smaller than the window is padded with air on both sides. Windows that contain only air are skipped: where they
    overlap others, they do not count, and elsewhere the evidence is background with probability 255; the evidence of
    any voxel above air is the same as without skipping. With `follow` only windows that may show the spine are visited
    (see `windows`); voxels in no visited window are background too. `progress` is called with the finished share in
    (0, 1]. `precision` "auto" is bfloat16 on CUDA (float16 if the GPU lacks it), bfloat16 on a CPU that has
    instructions for it, and float32 otherwise.

    Raises ModelError if the network's output does not fit `levels` and the window, or is not finite, and VertebralError
    if memory does not suffice.
    """
    array = prepared.volume.array
    plan = plan_windows(array.shape, config, BODY_AXIS if follow else int(np.argmax(array.shape)))
    air, air_limit = air_values(prepared.config, rules)
    place_network(network, device)
    class_count = len(levels) + 1
    counter = _ProgressCounter(plan, progress)
    search = SpineSearch(plan, rules.min_layer_ml * 1000 / prepared.config.spacing_mm**3, rules)
    try:
        with torch.inference_mode(), autocast(device, precision):
            slab = _Slab(array.shape, plan, _importance(plan.window, rules), class_count, offsets, device)

            def visit(corner: Corner) -> NDArray[np.bool_] | None:
                counter.window()
                values = crop_window(array, corner, plan.window, air)
                if values.max() <= air_limit:
                    return None
                output = _output(network, values, class_count, offsets, device)
                slab.add(output, corner)
                if not follow:
                    return None
                return np.asarray((output[1:class_count].amax(0) > output[0]).cpu().numpy())

            for start in plan.layers:
                slab.advance(start)
                search.follow(visit, start) if follow else visit_layer(plan, visit, start)
                counter.layer()
            slab.advance(array.shape[plan.axis])
    except RuntimeError as error:  # what torch raises if memory runs out, on a GPU (a subclass) and on a CPU
        if not isinstance(error, torch.cuda.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise VertebralError(
            f"out of memory with windows of {'x'.join(map(str, plan.window))} voxels: close other programs, use a "
            f"smaller window or the device cpu ({str(error).splitlines()[0]})"
        ) from error
    return Evidence(**slab.result, levels=levels, grid=prepared.volume.grid)


def top2(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best and second best along axis 0: (first, second, first score, second score), indices int64.

    Two passes of `max` are several times faster on a CPU than `topk` or `argmax`. Overwrites the best of `scores`.
    """
    first_score, first = scores.max(0)
    scores.scatter_(0, first[None], -torch.inf)
    second_score, second = scores.max(0)
    return first, second, first_score, second_score


class _ProgressCounter:
    """Reports the share of finished windows to `progress`; a layer may end before all of its windows were visited."""

    def __init__(self, plan: WindowPlan, progress: Callable[[float], None] | None) -> None:
        self._layers, self._windows = len(plan.layers), plan.windows_per_layer
        self._progress, self._layer, self._window = progress, 0, 0

    def window(self) -> None:
        self._window += 1
        self._report(self._layer + self._window / self._windows)

    def layer(self) -> None:
        self._layer += 1
        if self._window < self._windows:
            self._report(self._layer)
        self._window = 0

    def _report(self, layers: float) -> None:
        if self._progress is not None:
            self._progress(layers / self._layers)


class _Slab:
    """Weighted class probabilities of the planes that windows still reach; finished planes go to `result`.

    `result` holds the arrays of `Evidence`, background wherever no window was added. Offsets, if the network has them,
    are blended with the same weights.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        plan: WindowPlan,
        window_weights: torch.Tensor,
        class_count: int,
        offsets: bool,
        device: torch.device,
    ) -> None:
        held = [min(plan.window[d], size) if d == plan.axis else size for d, size in enumerate(shape)]
        self.axis, self.origin, self.shape = plan.axis, 0, shape
        self.class_count = class_count
        self.scores = torch.zeros(class_count + (3 if offsets else 0), *held, device=device)
        self.weight = torch.zeros(held, device=device)
        self.window_weights = window_weights.to(device)
        self.result: dict[str, NDArray[Any]] = {
            "first": np.zeros(shape, np.uint8),
            "second": np.ones(shape, np.uint8),
            "first_probability": np.full(shape, 255, np.uint8),
            "second_probability": np.zeros(shape, np.uint8),
        }
        if offsets:
            self.result["offset_mm"] = np.zeros((3, *shape), np.int8)

    def add(self, logits: torch.Tensor, corner: tuple[int, ...]) -> None:
        """Blend in a window's output (channels, I, J, K); `corner` is its first voxel, negative if it was padded."""
        begin = [max(0, c) for c in corner]
        end = [min(n, c + w) for n, c, w in zip(self.shape, corner, logits.shape[1:], strict=True)]
        origin = [self.origin if d == self.axis else 0 for d in range(3)]
        for start in range(begin[0], end[0], _SLICES_PER_CHUNK):
            bounds = [(start, min(start + _SLICES_PER_CHUNK, end[0])), (begin[1], end[1]), (begin[2], end[2])]
            inner = tuple(slice(b - c, e - c) for (b, e), c in zip(bounds, corner, strict=True))
            where = tuple(slice(b - o, e - o) for (b, e), o in zip(bounds, origin, strict=True))
            weights = self.window_weights[inner]
            classes, rest = slice(None, self.class_count), slice(self.class_count, None)
            probabilities = torch.softmax(logits[(classes, *inner)], 0, dtype=torch.float32)
            self.scores[(classes, *where)].addcmul_(probabilities, weights)
            self.scores[(rest, *where)].addcmul_(logits[(rest, *inner)].float(), weights)
            self.weight[where] += weights

    def advance(self, plane: int) -> None:
        """Finish the planes before `plane` and make it the first one held."""
        depth = self.weight.shape[self.axis]
        leaving = min(max(0, plane - self.origin), self.shape[self.axis] - self.origin)
        if leaving == 0:
            return
        done = [slice(0, leaving if d == self.axis else n) for d, n in enumerate(self.weight.shape)]
        for start in range(0, done[0].stop, _SLICES_PER_CHUNK):
            self._finish((slice(start, min(start + _SLICES_PER_CHUNK, done[0].stop)), done[1], done[2]))
        kept = depth - leaving
        for values in (*self.scores, self.weight):
            if kept:
                values.narrow(self.axis, 0, kept).copy_(values.narrow(self.axis, leaving, kept).clone())
            values.narrow(self.axis, kept, leaving).zero_()
        self.origin += leaving

    def _finish(self, planes: Index) -> None:
        """Write the two best classes of these held planes into `result`; overwrites their scores."""
        weight, scores = self.weight[planes], self.scores[(slice(None), *planes)]
        if not bool(weight.any()):
            return
        unseen = weight == 0
        weight.masked_fill_(unseen, 1)
        scores[0].masked_fill_(unseen, 1)
        first, second, first_score, second_score = top2(scores[: self.class_count])
        if not bool(torch.isfinite(first_score).all()):
            raise ModelError("the network's output is not finite: its weights are damaged, or it needs float32")
        shifts = [self.origin if d == self.axis else 0 for d in range(3)]
        where = tuple(slice(p.start + shift, p.stop + shift) for p, shift in zip(planes, shifts, strict=True))
        found = {
            "first": first,
            "second": second,
            "first_probability": (first_score / weight).mul_(255).round_(),
            "second_probability": (second_score / weight).mul_(255).round_(),
        }
        for name, values in found.items():
            self.result[name][where] = values.to(torch.uint8).cpu().numpy()
        if "offset_mm" in self.result:
            offset_mm = (scores[self.class_count :] / weight * OFFSET_UNIT_MM).round_().clamp_(-127, 127)
            self.result["offset_mm"][(slice(None), *where)] = offset_mm.to(torch.int8).cpu().numpy()


def _importance(window: tuple[int, int, int], rules: InferenceRules) -> torch.Tensor:
    """Return Gaussian weights (I, J, K) of a window's voxels, 1 in its middle."""
    weights = torch.ones(1)
    for extent in window:
        offset = torch.arange(extent) - (extent - 1) / 2
        weights = weights[..., None] * torch.exp(-0.5 * (offset / (rules.window_sigma_share * extent)) ** 2)
    return weights[0].clamp_min(rules.min_weight)


def crop_window(
    array: NDArray[Any], corner: tuple[int, ...], window: tuple[int, int, int], air: float
) -> NDArray[np.float32]:
    """Return a copy of the window at `corner`, filled with `air` outside `array`."""
    values = np.full(window, air, np.float32)
    begin = [max(0, c) for c in corner]
    inside = array[tuple(slice(b, c + w) for b, c, w in zip(begin, corner, window, strict=True))]
    values[tuple(slice(b - c, b - c + n) for b, c, n in zip(begin, corner, inside.shape, strict=True))] = inside
    return values


def _output(
    network: torch.nn.Module, values: NDArray[np.float32], class_count: int, offsets: bool, device: torch.device
) -> torch.Tensor:
    """Return the network's output (channels, I, J, K) for one window. Raises ModelError if its shape is another."""
    output = network(torch.from_numpy(values)[None, None].to(device, memory_format=memory_format(device)))
    expected = (1, class_count + (3 if offsets else 0), *values.shape)
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != expected:
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(
            f"the network's output has the shape {found}, expected {expected}: check that its levels and window fit it"
        )
    return output[0]


def air_values(config: PreprocessConfig, rules: InferenceRules = InferenceRules()) -> tuple[float, float]:
    """Return the scaled value of air, and the value up to which a voxel counts as air."""
    low, high = config.window_hu
    limit = max(low + rules.air_window_share * (high - low), min(rules.air_hu, high))
    offset, scale = (low, high - low) if config.scaling == "unit" else (config.mean_hu, config.std_hu)
    return (low - offset) / scale, (limit - offset) / scale
