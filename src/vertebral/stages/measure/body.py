"""The vertebral body, separated from arch and processes: its centre, axes, walls and endplates.

The body is the bone in front of the vertebral canal, around the thickest place there. Rays run from that place to the
walls, and up and down to the endplates. The endplates give the up axis; the canal and the mirror symmetry of the whole
vertebra give the anterior one. This is repeated until nothing moves.
"""

from dataclasses import dataclass, replace

import numpy as np

from vertebral.core.anatomy import Level
from vertebral.stages.measure.boundary_voxels import boundary_cloud
from vertebral.stages.measure.canal import Canal, find_canal, mirrored_axes
from vertebral.stages.measure.crops import Crop, Vector
from vertebral.stages.measure.endplates import (
    Cloud,
    Endplate,
    Plane,
    cloud_along_rays,
    endplate_from,
    exit_intervals,
    fitted_plane,
    reentries,
)
from vertebral.stages.measure.frames import CoarsePoints, Frame, frame_from
from vertebral.stages.measure.rules import MeasureRules
from vertebral.stages.measure.walls import SampledCrop, back_wall, find_walls, sampled_around

_ROUNDS = 5
_STILL_DEG, _STILL_MM = 0.2, 0.2


@dataclass(frozen=True)
class SearchExtent:
    """How far around the body's centre is searched (half lengths to the right, ahead, up) and how finely, in mm.

    `half_mm` is a first guess of the body's own half sizes; `midline_mm` is how far from the midline its thickest place
    may be. Bodies with `processes_aside` carry transverse processes on their sides, so their width is that of the
    front half.
    """

    reach_mm: tuple[float, float, float]
    step_mm: float
    half_mm: tuple[float, float, float]
    midline_mm: float
    processes_aside: bool


def search_extent(level: Level, rules: MeasureRules) -> SearchExtent:
    """Return where to search for the body of a level."""
    region = level.region
    reach, step, half, midline = (
        rules.of_region(region, name) for name in ("reach_mm", "sampling_mm", "first_half_mm", "midline_mm")
    )
    return SearchExtent(reach, step, half, midline, has_processes_aside(level))


def has_processes_aside(level: Level) -> bool:
    """Tell whether processes arise from the sides of a level's body: T1 carries its ribs as C7 transverse processes."""
    return level.region == "cervical" or level.name == "T1"


@dataclass(frozen=True, eq=False)
class BodyGeometry:
    """A vertebral body. The frame's origin is its centre at mid-height, its up axis the mean of the endplates' normals.

    `half_mm` are half the width, half the depth and half the height at the centre, along the frame's axes; if no side
    walls were found, `sides_found` is False and the width is a guess. `back_wall` is (offset, slope): the posterior
    wall in the midline is at `offset + slope * up` along the anterior axis. `volume_ml` is that of the bone in front of
    the posterior wall and within about the body's half width of the midline. `symmetry` in [0, 1] is that of the whole
    vertebra. An endplate is None if it was not found.
    """

    frame: Frame
    half_mm: tuple[float, float, float]
    back_wall: tuple[float, float]
    superior: Endplate | None
    inferior: Endplate | None
    canal: Canal | None
    symmetry: float
    volume_ml: float
    sides_found: bool = True


@dataclass(frozen=True, eq=False)
class _EndplateRays:
    """The surface that rays met above or below the footprint, in the frame, and the shares of `Endplate`."""

    cloud: Cloud
    coverage: float
    reentries: float


