"""The vertebral body, told apart from arch and processes: its centre, axes, walls and endplates.

The body is what lies before the vertebral canal around its thickest place. From there rays go out to the walls and up
and down to the endplates; the endplates give the up axis, the canal and the mirror symmetry of the whole vertebra the
anterior one. This is repeated until nothing moves.
"""

from dataclasses import dataclass, replace

import numpy as np

from vertebral.core.anatomy import Level
from vertebral.stages.measure.boundary_voxels import stepped_cloud
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
from vertebral.stages.measure.frames import Coarse, Frame, frame_from
from vertebral.stages.measure.walls import Sampled, back_wall, find_walls, sampled_around

# Share of the half axes of the body's elliptic footprint within which endplates are fitted: rims are rounded.
FOOTPRINT = 0.85
_ROUNDS = 5
_STILL_DEG, _STILL_MM = 0.2, 0.2
_LEAST_HALF_MM = 2.5
_AGAIN_MM = 12.0
_FIRST_STEP_MM = 1.5
_ROOM_SHARE, _ROOM_MM = 1.25, 4.0


@dataclass(frozen=True)
class Room:
    """How far around the body's centre is looked (half lengths to the right, ahead, up) and how finely, in mm.

    `half_mm` is a first guess of the body's own half lengths; `beside_mm` is how far from the midline its thickest
    place may lie. `winged` bodies carry transverse processes on their sides, so their width is that of their front.
    """

    reach_mm: tuple[float, float, float]
    step_mm: float
    half_mm: tuple[float, float, float]
    beside_mm: float
    winged: bool = False


ROOMS = {
    "cervical": Room((22.0, 18.0, 18.0), 0.75, (8.0, 7.0, 5.5), 3.0, winged=True),
    "thoracic": Room((32.0, 28.0, 26.0), 1.0, (13.0, 12.0, 9.0), 10.0),
    "lumbar": Room((38.0, 30.0, 30.0), 1.0, (20.0, 16.0, 12.0), 10.0),
}
_FIRST_THORACIC = replace(ROOMS["thoracic"], winged=True)


def room_for(level: Level) -> Room:
    """Return where to look for a level's body; T1 carries its ribs on its sides as C7 its transverse processes."""
    return _FIRST_THORACIC if level.name == "T1" else ROOMS[level.region]


@dataclass(frozen=True)
class Body:
    """A vertebral body. The frame's origin is its centre at mid-height, its up axis the mean of the endplates' normals.

    `half_mm` are half the width, half the depth and half the height at the centre, along the frame's axes; where no
    side walls were met, `sides_met` is false and the width is a guess. `back_wall`
    is (offset, slope): the posterior wall in the midline lies at `offset + slope * up` ahead of the origin.
    `volume_ml` counts what lies before the posterior wall and beside the midline by no more than the body's half width.
    `mirror` in [0, 1] tells how symmetric the whole vertebra is. An endplate is None where it could not be found.
    """

    frame: Frame
    half_mm: tuple[float, float, float]
    back_wall: tuple[float, float]
    superior: Endplate | None
    inferior: Endplate | None
    canal: Canal | None
    mirror: float
    volume_ml: float
    sides_met: bool = True


@dataclass(frozen=True)
class _Met:
    """The surface that rays met above or below the footprint, in the frame, and the shares that `Endplate` names."""

    cloud: Cloud
    coverage: float
    hollow: float


def find_body(crop: Crop, vertebra: Coarse, rough: Frame, with_top: bool = True) -> Body | None:
    """Find the body of a vertebra; None where no body can be told apart (the mask is too thin, broken or too small).

    `rough` is a first frame, 25 degrees off at most. Without `with_top` (C2, whose dens stands there) the superior
    endplate is left out, the up axis is that of the inferior one, and the height has no meaning.
    """
    room = room_for(crop.level)
    canal = find_canal(vertebra, rough)
    start = rough if canal is None else mirrored_axes(vertebra, canal.frame)[0]
    body = _settled(crop, _thickest(vertebra, start, canal, room), replace(room, step_mm=_FIRST_STEP_MM), with_top)
    if body is None:
        return None
    canal = find_canal(vertebra, body.frame, search=False) or canal
    turned, mirror = _turned(vertebra, body.frame, canal)
    room = replace(room, reach_mm=_around(body.half_mm), half_mm=body.half_mm)
    body = _settled(crop, turned, room, with_top) or body
    sampled = sampled_around(crop, body.frame, _around(body.half_mm), room.step_mm)
    back = back_wall(sampled, body.half_mm)
    volume_ml = _volume_ml(sampled, body, back)
    return replace(body, canal=canal, mirror=mirror, back_wall=back, volume_ml=volume_ml)


