"""From crops to the geometry of each level, with its caveats. No figures yet."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vertebral.core.anatomy import Level
from vertebral.stages.measure.body import BodyGeometry, find_body
from vertebral.stages.measure.caveats import (
    body_caveats,
    border_caveats,
    border_fault,
    depth_caveats,
    endplate_caveats,
    endplate_fault,
    mask_caveats,
    neighbour_caveats,
    slice_caveats,
    width_caveats,
)
from vertebral.stages.measure.crops import Crop
from vertebral.stages.measure.endplates import Endplate
from vertebral.stages.measure.frames import CoarsePoints, coarse_points, rough_frames
from vertebral.stages.measure.heights import Heights, heights_between
from vertebral.stages.measure.rules import MeasureRules
from vertebral.stages.measure.sacrum import sacral_endplate

NO_SUPERIOR_ENDPLATE = "C2 carries the dens: it has no superior endplate and no body height"


@dataclass(frozen=True, eq=False)
class LevelGeometry:
    """One level's geometry.

    `body` is None for `fault`, a reason. `plates` holds the usable endplates by side ("superior", "inferior"),
    `plate_faults` the reason why another one is missing. `mask_caveats` apply to the figures of the whole mask,
    `caveats` to all of the body's, `width_caveats` and `depth_caveats` to these sizes; `slice_caveats` apply to
    figures that need an endplate, and so do `side_caveats`, by side. `heights` is None if an endplate is missing.
    """

    crop: Crop
    body: BodyGeometry | None
    fault: str
    plates: dict[str, Endplate]
    plate_faults: dict[str, str]
    mask_caveats: tuple[str, ...]
    caveats: tuple[str, ...] = ()
    slice_caveats: tuple[str, ...] = ()
    side_caveats: dict[str, tuple[str, ...]] = field(default_factory=dict)
    width_caveats: tuple[str, ...] = ()
    depth_caveats: tuple[str, ...] = ()
    heights: Heights | None = None

    @property
    def level(self) -> Level:
        """The level that is measured."""
        return self.crop.level

    @property
    def plate_caveats(self) -> tuple[str, ...]:
        """The caveats of figures that need both endplates."""
        return (*self.slice_caveats, *(caveat for caveats in self.side_caveats.values() for caveat in caveats))


def measure_levels(crops: Sequence[Crop], rules: MeasureRules) -> tuple[LevelGeometry, ...]:
    """Find bodies and endplates of all `crops`, which run from head to tail."""
    vertebrae = [crop for crop in crops if crop.level.is_vertebra]
    coarse = [coarse_points(crop, rules) for crop in vertebrae]
    frames = rough_frames(coarse, rules) if coarse else ()
    bodies = [
        None if crop.level.name == "C1" else find_body(crop, points, rough, rules, crop.level.name != "C2")
        for crop, points, rough in zip(vertebrae, coarse, frames, strict=True)
    ]
    usable = [
        body if body and not border_fault(body, crop, rules) else None
        for crop, body in zip(vertebrae, bodies, strict=True)
    ]
    differing = neighbour_caveats(usable, rules)
    order = _order_caveats(coarse, rules)
    found = [
        _geometry(crop, body, (*more, *misplaced), rules)
        for crop, body, more, misplaced in zip(vertebrae, bodies, differing, order, strict=True)
    ]
    return (*found, *(_sacral(crop, found, rules) for crop in crops if not crop.level.is_vertebra))


def _order_caveats(vertebrae: Sequence[CoarsePoints], rules: MeasureRules) -> list[list[str]]:
    """Return a caveat for both of two neighbouring levels that are in the wrong order along the spine."""
    caveats: list[list[str]] = [[] for _ in vertebrae]
    if len(vertebrae) < rules.min_vertebrae_for_direction:
        return caveats
    cores = np.array([v.core_mm for v in vertebrae])
    steps = cores[:-1] - cores[1:]
    along = np.median(steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)
    for n, step in enumerate(steps):
        if step @ along < 0:
            caveats[n].append("is below the next level")
            caveats[n + 1].append("is above the previous level")
    return caveats


def _geometry(crop: Crop, body: BodyGeometry | None, more: tuple[str, ...], rules: MeasureRules) -> LevelGeometry:
    mask = mask_caveats(crop, rules)
    fault = _body_fault(crop, body, rules)
    if body is None or fault:
        return LevelGeometry(crop, None, fault, {}, dict.fromkeys(("superior", "inferior"), fault), mask)
    plates: dict[str, Endplate] = {}
    faults: dict[str, str] = {}
    uneven: dict[str, tuple[str, ...]] = {}
    for side, plate in (("superior", body.superior), ("inferior", body.inferior)):
        reason = endplate_fault(plate, crop, rules)
        if side == "superior" and crop.level.name == "C2":
            faults[side] = NO_SUPERIOR_ENDPLATE
        elif plate is None or reason:
            faults[side] = reason or "no endplate was found"
        else:
            plates[side] = plate
            uneven[side] = endplate_caveats(side, plate, 2 * body.half_mm[1], rules)
    body = replace(body, superior=plates.get("superior"), inferior=plates.get("inferior"))
    heights = None
    if len(plates) == 2:
        lower, upper = plates["inferior"].cloud, plates["superior"].cloud
        heights = heights_between(lower, upper, body.frame, body.half_mm[0], body.half_mm[1], rules)
    return LevelGeometry(
        crop,
        body,
        "",
        plates,
        faults,
        mask,
        (*mask, *body_caveats(crop.level, body, rules), *border_caveats(body, crop, rules), *more),
        slice_caveats(crop, body, rules),
        uneven,
        width_caveats(crop, body, rules),
        depth_caveats(crop, body, rules),
        heights,
    )


def _body_fault(crop: Crop, body: BodyGeometry | None, rules: MeasureRules) -> str:
    if crop.level.name == "C1":
        return "C1 has no body"
    if body is None:
        cut = " (the mask reaches the border of the scan)" if crop.touches_border else ""
        return f"no vertebral body was found in the mask{cut}"
    return border_fault(body, crop, rules)


def _sacral(crop: Crop, vertebrae: Sequence[LevelGeometry], rules: MeasureRules) -> LevelGeometry:
    reason = "only C2-L6 have a body that is measured"
    faults = {"superior": "only S1 has one here", "inferior": reason}
    plates: dict[str, Endplate] = {}
    caveats: dict[str, tuple[str, ...]] = {}
    if crop.level.name == "sacrum":
        last = vertebrae[-1] if vertebrae else None
        if last is None or last.level.name not in ("L5", "L6") or last.body is None:
            faults["superior"] = "L5 or L6, below which S1 is searched, was not measured"
        else:
            found = sacral_endplate(crop, last.body, rules)
            fault = endplate_fault(found, crop, rules)
            if found is None or fault:
                faults["superior"] = fault or "S1 was not found below the last lumbar vertebra"
            else:
                plates["superior"] = found
                caveats["superior"] = endplate_caveats("superior", found, 2 * last.body.half_mm[1], rules)
    return LevelGeometry(crop, None, reason, plates, faults, mask_caveats(crop, rules), side_caveats=caveats)
