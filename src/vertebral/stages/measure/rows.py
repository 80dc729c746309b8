"""From geometry to rows of figures: the tables of vertebrae and of gaps."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_NAME
from vertebral.core.measurements import Figure, MeasurementRow, flagged, missing
from vertebral.core.volume import Volume
from vertebral.stages.measure.caveats import CUT
from vertebral.stages.measure.density import trabecular_density
from vertebral.stages.measure.disc_spaces import DiscSpace, measure_disc_space
from vertebral.stages.measure.heights import GENANT_LEVELS, genant_grade, height_loss_percent
from vertebral.stages.measure.levels import NO_SUPERIOR_ENDPLATE, LevelGeometry
from vertebral.stages.measure.rules import MeasureRules
from vertebral.stages.measure.surface_area import surface_area_cm2

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


def vertebra_row(
    item: LevelGeometry, expected_mm: float | None, ct: Volume | None, rules: MeasureRules
) -> MeasurementRow:
    """Return all figures of one level. `expected_mm` is the mean of both neighbours' posterior heights, if known."""
    figures = {
        **_whole(item, rules),
        **_posture(item),
        **_endplates(item),
        **_dimensions(item),
        **_heights(item, expected_mm, rules),
        **_density(item, ct, rules),
    }
    return MeasurementRow(item.level.name, (item.level,), figures)


def gap_row(upper: LevelGeometry, lower: LevelGeometry, fault: str, rules: MeasureRules) -> MeasurementRow:
    """Return all figures of the disc space between two levels; `fault`, if not empty, is why there are none."""
    name, levels = f"{upper.level.name}-{lower.level.name}", (upper.level, lower.level)
    for item, side in ((upper, "inferior"), (lower, "superior")):
        if not fault and side not in item.plates:
            fault = f"{item.level.name}: {item.plate_faults[side]}"
    disc = None
    if not fault and upper.body is not None:
        disc = measure_disc_space(upper.body, lower.plates["superior"], lower.body, rules)
    caveats = [f"{item.level.name}: {text}" for item in (upper, lower) for text in (*item.caveats, *item.plate_caveats)]
    if disc is not None:
        caveats += _disc_caveats(disc, rules)
    return MeasurementRow(name, levels, _disc_figures(disc, fault, caveats))


def _disc_caveats(disc: DiscSpace, rules: MeasureRules) -> list[str]:
    """Return in which respects a disc space is implausible."""
    heights = [
        mm for mm in (disc.heights.anterior_mm, disc.heights.middle_mm, disc.heights.posterior_mm) if mm is not None
    ]
    caveats = ["the endplates cross"] if heights and min(heights) < rules.crossing_disc_mm else []
    if heights and max(heights) > rules.max_disc_height_mm:
        caveats.append(f"higher than {rules.max_disc_height_mm:g} mm: is a level missing?")
    if max(abs(disc.sagittal_deg), abs(disc.coronal_deg)) > rules.max_disc_angle_deg:
        caveats.append(f"more than {rules.max_disc_angle_deg:g} degrees between the endplates")
    return caveats


def _disc_figures(disc: DiscSpace | None, fault: str, caveats: list[str]) -> dict[str, Figure]:
    def figure(pick: Callable[[DiscSpace], float | None], otherwise: str) -> Figure:
        value = None if disc is None else pick(disc)
        return missing(fault or otherwise) if value is None else flagged(value, caveats)

    few = "the endplates have too few points opposite each other"
    wall = "the sacrum's posterior wall is not measured"
    return {
        "disc_height_anterior_mm": figure(lambda d: d.heights.anterior_mm, few),
        "disc_height_middle_mm": figure(lambda d: d.heights.middle_mm, few),
        "disc_height_posterior_mm": figure(lambda d: d.heights.posterior_mm, few),
        "angle_sagittal_deg": figure(lambda d: d.sagittal_deg, few),
        "angle_coronal_deg": figure(lambda d: d.coronal_deg, few),
        "listhesis_mm": figure(lambda d: d.slip_mm, wall),
        "listhesis_right_mm": figure(lambda d: d.slip_right_mm, wall),
    }


def _whole(item: LevelGeometry, rules: MeasureRules) -> dict[str, Figure]:
    crop = item.crop
    names = ("volume_ml", "surface_area_cm2", *(f"centroid_{axis}_mm" for axis in _AXES))
    if crop.touches_border:
        return dict.fromkeys(names, missing(CUT))
    values = (crop.volume_ml, surface_area_cm2(crop, rules), *crop.centroid_mm.tolist())
    return {name: flagged(value, item.mask_caveats) for name, value in zip(names, values, strict=True)}


