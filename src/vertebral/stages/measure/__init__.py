"""Measurements of a labelled spine: bodies, discs, curves and bone density, each figure with its quality.

Definitions and sources of all figures: docs/measurements.md.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from vertebral.core.errors import GeometryError
from vertebral.core.measurements import Measurements
from vertebral.core.volume import Volume
from vertebral.stages.measure.crops import find_crops
from vertebral.stages.measure.rows import expected_heights, gap_row, vertebra_row
from vertebral.stages.measure.spine import are_neighbours, curve_rows, region_rows
from vertebral.stages.measure.vertebrae import Measured, measure_bodies

__all__ = ["measure"]


def measure(
    labels: Volume, ct: Volume | None = None, progress: Callable[[float], None] = lambda share: None
) -> Measurements:
    """Measure all levels of a label map (I, J, K) with VerSe ids, on any grid.

    `ct` is in HU, on any grid of the same patient; without it there is no density. A level that is cut, broken or
    absent costs its own figures only, and each of those says why. `progress(share)` is called as the work goes on.
    Raises GeometryError where `ct` shows another place.
    """
    crops, unknown = find_crops(labels)
    if ct is not None and crops:
        _require_overlap(labels, ct)
    progress(0.1)
    items = measure_bodies(crops)
    progress(0.8)
    spans = [item for item in items if item.level.is_vertebra]
    expected = [*expected_heights(spans), *(None for _ in items[len(spans) :])]
    vertebrae = tuple(vertebra_row(item, mm, ct) for item, mm in zip(items, expected, strict=True))
    progress(0.95)
    pairs = [pair for pair in pairwise(items) if pair[1].level.name != "coccyx"]
    gaps = tuple(gap_row(upper, lower, _gap_fault(upper, lower)) for upper, lower in pairs)
    warnings = _warnings(items, unknown)
    progress(1.0)
    return Measurements(vertebrae, gaps, region_rows(items), curve_rows(items), warnings)


def _require_overlap(labels: Volume, ct: Volume) -> None:
    middle = labels.grid.to_world((np.array(labels.grid.shape) - 1) / 2)
    voxel = ct.grid.to_voxel(middle)
    if (voxel < -0.5).any() or (voxel > np.array(ct.grid.shape) - 0.5).any():
        raise GeometryError(
            f"the middle of the label map ({', '.join(f'{mm:.0f}' for mm in middle)} mm) lies outside of the CT: "
            "give the CT that the labels were made from"
        )


def _gap_fault(upper: Measured, lower: Measured) -> str:
    if are_neighbours(upper.level, lower.level):
        return ""
    return f"a level is missing between {upper.level.name} and {lower.level.name}"


def _warnings(items: tuple[Measured, ...], unknown: tuple[int, ...]) -> tuple[str, ...]:
    warnings = [f"{_gap_fault(upper, lower)}" for upper, lower in pairwise(items) if _gap_fault(upper, lower)]
    if unknown:
        warnings.append(f"labels that name no level were passed over: {', '.join(map(str, unknown))}")
    if not items:
        warnings.append("the label map holds no level")
    return tuple(warnings)
