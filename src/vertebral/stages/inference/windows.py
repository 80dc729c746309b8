"""The positions of a sliding window, and which of them to visit.

Windows are visited layer by layer. To cover the whole volume, layers run along its longest axis, which saves memory. To
save time, windows may follow the spine instead, which is a single column: layers then run along the body's axis. In
each layer the windows in the middle are visited first, or those that held the spine in the layer before; a neighbour
follows if the spine comes close to the side that they share. A layer in which this finds less than `min_layer_ml` of
spine is visited completely.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vertebral.models.config import InferenceConfig
from vertebral.stages.inference.rules import InferenceRules

BODY_AXIS = 2

Corner = tuple[int, int, int]
SpineMask = NDArray[np.bool_]


@dataclass(frozen=True)
class WindowPlan:
    """Windows of `window` voxels at all combinations of `starts` (one tuple per axis), in layers along `axis`.

    A start is the first voxel of a window, negative if the volume is padded.
    """

    window: tuple[int, int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    axis: int

    @property
    def layers(self) -> tuple[int, ...]:
        """The starts along `axis`, one per layer."""
        return self.starts[self.axis]

    @property
    def across(self) -> tuple[int, int]:
        """The other two axes."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second

    @property
    def windows_per_layer(self) -> int:
        """The number of windows in a layer."""
        first, second = self.across
        return len(self.starts[first]) * len(self.starts[second])


def plan_windows(shape: tuple[int, ...], config: InferenceConfig, axis: int) -> WindowPlan:
    """Cover `shape` by the fewest evenly spaced windows that overlap by `config.overlap`; layers run along `axis`."""
    i, j, k = (
        tuple(window_starts(size, extent, config.overlap)) for size, extent in zip(shape, config.window, strict=True)
    )
    return WindowPlan(config.window, (i, j, k), axis)


def window_starts(size: int, extent: int, overlap: float) -> list[int]:
    """Return the first voxels of the fewest evenly spaced windows that overlap by `overlap`; negative if padded."""
    if size <= extent:
        return [-((extent - size) // 2)]
    steps = int(np.ceil((size - extent) / max(1, int(extent * (1 - overlap)))))
    return [int(n) for n in np.rint(np.linspace(0, size - extent, steps + 1))]


def visit_layer(plan: WindowPlan, visit: Callable[[Corner], object], layer: int) -> None:
    """Visit all windows of a layer."""
    for cell in _cells(plan):
        visit(_corner(plan, layer, cell))


@dataclass
class SpineSearch:
    """Follows the spine from layer to layer; a layer with fewer than `min_voxels` of it is visited completely."""

    plan: WindowPlan
    min_voxels: float
    rules: InferenceRules = InferenceRules()
    _before: frozenset[tuple[int, int]] = frozenset()

    def follow(self, visit: Callable[[Corner], SpineMask | None], layer: int) -> None:
        """Visit the windows of a layer that may show the spine.

        `visit` returns a mask (I, J, K) of the spine's voxels in the window, or None if the window is all air.
        """
        waiting = sorted(self._before) or list(self._middle())
        seen: dict[tuple[int, int], int] = {}
        while waiting:
            cell = waiting.pop(0)
            if cell in seen:
                continue
            found = visit(_corner(self.plan, layer, cell))
            seen[cell] = 0 if found is None else int(np.count_nonzero(found))
            if seen[cell] and found is not None:
                waiting.extend(self._reached(found, cell))
        if max(seen.values()) < self.min_voxels:
            for cell in _cells(self.plan):
                if cell not in seen:
                    found = visit(_corner(self.plan, layer, cell))
                    seen[cell] = 0 if found is None else int(np.count_nonzero(found))
        most = max(*seen.values(), self.min_voxels)
        self._before = frozenset(cell for cell, voxels in seen.items() if voxels >= self.rules.kept_share * most)

    def _middle(self) -> Iterator[tuple[int, int]]:
        counts = [len(self.plan.starts[axis]) for axis in self.plan.across]
        yield from product(*({(count - 1) // 2, count // 2} for count in counts))

    def _reached(self, found: SpineMask, cell: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """Yield the neighbours at the sides near which enough was `found`."""
        for shift in product((-1, 0, 1), repeat=2):
            there = (cell[0] + shift[0], cell[1] + shift[1])
            counts = [len(self.plan.starts[axis]) for axis in self.plan.across]
            if there == cell or not all(0 <= n < count for n, count in zip(there, counts, strict=True)):
                continue
            side = [slice(None)] * 3
            for axis, step in zip(self.plan.across, shift, strict=True):
                near = round(self.rules.side_share * self.plan.window[axis])
                side[axis] = {-1: slice(None, near), 0: slice(None), 1: slice(-near, None)}[step]
            if np.count_nonzero(found[tuple(side)]) >= self.rules.side_volume_share * self.min_voxels:
                yield there


def _cells(plan: WindowPlan) -> Iterator[tuple[int, int]]:
    first, second = (range(len(plan.starts[axis])) for axis in plan.across)
    return product(first, second)


def _corner(plan: WindowPlan, layer: int, cell: tuple[int, int]) -> Corner:
    corner = [0, 0, 0]
    corner[plan.axis] = layer
    for axis, number in zip(plan.across, cell, strict=True):
        corner[axis] = plan.starts[axis][number]
    return corner[0], corner[1], corner[2]