def find_body(
    crop: Crop, vertebra: CoarsePoints, rough: Frame, rules: MeasureRules, with_top: bool = True
) -> BodyGeometry | None:
    """Find the body of a vertebra; None if there is none to be found (the mask is too thin, broken or too small).

    `rough` is a first frame, 25 degrees off at most. Without `with_top` (C2, where the dens is) the superior endplate
    is left out, the up axis is that of the inferior one, and the height has no meaning.
    """
    extent = search_extent(crop.level, rules)
    canal = find_canal(vertebra, rough, rules)
    start = rough if canal is None else mirrored_axes(vertebra, canal.frame, rules)[0]
    start = _thickest(vertebra, start, canal, extent.midline_mm, rules)
    body = _settled(crop, start, replace(extent, step_mm=rules.first_sampling_mm), with_top, rules)
    if body is None:
        return None
    canal = find_canal(vertebra, body.frame, rules, search=False) or canal
    turned, symmetry = _turned(vertebra, body.frame, canal, rules)
    extent = replace(extent, reach_mm=_reach(body.half_mm, rules), half_mm=body.half_mm)
    body = _settled(crop, turned, extent, with_top, rules) or body
    sampled = sampled_around(crop, body.frame, _reach(body.half_mm, rules), extent.step_mm)
    back = back_wall(sampled, body.half_mm, rules)
    volume_ml = _volume_ml(sampled, body, back, rules)
    return replace(body, canal=canal, symmetry=symmetry, back_wall=back, volume_ml=volume_ml)


def _reach(half_mm: tuple[float, float, float], rules: MeasureRules) -> tuple[float, float, float]:
    """Return how far to search around a body whose half sizes are roughly known."""
    right, ahead, up = (rules.reach_half_factor * half + rules.reach_margin_mm for half in half_mm)
    return right, ahead, up


def _thickest(
    vertebra: CoarsePoints, frame: Frame, canal: Canal | None, midline_mm: float, rules: MeasureRules
) -> Frame:
    """Move `frame` to the thickest place of the vertebra in front of the canal, near the midline."""
    own = frame.to_own(vertebra.points_mm)
    chosen = np.ones(len(own), bool)
    if canal is not None:
        chosen = (own[:, 1] > canal.front_mm) & (np.abs(own[:, 0]) < midline_mm)
    if not chosen.any():
        return frame
    depth = np.where(chosen, vertebra.depth_mm, 0)
    weight = np.maximum(depth - rules.thickest_min_depth_share * depth.max(), 0)
    return frame.moved(weight @ own / weight.sum())


def _turned(vertebra: CoarsePoints, frame: Frame, canal: Canal | None, rules: MeasureRules) -> tuple[Frame, float]:
    """Turn `frame` about its up axis: from the canal to the body, then by symmetry; also return the symmetry."""
    if canal is not None:
        ahead = frame.origin_mm - canal.frame.origin_mm
        if np.linalg.norm(ahead - frame.axes[2] * (ahead @ frame.axes[2])) > rules.min_canal_to_body_mm:
            frame = frame_from(frame.origin_mm, frame.axes[2], ahead)
    return mirrored_axes(vertebra, frame, rules)


def _settled(
    crop: Crop, frame: Frame, extent: SearchExtent, with_top: bool, rules: MeasureRules
) -> BodyGeometry | None:
    """Repeat walls and endplates until the frame no longer moves."""
    half = extent.half_mm
    body: BodyGeometry | None = None
    for _ in range(_ROUNDS):
        sampled = sampled_around(crop, frame, extent.reach_mm, extent.step_mm)
        found = find_walls(crop, sampled, half, extent.processes_aside, rules)
        if found is None:
            return body
        shift, half, sides_found = found
        top = _surface(crop, sampled, shift, half, 1, extent.processes_aside, rules) if with_top else None
        bottom = _surface(crop, sampled, shift, half, -1, False, rules)
        moved, half = _moved(frame, shift, half, top, bottom, rules)
        superior, inferior = (
            None
            if met is None
            else endplate_from(met.cloud.placed_by(frame).seen_from(moved), moved, met.coverage, met.reentries, rules)
            for met in (top, bottom)
        )
        body = BodyGeometry(moved, half, (0.0, 0.0), superior, inferior, None, 0.0, 0.0, sides_found)
        turn = np.degrees(np.arccos(np.clip(float(moved.axes[2] @ frame.axes[2]), -1, 1)))
        if turn < _STILL_DEG and np.linalg.norm(moved.origin_mm - frame.origin_mm) < _STILL_MM:
            break
        frame = moved
    return body


