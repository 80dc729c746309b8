"""The spine as a whole: its own planes, lordosis and kyphosis, coronal curves (Cobb), length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_NAME, Level
from vertebral.stages.measure.body import BodyGeometry
from vertebral.stages.measure.endplates import Endplate
from vertebral.stages.measure.frames import Frame, Points, frame_from
from vertebral.stages.measure.rules import MeasureRules

# Name: upper level and endplate, lower level and endplate, sign that makes the usual curvature positive.
REGIONS: dict[str, tuple[str, str, str, str, int]] = {
    "cervical_lordosis_C2_C7": ("C2", "inferior", "C7", "inferior", -1),
    "thoracic_kyphosis_T1_T12": ("T1", "superior", "T12", "inferior", 1),
    "thoracic_kyphosis_T4_T12": ("T4", "superior", "T12", "inferior", 1),
    "lumbar_lordosis_L1_L5": ("L1", "superior", "L5", "inferior", -1),
    "lumbar_lordosis_L1_S1": ("L1", "superior", "sacrum", "superior", -1),
}


@dataclass(frozen=True, eq=False)
class TiltedEndplate:
    """An endplate of a level (`side` "superior" or "inferior") with its tilt in the spine's own planes.

    `sagittal_deg` is how far its normal leans forwards, `coronal_deg` how far it leans to the right.
    """

    level: Level
    side: str
    endplate: Endplate
    sagittal_deg: float
    coronal_deg: float


@dataclass(frozen=True)
class CoronalCurve:
    """A coronal curve between the superior endplate of `upper` and the inferior one of `lower`; `angle_deg` >= 0.

    `apex` is the level whose centre is farthest from the line between the end vertebrae, `offset_mm` how far.
    """

    upper: Level
    lower: Level
    apex: Level
    angle_deg: float
    convex_to: str
    offset_mm: float


def spine_frame(bodies: Sequence[BodyGeometry]) -> Frame:
    """Return the spine's own frame: up along the line from the lowest to the highest body centre.

    Right is the mean of the bodies' right axes; so the angles do not depend on how the patient was positioned.
    """
    if len(bodies) == 1:
        return bodies[0].frame
    centres = np.array([body.frame.origin_mm for body in bodies])
    right = np.sum([body.frame.axes[0] for body in bodies], axis=0)
    up = centres[0] - centres[-1]
    return frame_from(centres.mean(axis=0), up, np.cross(up, right))


def tilted(level: Level, side: str, endplate: Endplate, spine: Frame) -> TiltedEndplate:
    """Return an endplate with its tilts in the spine's frame."""
    right, ahead, up = spine.axes @ endplate.normal
    return TiltedEndplate(
        level, side, endplate, float(np.degrees(np.arctan2(ahead, up))), float(np.degrees(np.arctan2(right, up)))
    )


def region_angle(name: str, plates: Sequence[TiltedEndplate]) -> float | str:
    """Return the sagittal angle of a region in degrees, or the reason why there is none.

    It is the angle between the two endplates of REGIONS (Cobb's method), positive for the lordosis or kyphosis named.
    """
    upper, upper_side, lower, lower_side, sign = REGIONS[name]
    found = []
    for level, side in ((upper, upper_side), (lower, lower_side)):
        plate = next((p for p in plates if p.level is BY_NAME[level] and p.side == side), None)
        if plate is None:
            return f"the {side} endplate of {'S1' if level == 'sacrum' else level} was not measured"
        found.append(plate)
    return sign * (found[0].sagittal_deg - found[1].sagittal_deg)


def coronal_curves(
    plates: Sequence[TiltedEndplate], centres: dict[Level, Points], spine: Frame, rules: MeasureRules
) -> tuple[CoronalCurve, ...]:
    """Find the coronal curves, the largest first.

    The main curve is between the superior endplate and the inferior one, further down, that are most tilted against
    each other, whatever its size. The next curves above and below share its end vertebrae; they count if they bend the
    other way by `rules.min_secondary_curve_deg` or more.
    """
    levels = sorted(centres, key=lambda level: level.rank)
    top = {p.level: p.coronal_deg for p in plates if p.side == "superior"}
    bottom = {p.level: p.coronal_deg for p in plates if p.side == "inferior"}
    pairs = [(a, b) for n, a in enumerate(levels) for b in levels[n + 1 :] if a in top and b in bottom]
    if not pairs:
        return ()
    main = max(pairs, key=lambda pair: abs(top[pair[0]] - bottom[pair[1]]))
    chosen = [main]
    for upwards in (True, False):
        end, sign = main, np.sign(top[main[0]] - bottom[main[1]])
        while True:
            sign = -sign
            if upwards:
                further = [(a, b) for a, b in pairs if b is end[0]]
            else:
                further = [(a, b) for a, b in pairs if a is end[1]]
            further = [(a, b) for a, b in further if sign * (top[a] - bottom[b]) >= rules.min_secondary_curve_deg]
            if not further:
                break
            end = max(further, key=lambda pair: abs(top[pair[0]] - bottom[pair[1]]))
            chosen.append(end)
    curves = [_curve(a, b, top[a] - bottom[b], levels, centres, spine) for a, b in chosen]
    return tuple(sorted(curves, key=lambda curve: -curve.angle_deg))


def arc_length_mm(points_mm: Sequence[NDArray[np.float64]]) -> float:
    """Return the length of a smooth curve (cubic spline over the chords) through two or more points (3,)."""
    points = np.asarray(points_mm)
    chords = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    if len(points) < 3:
        return float(chords[-1])
    # Imported here because it takes a third of a second, which other stages need not wait for.
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(chords, points)
    fine = spline(np.linspace(0, chords[-1], 40 * len(points)))
    return float(np.linalg.norm(np.diff(fine, axis=0), axis=1).sum())


def _curve(
    upper: Level, lower: Level, signed_deg: float, levels: Sequence[Level], centres: dict[Level, Points], spine: Frame
) -> CoronalCurve:
    within = [level for level in levels if upper.rank <= level.rank <= lower.rank]
    places = spine.to_own(np.array([centres[level] for level in within]))
    line = np.interp(places[:, 2], places[[-1, 0], 2], places[[-1, 0], 0])
    away = places[:, 0] - line
    # The upper end leans to the right where the curve bulges to the left.
    bulge = -float(np.sign(signed_deg) or 1.0)
    apex = int(np.argmax(away * bulge))
    return CoronalCurve(
        upper, lower, within[apex], abs(signed_deg), "right" if bulge > 0 else "left", float(abs(away[apex]))
    )
