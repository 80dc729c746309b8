"""From geometry to rows of figures: the tables of regions (angles and lengths) and of coronal curves."""

from collections.abc import Sequence

from vertebral.core.anatomy import BY_NAME, Level
from vertebral.core.measurements import Figure, MeasurementRow, flagged, missing
from vertebral.stages.measure.curves import (
    REGIONS,
    CoronalCurve,
    TiltedEndplate,
    arc_length_mm,
    coronal_curves,
    region_angle,
    spine_frame,
    tilted,
)
from vertebral.stages.measure.levels import LevelGeometry
from vertebral.stages.measure.rules import MeasureRules

OPTIONAL_LEVELS = ("T13", "L6")


def are_neighbours(upper: Level, lower: Level) -> bool:
    """Tell whether no level that everybody has is between two levels."""
    between = [level for level in BY_NAME.values() if upper.rank < level.rank < lower.rank]
    return all(level.name in OPTIONAL_LEVELS for level in between)


def region_rows(items: Sequence[LevelGeometry]) -> tuple[MeasurementRow, ...]:
    """Return a row for each region, and one for the longest stretch that was measured without a break."""
    plates = _plates(items)
    rows = [_region_row(name, items, plates) for name in REGIONS]
    return (*rows, _whole_row(items))


def curve_rows(items: Sequence[LevelGeometry], rules: MeasureRules) -> tuple[MeasurementRow, ...]:
    """Return a row for each coronal curve, the largest first; one row with a reason if too little was measured."""
    bodies = [item for item in items if item.body is not None]
    names = ("angle_deg", "upper", "lower", "apex", "convex_to", "apex_offset_mm")
    if len(bodies) < rules.min_bodies_for_curve:
        few = f"fewer than {rules.min_bodies_for_curve} bodies were measured"
        return (MeasurementRow("curve_1", (), dict.fromkeys(names, missing(few))),)
    frame = spine_frame([item.body for item in bodies if item.body is not None])
    centres = {item.level: item.body.frame.origin_mm for item in bodies if item.body is not None}
    curves = coronal_curves(_plates(items), centres, frame, rules)
    if not curves:
        return (MeasurementRow("curve_1", (), dict.fromkeys(names, missing("fewer than two endplates were measured"))),)
    return tuple(_curve_row(f"curve_{n}", curve, items) for n, curve in enumerate(curves, 1))


def _plates(items: Sequence[LevelGeometry]) -> tuple[TiltedEndplate, ...]:
    bodies = [item.body for item in items if item.body is not None]
    if not bodies:
        return ()
    frame = spine_frame(bodies)
    return tuple(tilted(item.level, side, plate, frame) for item in items for side, plate in item.plates.items())


def _region_row(name: str, items: Sequence[LevelGeometry], plates: Sequence[TiltedEndplate]) -> MeasurementRow:
    upper, upper_side, lower, lower_side, _ = REGIONS[name]
    levels = (BY_NAME[upper], BY_NAME[lower])
    angle = region_angle(name, plates)
    if isinstance(angle, str):
        return MeasurementRow(name, levels, {"angle_deg": missing(angle), "length_mm": missing(angle)})
    caveats = _caveats([item for item in items if item.level in levels])
    within = [item for item in items if levels[0].rank <= item.level.rank <= levels[1].rank]
    figures = {"angle_deg": flagged(angle, caveats), "length_mm": _length(within, upper_side, lower_side)}
    return MeasurementRow(name, levels, figures)


def _whole_row(items: Sequence[LevelGeometry]) -> MeasurementRow:
    runs: list[list[LevelGeometry]] = [[]]
    for item in (item for item in items if item.level.is_vertebra):
        whole = len(item.plates) == 2
        if runs[-1] and not (whole and are_neighbours(runs[-1][-1].level, item.level)):
            runs.append([])
        if whole:
            runs[-1].append(item)
    longest = max(runs, key=len)
    figures: dict[str, Figure] = {"angle_deg": missing("no angle is defined for this stretch")}
    figures["length_mm"] = _length(longest, "superior", "inferior")
    levels = (longest[0].level, longest[-1].level) if longest else ()
    return MeasurementRow("longest_stretch", levels, figures)


def _length(items: Sequence[LevelGeometry], first_side: str, last_side: str) -> Figure:
    """Return the arc length through all endplate centres from one endplate to another."""
    if not items:
        return missing("no body has both endplates")
    points = []
    for n, item in enumerate(items):
        if n and not are_neighbours(items[n - 1].level, item.level):
            return missing(f"a level is missing between {items[n - 1].level.name} and {item.level.name}")
        sides = ["superior", "inferior"]
        if n == 0:
            sides = sides[sides.index(first_side) :]
        if n == len(items) - 1:
            sides = sides[: sides.index(last_side) + 1]
        for side in sides:
            if side not in item.plates:
                return missing(f"{item.level.name}: {item.plate_faults[side]}")
            points.append(item.plates[side].centre_mm)
    return flagged(arc_length_mm(points), _caveats(items))


def _curve_row(name: str, curve: CoronalCurve, items: Sequence[LevelGeometry]) -> MeasurementRow:
    ends = [item for item in items if item.level in (curve.upper, curve.lower)]
    caveats = _caveats(ends)
    values: dict[str, float | str] = {
        "angle_deg": curve.angle_deg,
        "upper": curve.upper.name,
        "lower": curve.lower.name,
        "apex": curve.apex.name,
        "convex_to": curve.convex_to,
        "apex_offset_mm": curve.offset_mm,
    }
    return MeasurementRow(
        name, (curve.upper, curve.lower), {key: flagged(value, caveats) for key, value in values.items()}
    )


def _caveats(items: Sequence[LevelGeometry]) -> list[str]:
    return [f"{item.level.name}: {caveat}" for item in items for caveat in (*item.caveats, *item.plate_caveats)]