def _surface(
    crop: Crop,
    sampled: SampledCrop,
    centre: Vector,
    half: tuple[float, float, float],
    towards: int,
    lipped: bool,
    rules: MeasureRules,
) -> _EndplateRays | None:
    """Send rays from the middle plane up or down, within the footprint; None if nearly none meets a surface.

    The sides of a `lipped` endplate (the superior one of a cervical body) rise, so only its middle is used.
    """
    right, ahead, _ = sampled.axes_mm
    footprint = rules.footprint_share
    narrow = rules.lipped_width_share / footprint if lipped else 1.0
    across, along = (right - centre[0]) / (half[0] * footprint), (ahead - centre[1]) / (half[1] * footprint)
    inside = (across[:, None] ** 2 + along[None, :] ** 2 <= 1) & (np.abs(across) <= narrow)[:, None]
    exits, slack = exit_intervals(sampled.values, sampled.zero[2], towards, sampled.step_mm, rules)
    met = inside & np.isfinite(exits)
    if not inside.any() or np.count_nonzero(met) < rules.min_surface_points:
        return None
    i, j = np.nonzero(met)
    cloud = boundary_cloud(crop, sampled.frame, towards, exits, sampled.axes_mm, inside, rules)
    if len(cloud.points) < rules.min_surface_points:
        cloud = cloud_along_rays(np.column_stack([right[i], ahead[j], exits[met]]), slack[met])
    within = rules.reentry_within_mm / sampled.step_mm
    again = reentries(sampled.values, sampled.zero[2], towards, np.abs(exits) / sampled.step_mm, within)
    count = float(np.count_nonzero(inside))
    return _EndplateRays(cloud, np.count_nonzero(met) / count, np.count_nonzero(again & inside) / count)


def _moved(
    frame: Frame,
    shift: Vector,
    half: tuple[float, float, float],
    top: _EndplateRays | None,
    bottom: _EndplateRays | None,
    rules: MeasureRules,
) -> tuple[Frame, tuple[float, float, float]]:
    """Align the frame with the endplates that were found, and centre it between them."""
    planes: list[Plane] = []
    heights: list[float] = []
    for surface in (top, bottom):
        plane = None if surface is None else fitted_plane(surface.cloud, rules)
        if plane is not None:
            planes.append(plane)
            heights.append(plane.at(float(shift[0]), float(shift[1])))
    if not planes:
        return frame.moved(shift), half
    up = np.sum([plane.normal for plane in planes], axis=0) @ frame.axes
    if len(planes) == 2:
        height = (heights[0] + heights[1]) / 2
        half_height = max((heights[0] - heights[1]) / 2, rules.min_half_height_mm)
    else:
        half_height = half[2]
        height = heights[0] + (half_height if bottom is not None else -half_height)
    centre = frame.to_world(np.array([shift[0], shift[1], height]))
    return frame_from(centre, up, frame.axes[1]), (half[0], half[1], half_height)


def _volume_ml(sampled: SampledCrop, body: BodyGeometry, back: tuple[float, float], rules: MeasureRules) -> float:
    right, ahead, up = sampled.axes_mm
    within_width = (np.abs(right) <= rules.body_width_factor * body.half_mm[0])[:, None, None]
    in_front = (ahead[:, None] >= back[0] + back[1] * up[None, :])[None]
    # The roots of the pedicles are in the upper half only: behind the centre, the lower half's mirror image bounds it.
    mirrored = np.minimum(sampled.values, rules.pedicle_root_factor * sampled.values[:, :, ::-1])
    values = np.where((ahead < 0)[:, None] & (up > 0)[None, :], mirrored, sampled.values)
    return float((values * (within_width & in_front)).sum()) * sampled.step_mm**3 / 1000
