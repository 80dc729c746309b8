"""Where a sliding window stands, and which of its places are worth a look.

Windows are gone through in layers. To see all, these lie along the longest axis of the volume, which saves memory. A
spine is one column along the body, so a window beside it need not be seen: to save time, layers lie along the body's
axis; in each the windows in the middle come first, or those that held the spine in the layer before, and a neighbour
follows where what was found comes near the window's side, beyond which the neighbour sees. A layer that shows no spine
this way (`LEAST_FOUND_ML`) is seen as a whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vertebral.models.config import InferenceConfig

# C1 alone has more, and what is taken for a vertebra by mistake mostly less.
LEAST_FOUND_ML = 10.0
# Less of it near a side is a stray voxel or the tip of a process.
_NEAR_SHARE = 0.5
# Where a window of the layer before held less than this of what the fullest one did, it was not the spine.
_KEPT_SHARE = 0.1
BODY_AXIS = 2
# So near to the side of a window a network knows too little of what lies beyond: an eighth and a half of 64 voxels.
_SIDE_SHARE = 3 / 16

Corner = tuple[int, int, int]
Found = NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """Windows of `window` voxels at all combinations of `starts` (one list an axis), in layers along `axis`.

    A start is the first voxel of a window, negative where the volume is padded.
    """

    window: tuple[int, int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    axis: int

    @property
    def layers(self) -> tuple[int, ...]:
        """The starts along the axis of the layers."""
        return self.starts[self.axis]

    @property
    def across(self) -> tuple[int, int]:
        """The other two axes."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second

    @property
    def windows_per_layer(self) -> int:
        """How many windows a layer has."""
        first, second = self.across
        return len(self.starts[first]) * len(self.starts[second])


def plan_windows(shape: tuple[int, ...], config: InferenceConfig, axis: int) -> Plan:
    """The fewest windows over `shape` that overlap by at least `config.overlap`, evenly spread; layers along `axis`."""
    i, j, k = (
        tuple(window_starts(size, extent, config.overlap)) for size, extent in zip(shape, config.window, strict=True)
    )
    return Plan(config.window, (i, j, k), axis)


def window_starts(size: int, extent: int, overlap: float) -> list[int]:
    """First voxels of the fewest windows that overlap by at least `overlap`, evenly spread; negative where padded."""
    if size <= extent:
        return [-((extent - size) // 2)]
    steps = int(np.ceil((size - extent) / max(1, int(extent * (1 - overlap)))))
    return [int(n) for n in np.rint(np.linspace(0, size - extent, steps + 1))]


def every(plan: Plan, look: Callable[[Corner], object], layer: int) -> None:
    """Look at all windows of a layer."""
    for place in _places(plan):
        look(_corner(plan, layer, place))


@dataclass
class Search:
    """Follows the spine from layer to layer; `least_voxels` of it make a layer count as seen."""

    plan: Plan
    least_voxels: float
    _before: frozenset[tuple[int, int]] = frozenset()

    def follow(self, look: Callable[[Corner], Found | None], layer: int) -> None:
        """Look at the windows of a layer that are worth it.

        `look` gives the voxels of the window (I, J, K) that are of the spine, or None where it is all air.
        """
        waiting = sorted(self._before) or list(self._middle())
        seen: dict[tuple[int, int], int] = {}
        while waiting:
            place = waiting.pop(0)
            if place in seen:
                continue
            found = look(_corner(self.plan, layer, place))
            seen[place] = 0 if found is None else int(np.count_nonzero(found))
            if seen[place] and found is not None:
                waiting.extend(self._reached(found, place))
        if max(seen.values()) < self.least_voxels:
            for place in _places(self.plan):
                if place not in seen:
                    found = look(_corner(self.plan, layer, place))
                    seen[place] = 0 if found is None else int(np.count_nonzero(found))
        most = max(*seen.values(), self.least_voxels)
        self._before = frozenset(place for place, voxels in seen.items() if voxels >= _KEPT_SHARE * most)

    def _middle(self) -> Iterator[tuple[int, int]]:
        counts = [len(self.plan.starts[axis]) for axis in self.plan.across]
        yield from product(*({(count - 1) // 2, count // 2} for count in counts))

    def _reached(self, found: Found, place: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """The neighbours at the sides near which enough was `found`."""
        for shift in product((-1, 0, 1), repeat=2):
            there = (place[0] + shift[0], place[1] + shift[1])
            counts = [len(self.plan.starts[axis]) for axis in self.plan.across]
            if there == place or not all(0 <= n < count for n, count in zip(there, counts, strict=True)):
                continue
            part = [slice(None)] * 3
            for axis, step in zip(self.plan.across, shift, strict=True):
                near = round(_SIDE_SHARE * self.plan.window[axis])
                part[axis] = {-1: slice(None, near), 0: slice(None), 1: slice(-near, None)}[step]
            if np.count_nonzero(found[tuple(part)]) >= _NEAR_SHARE * self.least_voxels:
                yield there


def _places(plan: Plan) -> Iterator[tuple[int, int]]:
    first, second = (range(len(plan.starts[axis])) for axis in plan.across)
    return product(first, second)


def _corner(plan: Plan, layer: int, place: tuple[int, int]) -> Corner:
    corner = [0, 0, 0]
    corner[plan.axis] = layer
    for axis, number in zip(plan.across, place, strict=True):
        corner[axis] = plan.starts[axis][number]
    return corner[0], corner[1], corner[2]