def _posture(item: LevelGeometry) -> dict[str, Figure]:
    """Return the body's centre, its up and anterior axes, and its tilt and rotation in the patient's RAS frame."""
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
    caveats = (*item.caveats, *item.plate_caveats)
    return {name: flagged(float(value), caveats) for name, value in zip(names, values, strict=True)}


_POSTURE = (("body_centre", "_mm"), ("axis_up", ""), ("axis_anterior", ""))


def _endplates(item: LevelGeometry) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for side in ("superior", "inferior"):
        plate = item.plates.get(side)
        for what, unit in (("centre", "_mm"), ("normal", "")):
            names = [f"{side}_{what}_{axis}{unit}" for axis in _AXES]
            if plate is None:
                figures |= dict.fromkeys(names, missing(item.plate_faults[side]))
            else:
                vector = plate.centre_mm if what == "centre" else plate.normal
                figures |= {n: _side_figure(item, float(v), side) for n, v in zip(names, vector, strict=True)}
    return figures


def _side_figure(item: LevelGeometry, value: float, side: str) -> Figure:
    """Return a figure of one endplate: caveats of the other one do not count."""
    return flagged(value, (*item.caveats, *item.slice_caveats, *item.side_caveats.get(side, ())))


def _dimensions(item: LevelGeometry) -> dict[str, Figure]:
    body, fault = item.body, _body_fault(item)
    if body is None or fault:
        return dict.fromkeys(_DIMENSIONS, missing(fault))
    wide, deep = (*item.caveats, *item.width_caveats), (*item.caveats, *item.depth_caveats)
    width = flagged(2 * body.half_mm[0], wide) if body.sides_found else missing("the side walls were not found")
    return {
        "body_width_mm": width,
        "body_depth_mm": flagged(2 * body.half_mm[1], deep),
        "body_volume_ml": flagged(body.volume_ml, (*wide, *item.depth_caveats, *item.plate_caveats)),
    }


def _heights(item: LevelGeometry, expected_mm: float | None, rules: MeasureRules) -> dict[str, Figure]:
    names = (*_HEIGHTS, *_SHAPES, "height_loss_percent", "genant_grade")
    heights, body, fault = item.heights, item.body, _body_fault(item)
    if body is None or heights is None or fault:
        reason = fault or next(iter(item.plate_faults.values()))
        return dict.fromkeys(names, missing(reason))
    caveats = [*item.caveats, *item.plate_caveats]
    values = (heights.anterior_mm, heights.middle_mm, heights.posterior_mm)
    few = missing("the endplates have too few points there")
    figures = {n: few if v is None else flagged(v, caveats) for n, v in zip(_HEIGHTS, values, strict=True)}
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
    figures |= {name: flagged(value, caveats) for name, value in zip(_SHAPES, shapes, strict=True)}
    loss = height_loss_percent(heights, expected_mm, rules)
    figures["height_loss_percent"] = flagged(float(loss or 0), caveats)
    figures["genant_grade"] = _genant(item, float(loss or 0), caveats, rules)
    return figures


def _leaning_deg(normal: NDArray[np.float64], axis: int) -> float:
    return float(np.degrees(np.arctan2(normal[axis], normal[2])))


def _genant(item: LevelGeometry, loss_percent: float, caveats: list[str], rules: MeasureRules) -> Figure:
    first, last = (BY_NAME[name].rank for name in GENANT_LEVELS)
    if not first <= item.level.rank <= last:
        return missing("Genant grades are defined for T4-L4 only")
    return flagged(genant_grade(loss_percent, rules), caveats)


def _body_fault(item: LevelGeometry) -> str:
    return NO_SUPERIOR_ENDPLATE if item.level.name == "C2" and not item.fault else item.fault


def _density(item: LevelGeometry, ct: Volume | None, rules: MeasureRules) -> dict[str, Figure]:
    body, fault = item.body, _body_fault(item)
    if ct is None:
        fault = "no CT was given"
    if body is None or ct is None or fault:
        return dict.fromkeys(_DENSITY, missing(fault))
    found = trabecular_density(ct, item.crop, body, rules)
    if isinstance(found, str):
        return dict.fromkeys(_DENSITY, missing(found))
    caveats = [*item.caveats, *item.plate_caveats, *found.caveats]
    values = (found.mean_hu, found.sd_hu, found.core_ml)
    return {name: flagged(value, caveats) for name, value in zip(_DENSITY, values, strict=True)}


def expected_heights(items: Sequence[LevelGeometry]) -> list[float | None]:
    """Return, for each level, the mean of the posterior heights above and below; None if one is missing."""
    heights = [item.heights.posterior_mm if item.heights is not None else None for item in items]
    expected: list[float | None] = [None] * len(items)
    for n in range(1, len(items) - 1):
        above, below = heights[n - 1], heights[n + 1]
        if above is not None and below is not None:
            expected[n] = (above + below) / 2
    return expected
