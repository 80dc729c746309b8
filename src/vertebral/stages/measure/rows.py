"""From geometry to rows of figures: the columns of the table of vertebrae and of that of gaps."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_NAME
from vertebral.core.measurements import Figure, Row, flagged, missing
from vertebral.core.volume import Volume
from vertebral.stages.measure.density import trabecular_density
from vertebral.stages.measure.gaps import Gap, measure_gap
from vertebral.stages.measure.heights import GENANT_LEVELS, genant_grade, height_loss_percent
from vertebral.stages.measure.surface import surface_area_cm2
from vertebral.stages.measure.vertebrae import NO_DISC_ABOVE, Measured

_CROSSING_MM, _WIDEST_GAP_MM, _STEEPEST_GAP_DEG = -0.5, 22.0, 25.0
_CUT = "cut by the border of the scan"
_AXES = ("r", "a", "s")
_DIMENSIONS = ("body_width_mm", "body_depth_mm", "body_volume_ml")
_HEIGHTS = ("height_anterior_mm", "height_middle_mm", "height_posterior_mm")
_SHAPES = (
    "height_ratio_anterior_posterior",
    "height_ratio_middle_posterior",
    "wedge_sagittal_deg",
    "wedge_coronal_deg",
)
_DENSITY = ("core_mean_hu", "core_sd_hu", "core_volume_ml")


def vertebra_row(item: Measured, expected_mm: float | None, ct: Volume | None) -> Row:
    """Return all figures of one level. `expected_mm` is the mean of both neighbours' posterior heights, where known."""
    figures = {
        **_whole(item),
        **_posture(item),
        **_endplates(item),
        **_dimensions(item),
        **_heights(item, expected_mm),
        **_density(item, ct),
    }
    return Row(item.level.name, (item.level,), figures)


def gap_row(upper: Measured, lower: Measured, fault: str = "") -> Row:
    """Return all figures between two levels; `fault` is a reason for measuring none of them."""
    name, levels = f"{upper.level.name}-{lower.level.name}", (upper.level, lower.level)
    for item, side in ((upper, "inferior"), (lower, "superior")):
        if not fault and side not in item.plates:
            fault = f"{item.level.name}: {item.plate_faults[side]}"
    gap = None
    if not fault and upper.body is not None:
        gap = measure_gap(upper.body, lower.plates["superior"], lower.body)
    doubts = [f"{i.level.name}: {d}" for i in (upper, lower) for d in (*i.doubts, *i.plate_doubts)]
    if gap is not None:
        doubts += _gap_doubts(gap)
    return Row(name, levels, _gap_figures(gap, fault, doubts))


def _gap_doubts(gap: Gap) -> list[str]:
    """Return what no disc can be."""
    heights = [
        mm for mm in (gap.heights.anterior_mm, gap.heights.middle_mm, gap.heights.posterior_mm) if mm is not None
    ]
    doubts = ["the endplates cross"] if heights and min(heights) < _CROSSING_MM else []
    if heights and max(heights) > _WIDEST_GAP_MM:
        doubts.append(f"wider than {_WIDEST_GAP_MM:g} mm: is a level missing?")
    if max(abs(gap.sagittal_deg), abs(gap.coronal_deg)) > _STEEPEST_GAP_DEG:
        doubts.append(f"over {_STEEPEST_GAP_DEG:g} degrees between two endplates")
    return doubts


def _gap_figures(gap: Gap | None, fault: str, doubts: list[str]) -> dict[str, Figure]:
    def figure(pick: Callable[[Gap], float | None], otherwise: str) -> Figure:
        value = None if gap is None else pick(gap)
        return missing(fault or otherwise) if value is None else flagged(value, doubts)

    few = "too few endplate points face each other"
    wall = "the sacrum's posterior wall is not measured"
    return {
        "disc_height_anterior_mm": figure(lambda g: g.heights.anterior_mm, few),
        "disc_height_middle_mm": figure(lambda g: g.heights.middle_mm, few),
        "disc_height_posterior_mm": figure(lambda g: g.heights.posterior_mm, few),
        "angle_sagittal_deg": figure(lambda g: g.sagittal_deg, few),
        "angle_coronal_deg": figure(lambda g: g.coronal_deg, few),
        "listhesis_mm": figure(lambda g: g.slip_mm, wall),
        "listhesis_right_mm": figure(lambda g: g.slip_right_mm, wall),
    }


def _whole(item: Measured) -> dict[str, Figure]:
    crop = item.crop
    names = ("volume_ml", "surface_area_cm2", *(f"centroid_{axis}_mm" for axis in _AXES))
    if crop.touches_border:
        return dict.fromkeys(names, missing(_CUT))
    values = (crop.volume_ml, surface_area_cm2(crop), *crop.centroid_mm.tolist())
    return {name: flagged(value, item.mask_doubts) for name, value in zip(names, values, strict=True)}


def _posture(item: Measured) -> dict[str, Figure]:
    """The body's centre, its up and anterior axes, and how it stands in the patient's RAS frame."""
    names = [f"{what}_{axis}{unit}" for what, unit in _POSTURE for axis in _AXES]
    names += ["tilt_sagittal_deg", "tilt_coronal_deg", "rotation_axial_deg"]
    if item.body is None:
        return dict.fromkeys(names, missing(item.fault))
    frame = item.body.frame
    up, anterior = frame.axes[2], frame.axes[1]
    right = frame.axes[0]
    angles = [
        np.degrees(np.arctan2(up[1], up[2])),
        np.degrees(np.arctan2(up[0], up[2])),
        np.degrees(np.arctan2(right[1], right[0])),
    ]
    values = [*frame.origin_mm.tolist(), *up.tolist(), *anterior.tolist(), *angles]
    doubts = (*item.doubts, *item.plate_doubts)
    return {name: flagged(float(value), doubts) for name, value in zip(names, values, strict=True)}


