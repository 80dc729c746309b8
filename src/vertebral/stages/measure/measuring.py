"""From a label map to the tables of measurements: the order of the steps."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from vertebral.core.errors import GeometryError
from vertebral.core.measurements import Measurements
from vertebral.core.volume import Volume
from vertebral.stages.measure.crops import find_crops
from vertebral.stages.measure.levels import LevelGeometry, measure_levels
from vertebral.stages.measure.rows import expected_heights, gap_row, vertebra_row
from vertebral.stages.measure.rules import MEASURE_RULES, MeasureRules
from vertebral.stages.measure.spine_rows import are_neighbours, curve_rows, region_rows


def measure(
    labels: Volume,
    ct: Volume | None = None,
    progress: Callable[[float], None] = lambda share: None,
    rules: MeasureRules = MEASURE_RULES,
) -> Measurements:
    """Measure all levels of a label map (I, J, K) with VerSe ids, on any grid.

    `ct` is in HU, on any grid of the same patient; without it there is no density. A level that is cut, broken or
    absent costs only its own figures, each of which gives the reason. `progress(share)` is called as the work goes on.
    Raises GeometryError if `ct` does not cover the middle of the label map.
    """
    crops, unknown = find_crops(labels, rules)
    if ct is not None and crops:
        _require_overlap(labels, ct)
    progress(0.1)
    items = measure_levels(crops, rules)
    progress(0.8)
    vertebrae = [item for item in items if item.level.is_vertebra]
    expected = [*expected_heights(vertebrae), *(None for _ in items[len(vertebrae) :])]
    rows = tuple(vertebra_row(item, mm, ct, rules) for item, mm in zip(items, expected, strict=True))
    progress(0.95)
    pairs = [pair for pair in pairwise(items) if pair[1].level.name != "coccyx"]
    gaps = tuple(gap_row(upper, lower, _gap_fault(upper, lower), rules) for upper, lower in pairs)
    warnings = _warnings(items, unknown)
    progress(1.0)
    return Measurements(rows, gaps, region_rows(items), curve_rows(items, rules), warnings)


def _require_overlap(labels: Volume, ct: Volume) -> None:
    middle = labels.grid.to_world((np.array(labels.grid.shape) - 1) / 2)
    voxel = ct.grid.to_voxel(middle)
    if (voxel < -0.5).any() or (voxel > np.array(ct.grid.shape) - 0.5).any():
        raise GeometryError(
            f"the middle of the label map ({', '.join(f'{mm:.0f}' for mm in middle)} mm) is outside the CT: "
            "give the CT that the labels were made from"
        )


def _gap_fault(upper: LevelGeometry, lower: LevelGeometry) -> str:
    if are_neighbours(upper.level, lower.level):
        return ""
    return f"a level is missing between {upper.level.name} and {lower.level.name}"


def _warnings(items: tuple[LevelGeometry, ...], unknown: tuple[int, ...]) -> tuple[str, ...]:
    warnings = [fault for upper, lower in pairwise(items) if (fault := _gap_fault(upper, lower))]
    if unknown:
        warnings.append(f"labels that are not VerSe ids were ignored: {', '.join(map(str, unknown))}")
    if not items:
        warnings.append("the label map contains no vertebra")
    return tuple(warnings)