def _around(half_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return how far to look around a body whose half lengths are roughly known."""
    right, ahead, up = (_ROOM_SHARE * half + _ROOM_MM for half in half_mm)
    return right, ahead, up


def _thickest(vertebra: Coarse, frame: Frame, canal: Canal | None, room: Room) -> Frame:
    """Move `frame` to the deepest part of the vertebra that lies before the canal, near the midline."""
    own = frame.to_own(vertebra.points_mm)
    chosen = np.ones(len(own), bool)
    if canal is not None:
        chosen = (own[:, 1] > canal.front_mm) & (np.abs(own[:, 0]) < room.beside_mm)
    if not chosen.any():
        return frame
    depth = np.where(chosen, vertebra.depth_mm, 0)
    weight = np.maximum(depth - 0.6 * depth.max(), 0)
    return frame.moved(weight @ own / weight.sum())


def _turned(vertebra: Coarse, frame: Frame, canal: Canal | None) -> tuple[Frame, float]:
    """Turn `frame` about its up axis: from the canal to the body, then by symmetry."""
    if canal is not None:
        ahead = frame.origin_mm - canal.frame.origin_mm
        if np.linalg.norm(ahead - frame.axes[2] * (ahead @ frame.axes[2])) > 5:
            frame = frame_from(frame.origin_mm, frame.axes[2], ahead)
    return mirrored_axes(vertebra, frame)


def _settled(crop: Crop, frame: Frame, room: Room, with_top: bool) -> Body | None:
    """Repeat walls and endplates until the frame stands still."""
    half = room.half_mm
    body: Body | None = None
    for _ in range(_ROUNDS):
        sampled = sampled_around(crop, frame, room.reach_mm, room.step_mm)
        found = find_walls(crop, sampled, half, room.winged)
        if found is None:
            return body
        shift, half, sides_met = found
        top = _surface(crop, sampled, shift, half, 1, room.winged) if with_top else None
        bottom = _surface(crop, sampled, shift, half, -1, room.winged)
        moved, half = _moved(frame, shift, half, top, bottom)
        superior, inferior = (
            None
            if met is None
            else endplate_from(met.cloud.placed_by(frame).seen_from(moved), moved, met.coverage, met.hollow)
            for met in (top, bottom)
        )
        body = Body(moved, half, (0.0, 0.0), superior, inferior, None, 0.0, 0.0, sides_met)
        turn = np.degrees(np.arccos(np.clip(float(moved.axes[2] @ frame.axes[2]), -1, 1)))
        if turn < _STILL_DEG and np.linalg.norm(moved.origin_mm - frame.origin_mm) < _STILL_MM:
            break
        frame = moved
    return body


def _surface(
    crop: Crop, sampled: Sampled, centre: Vector, half: tuple[float, float, float], towards: int, winged: bool
) -> _Met | None:
    """Send rays from the middle plane up or down, within the footprint; None where nearly none meets a surface."""
    right, ahead, _ = sampled.axes_mm
    # A cervical body's lips rise beside its superior endplate: keep to the middle there.
    narrow = 0.6 / FOOTPRINT if towards > 0 and winged else 1.0
    across, along = (right - centre[0]) / (half[0] * FOOTPRINT), (ahead - centre[1]) / (half[1] * FOOTPRINT)
    inside = (across[:, None] ** 2 + along[None, :] ** 2 <= 1) & (np.abs(across) <= narrow)[:, None]
    exits, slack = exit_intervals(sampled.values, sampled.zero[2], towards, sampled.step_mm)
    met = inside & np.isfinite(exits)
    if not inside.any() or np.count_nonzero(met) < 12:
        return None
    i, j = np.nonzero(met)
    cloud = stepped_cloud(crop, sampled.frame, towards, exits, sampled.axes_mm, inside)
    if len(cloud.points) < 12:
        cloud = cloud_along_rays(np.column_stack([right[i], ahead[j], exits[met]]), slack[met])
    again = reentries(
        sampled.values, sampled.zero[2], towards, np.abs(exits) / sampled.step_mm, _AGAIN_MM / sampled.step_mm
    )
    count = float(np.count_nonzero(inside))
    return _Met(cloud, np.count_nonzero(met) / count, np.count_nonzero(again & inside) / count)


def _moved(
    frame: Frame,
    shift: Vector,
    half: tuple[float, float, float],
    top: _Met | None,
    bottom: _Met | None,
) -> tuple[Frame, tuple[float, float, float]]:
    """Set the frame upright between the endplates that were found."""
    planes: list[Plane] = []
    heights: list[float] = []
    for surface in (top, bottom):
        plane = None if surface is None else fitted_plane(surface.cloud)
        if plane is not None:
            planes.append(plane)
            heights.append(plane.at(float(shift[0]), float(shift[1])))
    if not planes:
        return frame.moved(shift), half
    up = np.sum([plane.normal for plane in planes], axis=0) @ frame.axes
    if len(planes) == 2:
        height, half_height = (heights[0] + heights[1]) / 2, max((heights[0] - heights[1]) / 2, _LEAST_HALF_MM)
    else:
        half_height = half[2]
        height = heights[0] + (half_height if bottom is not None else -half_height)
    centre = frame.to_world(np.array([shift[0], shift[1], height]))
    return frame_from(centre, up, frame.axes[1]), (half[0], half[1], half_height)


def _volume_ml(sampled: Sampled, body: Body, back: tuple[float, float]) -> float:
    right, ahead, up = sampled.axes_mm
    beside = (np.abs(right) <= 1.1 * body.half_mm[0])[:, None, None]
    before = (ahead[:, None] >= back[0] + back[1] * up[None, :])[None]
    # The roots of the pedicles lie in the upper half alone: behind the centre it holds no more than the lower one.
    mirrored = np.minimum(sampled.values, 2 * sampled.values[:, :, ::-1])
    values = np.where((ahead < 0)[:, None] & (up > 0)[None, :], mirrored, sampled.values)
    return float((values * (beside & before)).sum()) * sampled.step_mm**3 / 1000
