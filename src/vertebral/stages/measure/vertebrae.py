"""From a label map to bodies: the geometry of each level, with what speaks against it. No figures yet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vertebral.core.anatomy import Level
from vertebral.stages.measure.body import Body, find_body
from vertebral.stages.measure.crops import Crop
from vertebral.stages.measure.endplates import Endplate
from vertebral.stages.measure.frames import Coarse, coarse_points, rough_frames
from vertebral.stages.measure.heights import Heights, heights_between
from vertebral.stages.measure.plausible import (
    body_doubts,
    border_doubts,
    border_fault,
    depth_doubts,
    endplate_doubts,
    endplate_fault,
    mask_doubts,
    neighbour_doubts,
    slice_doubts,
    width_doubts,
)
from vertebral.stages.measure.sacrum import sacral_endplate

NO_DISC_ABOVE = "C2 carries the dens: it has no superior endplate and no body height"


@dataclass(frozen=True)
class Measured:
    """One level's geometry.

    `body` is None for `fault`, a reason. `plates` holds the usable endplates ("superior", "inferior"), `plate_faults`
    why another is missing. `doubts` speak against all of the body's figures, `plate_doubts` against those that need an
    endplate, `width_doubts` and `depth_doubts` against these sizes, `mask_doubts` against those of the whole mask.
    `heights` is None where an endplate is missing.
    """

    crop: Crop
    body: Body | None
    fault: str
    plates: dict[str, Endplate]
    plate_faults: dict[str, str]
    mask_doubts: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    plate_doubts: tuple[str, ...] = ()
    width_doubts: tuple[str, ...] = ()
    depth_doubts: tuple[str, ...] = ()
    heights: Heights | None = None

    @property
    def level(self) -> Level:
        """The level that it is about."""
        return self.crop.level


def measure_bodies(crops: Sequence[Crop]) -> tuple[Measured, ...]:
    """Find bodies and endplates of all `crops`, which run from head to tail."""
    vertebrae = [crop for crop in crops if crop.level.is_vertebra]
    coarse = [coarse_points(crop) for crop in vertebrae]
    bodies = [
        None if crop.level.name == "C1" else find_body(crop, points, rough, crop.level.name != "C2")
        for crop, points, rough in zip(vertebrae, coarse, rough_frames(coarse) if coarse else (), strict=True)
    ]
    usable = [
        body if body and not border_fault(body, crop) else None for crop, body in zip(vertebrae, bodies, strict=True)
    ]
    beside = neighbour_doubts(usable)
    order = _order_doubts(coarse)
    found = [
        _measured(crop, body, (*more, *misplaced))
        for crop, body, more, misplaced in zip(vertebrae, bodies, beside, order, strict=True)
    ]
    return (*found, *(_sacral(crop, found) for crop in crops if not crop.level.is_vertebra))


def _order_doubts(vertebrae: Sequence[Coarse]) -> list[list[str]]:
    """Return a doubt for both of two levels that stand the wrong way round along the spine."""
    doubts: list[list[str]] = [[] for _ in vertebrae]
    if len(vertebrae) < 3:
        return doubts
    cores = np.array([v.core_mm for v in vertebrae])
    steps = cores[:-1] - cores[1:]
    along = np.median(steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)
    for n, step in enumerate(steps):
        if step @ along < 0:
            doubts[n].append("lies below the next level")
            doubts[n + 1].append("lies above the level before it")
    return doubts


def _measured(crop: Crop, body: Body | None, more: tuple[str, ...]) -> Measured:
    mask = tuple(mask_doubts(crop))
    fault = _body_fault(crop, body)
    if body is None or fault:
        return Measured(crop, None, fault, {}, dict.fromkeys(("superior", "inferior"), fault), mask)
    plates: dict[str, Endplate] = {}
    faults: dict[str, str] = {}
    uneven = slice_doubts(crop, body)
    for side, plate in (("superior", body.superior), ("inferior", body.inferior)):
        reason = endplate_fault(plate, crop)
        if side == "superior" and crop.level.name == "C2":
            faults[side] = NO_DISC_ABOVE
        elif plate is None or reason:
            faults[side] = reason or "no endplate was found"
        else:
            plates[side] = plate
            uneven += endplate_doubts(side, plate, 2 * body.half_mm[1])
    body = replace(body, superior=plates.get("superior"), inferior=plates.get("inferior"))
    heights = None
    if len(plates) == 2:
        lower, upper = plates["inferior"].cloud, plates["superior"].cloud
        heights = heights_between(lower, upper, body.frame, body.half_mm[0], body.half_mm[1])
    doubts = (*mask, *body_doubts(crop.level, body), *border_doubts(body, crop), *more)
    sizes = tuple(width_doubts(crop, body)), tuple(depth_doubts(crop, body))
    return Measured(crop, body, "", plates, faults, mask, doubts, tuple(uneven), *sizes, heights)


def _body_fault(crop: Crop, body: Body | None) -> str:
    if crop.level.name == "C1":
        return "C1 has no body"
    if body is None:
        cut = " (the mask reaches the border of the scan)" if crop.touches_border else ""
        return f"no body could be told apart in the mask{cut}"
    return border_fault(body, crop) or ""


def _sacral(crop: Crop, vertebrae: Sequence[Measured]) -> Measured:
    reason = "only vertebrae C2-L6 have a body here"
    faults = {"superior": "only S1 has one", "inferior": reason}
    plates: dict[str, Endplate] = {}
    doubts: tuple[str, ...] = ()
    if crop.level.name == "sacrum":
        last = vertebrae[-1] if vertebrae else None
        if last is None or last.level.region != "lumbar" or last.level.name not in ("L5", "L6") or last.body is None:
            faults["superior"] = "the last lumbar vertebra, from which S1 is looked for, was not measured"
        else:
            found = sacral_endplate(crop, last.body)
            fault = endplate_fault(found, crop)
            if found is None or fault:
                faults["superior"] = fault or "S1 was not met below the last lumbar vertebra"
            else:
                plates["superior"] = found
                doubts = tuple(endplate_doubts("superior", found, 2 * last.body.half_mm[1]))
    return Measured(crop, None, reason, plates, faults, tuple(mask_doubts(crop)), (), doubts)