_POSTURE = (("body_centre", "_mm"), ("axis_up", ""), ("axis_anterior", ""))


def _endplates(item: Measured) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for side in ("superior", "inferior"):
        plate = item.plates.get(side)
        for what, unit in (("centre", "_mm"), ("normal", "")):
            names = [f"{side}_{what}_{axis}{unit}" for axis in _AXES]
            if plate is None:
                figures |= dict.fromkeys(names, missing(item.plate_faults[side]))
            else:
                vector = plate.centre_mm if what == "centre" else plate.normal
                figures |= {n: _doubted(item, float(v), side) for n, v in zip(names, vector, strict=True)}
    return figures


def _doubted(item: Measured, value: float, side: str) -> Figure:
    """Return a figure of one endplate: doubts about the other one do not count."""
    other = "inferior" if side == "superior" else "superior"
    return flagged(value, [*item.doubts, *(d for d in item.plate_doubts if f"the {other} endplate" not in d)])


def _dimensions(item: Measured) -> dict[str, Figure]:
    body, fault = item.body, _body_fault(item)
    if body is None or fault:
        return dict.fromkeys(_DIMENSIONS, missing(fault))
    wide, deep = (*item.doubts, *item.width_doubts), (*item.doubts, *item.depth_doubts)
    width = flagged(2 * body.half_mm[0], wide) if body.sides_met else missing("no side walls were met")
    return {
        "body_width_mm": width,
        "body_depth_mm": flagged(2 * body.half_mm[1], deep),
        "body_volume_ml": flagged(body.volume_ml, (*wide, *item.depth_doubts, *item.plate_doubts)),
    }


def _heights(item: Measured, expected_mm: float | None) -> dict[str, Figure]:
    names = (*_HEIGHTS, *_SHAPES, "height_loss_percent", "genant_grade")
    heights, body, fault = item.heights, item.body, _body_fault(item)
    if body is None or heights is None or fault:
        reason = fault or next(iter(item.plate_faults.values()))
        return dict.fromkeys(names, missing(reason))
    doubts = [*item.doubts, *item.plate_doubts]
    values = (heights.anterior_mm, heights.middle_mm, heights.posterior_mm)
    few = missing("too few endplate points there")
    figures = {n: few if v is None else flagged(v, doubts) for n, v in zip(_HEIGHTS, values, strict=True)}
    if None in values:
        return figures | dict.fromkeys(names[len(_HEIGHTS) :], few)
    anterior, middle, posterior = (float(v or 0) for v in values)
    top, bottom = (body.frame.axes @ item.plates[side].normal for side in ("superior", "inferior"))
    shapes = (
        anterior / posterior,
        middle / posterior,
        _leaning_deg(top, 1) - _leaning_deg(bottom, 1),
        _leaning_deg(top, 0) - _leaning_deg(bottom, 0),
    )
    figures |= {name: flagged(value, doubts) for name, value in zip(_SHAPES, shapes, strict=True)}
    loss = height_loss_percent(heights, expected_mm)
    figures["height_loss_percent"] = flagged(float(loss or 0), doubts)
    figures["genant_grade"] = _genant(item, float(loss or 0), doubts)
    return figures


def _leaning_deg(normal: NDArray[np.float64], axis: int) -> float:
    return float(np.degrees(np.arctan2(normal[axis], normal[2])))


def _genant(item: Measured, loss_percent: float, doubts: list[str]) -> Figure:
    first, last = (BY_NAME[name].rank for name in GENANT_LEVELS)
    if not first <= item.level.rank <= last:
        return missing("Genant's grades are defined for T4-L4")
    return flagged(genant_grade(loss_percent), doubts)


def _body_fault(item: Measured) -> str:
    return NO_DISC_ABOVE if item.level.name == "C2" and not item.fault else item.fault


def _density(item: Measured, ct: Volume | None) -> dict[str, Figure]:
    body, fault = item.body, _body_fault(item)
    if ct is None:
        fault = "no CT was given"
    if body is None or ct is None or fault:
        return dict.fromkeys(_DENSITY, missing(fault))
    found = trabecular_density(ct, item.crop, body)
    if isinstance(found, str):
        return dict.fromkeys(_DENSITY, missing(found))
    doubts = [*item.doubts, *item.plate_doubts, *found.doubts]
    values = (found.mean_hu, found.sd_hu, found.core_ml)
    return {name: flagged(value, doubts) for name, value in zip(_DENSITY, values, strict=True)}


def expected_heights(items: Sequence[Measured]) -> list[float | None]:
    """Return, for each level, the mean of the posterior heights above and below; None where one is missing."""
    heights = [item.heights.posterior_mm if item.heights is not None else None for item in items]
    expected: list[float | None] = [None] * len(items)
    for n in range(1, len(items) - 1):
        above, below = heights[n - 1], heights[n + 1]
        if above is not None and below is not None:
            expected[n] = (above + below) / 2
    return expected
