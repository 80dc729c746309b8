"""From named occupancies or a label map to surfaces: one closed, manifold, outward mesh per vertebra, in RAS+ mm.

Flying edges at 0.5, a low-pass filter that leaves no vertex further than half a voxel from where the label map had it,
a shift that gives each mesh the volume of its voxels, a gap between neighbours, and fewer triangles within an error
bound. Each mesh is checked as it will be written; what fails is made again, less smooth or with more triangles.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from manifold3d import Manifold, Mesh
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from vertebral.core.anatomy import BY_VERSE_ID, Level, sort_levels
from vertebral.core.errors import InputError, VertebralError
from vertebral.core.mesh_checks import Faces, Points, SurfaceCheck, areas, check_surface, has_flat_faces, vertex_normals
from vertebral.core.mesh_intersections import self_intersections
from vertebral.core.records import Spine, Surface
from vertebral.core.volume import Affine, Grid, Volume
from vertebral.runtime.processes import Beside
from vertebral.stages.reconstruct.clearance import kept_apart, neighbours
from vertebral.stages.reconstruct.config import MeshConfig
from vertebral.stages.reconstruct.decimation import decimated
from vertebral.stages.reconstruct.fairing import Draft, evened_near, faired, mended, refilled
from vertebral.stages.reconstruct.field import Field, field_of

__all__ = [
    "Gap",
    "Reconstruction",
    "SurfaceCheck",
    "check_surface",
    "field_of",
    "fields_of_labels",
    "mesh_fields",
    "reconstruct",
    "surface_from_mask",
]

Progress = Callable[[str, float], None]

_SEARCH_MM = 2.0
_ROUNDS = 4
_MORE_MM = 0.02
_CARVED_ERROR_MM = 0.02
_ATTEMPTS = 12
_EVENED, _EVENED_EDGES = 2, 2.0


@dataclass(frozen=True)
class Gap:
    """The least distance in mm between two neighbours, at most `_SEARCH_MM`; 0 where they intersect."""

    first: Level
    second: Level
    mm: float


@dataclass(frozen=True)
class Reconstruction:
    """Surfaces from head to tail with what they were made from, and the gaps between neighbours nearer than 2 mm."""

    surfaces: tuple[Surface, ...]
    fields: tuple[Field, ...]
    gaps: tuple[Gap, ...]


def reconstruct(spine: Spine, config: MeshConfig | None = None, processors: int = 1) -> tuple[Surface, ...]:
    """Return one surface per vertebra, in the spine's order; neighbours are kept apart.

    Each is a single closed outer surface: crumbs and inner cavities are dropped, rings (the vertebral canal) are kept.
    Raises VertebralError where an occupancy stays below 0.5 everywhere or its mesh is not manifold.
    """
    parts = [(v.instance.occupancy, v.instance.box, v.level) for v in spine.vertebrae]
    fields = [field_of(values, box, spine.grid, level) for values, box, level in parts]
    return mesh_fields(fields, config or MeshConfig(), processors=processors).surfaces


def surface_from_mask(mask: NDArray[np.bool_], affine: Affine, level: Level) -> Surface:
    """Return the surface of `mask` (I, J, K) whose `affine` maps voxel indices to RAS+ mm, with all its triangles.

    Raises VertebralError where the mask is empty or its mesh is not manifold, GeometryError for a bad affine.
    """
    grid = Grid(mask.shape, affine)
    i, j, k = (slice(0, n) for n in grid.shape)
    field = field_of(np.asarray(mask, dtype=bool), (i, j, k), grid, level)
    return mesh_fields([field], MeshConfig(max_error_mm=0)).surfaces[0]


def fields_of_labels(
    labels: Volume,
    levels: Sequence[Level] | None = None,
    spacing_mm: float | None = None,
    progress: Progress = lambda name, share: None,
) -> list[Field]:
    """Return the fields of a label map with VerSe ids (I, J, K), from head to tail; `levels` None takes all it holds.

    Raises InputError where it holds none of them, or a value that is no VerSe id.
    """
    array = np.asfortranarray(labels.array)
    boxes = {n + 1: box[::-1] for n, box in enumerate(find_objects(array.T)) if box is not None}
    unknown = sorted(set(boxes) - set(BY_VERSE_ID))
    if unknown:
        raise InputError(f"label {unknown[0]} is no VerSe id (C1-C7 1-7, T1-T12 8-19, L1-L6 20-25, sacrum 26, T13 28)")
    found = sort_levels(level for value, level in BY_VERSE_ID.items() if value in boxes)
    chosen = [level for level in found if levels is None or level in levels]
    if not chosen:
        has = ", ".join(level.name for level in found) or "no label at all"
        raise InputError(f"none of the levels asked for is in the label map; it has {has}")
    fields = []
    for n, level in enumerate(chosen):
        progress("sample", n / len(chosen))
        box = boxes[level.verse_id]
        fields.append(field_of(array[box] == level.verse_id, box, labels.grid, level, spacing_mm))
    progress("sample", 1.0)
    return fields


def mesh_fields(
    fields: Sequence[Field],
    config: MeshConfig,
    progress: Progress = lambda name, share: None,
    processors: int = 1,
) -> Reconstruction:
    """Return the surfaces of `fields` (from head to tail), each checked and apart from its neighbours.

    With more than one of `processors` copies of this process help, see `processes.Beside`; the surfaces are the same.

    Raises VertebralError where no printable surface can be made of one.
    """
    drafts = []
    for n, field in enumerate(fields):
        progress("smooth", n / len(fields))
        drafts.append(faired(field, config.smooth))
    progress("smooth", 1.0)
    # Decimation moves both sides, rarely by all it may: ask for that much more, and again where it was not enough.
    wanted = dict.fromkeys(
        neighbours([draft.vertices for draft in drafts], _SEARCH_MM), config.clearance_mm + config.max_error_mm / 2
    )
    parted = kept_apart(drafts, wanted)
    drafts = [refilled(after, before.vertices) for after, before in zip(parted, drafts, strict=True)]
    with Beside(processors) as beside:
        finished = beside.map(
            lambda draft: _finished_or_same(draft, config.max_error_mm), drafts, lambda share: progress("check", share)
        )
    surfaces = [surface for surface, _ in finished]
    drafts = [mended or draft for draft, (_, mended) in zip(drafts, finished, strict=True)]
    solids = [_solid(surface) for surface in surfaces]
    gaps = _gaps(solids, wanted)
    for _ in range(_ROUNDS):
        near = {pair: gap for pair, gap in gaps.items() if gap < config.clearance_mm}
        if not near:
            break
        for pair, gap in near.items():
            wanted[pair] += config.clearance_mm - gap + _MORE_MM
        parted = kept_apart(drafts, {pair: wanted[pair] for pair in near})
        touched = sorted({n for pair in near for n in pair})
        for n in touched:
            surfaces[n], drafts[n] = _followed(surfaces[n], drafts[n], parted[n], config.max_error_mm)
            solids[n] = _solid(surfaces[n])
        gaps |= _gaps(solids, [pair for pair in gaps if set(pair) & set(touched)])
    for first, second in [pair for pair, gap in gaps.items() if gap <= 0]:
        carved = _carved(surfaces[first], surfaces[second], config.clearance_mm)
        if carved is not None:
            surfaces[first], solids[first] = carved, _solid(carved)
            gaps |= _gaps(solids, [pair for pair in gaps if first in pair])
    progress("check", 1.0)
    found = tuple(
        Gap(fields[a].level, fields[b].level, gap) for (a, b), gap in sorted(gaps.items()) if gap < _SEARCH_MM
    )
    return Reconstruction(tuple(surfaces), tuple(fields), found)


def _followed(surface: Surface, draft: Draft, parted: Draft, max_error_mm: float) -> tuple[Surface, Draft]:
    """Move `surface` by what `draft`, from which it was made, was moved by to become `parted`; check it again.

    Each vertex goes the way of the draft's nearest. Triangles that then cut each other are evened out; where that does
    not help, `parted` is finished anew.
    """
    nearest = cKDTree(draft.vertices).query(surface.vertices_mm)[1]
    points = _as_written(surface.vertices_mm + (parted.vertices - draft.vertices)[nearest])
    untangled = _untangled(points, surface.faces, draft.field, (points != surface.vertices_mm).any(axis=1))
    if untangled is None or has_flat_faces(untangled, surface.faces):
        return _finished(parted, max_error_mm)
    return Surface(surface.level, untangled, surface.faces), parted


def _untangled(points: Points, faces: Faces, field: Field, moved: NDArray[np.bool_] | None = None) -> Points | None:
    """Return `points` (V, 3) evened out where their faces cut each other; None where that does not help.

    `moved` as in `self_intersections`.
    """
    edge_mm = float(np.sqrt(2 * areas(points, faces).mean()))
    for mends in range(1, _EVENED + 1):
        cuts = self_intersections(points, faces, moved)
        if len(cuts) == 0:
            return points
        reach_mm = _EVENED_EDGES * max(*field.grid.spacing_mm, edge_mm) * mends
        evened = _as_written(evened_near(points, faces, points[np.unique(faces[cuts.ravel()])], reach_mm))
        changed = (evened != points).any(axis=1)
        points, moved = evened, changed if moved is None else changed | moved
    return points if len(self_intersections(points, faces, moved)) == 0 else None


def _finished(draft: Draft, max_error_mm: float) -> tuple[Surface, Draft]:
    """Return `draft` as a surface that passes the checks, and the draft as it was mended for that.

    Where triangles cut each other, the surface goes back to the contour, which never cuts itself; more and more of it,
    with more and more triangles, until all is well.
    """
    more = mends = 0
    for attempt in range(_ATTEMPTS):
        if attempt >= _ATTEMPTS - 2:
            share = 0.5 if attempt == _ATTEMPTS - 2 else 0.0
            draft = replace(draft, vertices=draft.contour + share * (draft.vertices - draft.contour))
        points, faces = decimated(draft.vertices, draft.faces, max_error_mm, more)
        points = _as_written(points)
        untangled = _untangled(points, faces, draft.field)
        surface = Surface(draft.field.level, points if untangled is None else untangled, faces)
        if untangled is not None and _is_solid(surface):
            return surface, draft
        cuts = self_intersections(points, faces)
        more += int(len(cuts) == 0 or mends > 0)
        if len(cuts) > 0:
            mends += 1
            draft = mended(draft, surface.vertices_mm[np.unique(faces[cuts.ravel()])], mends)
    raise VertebralError(
        f"{draft.field.level.name}: no printable surface ({check_surface(surface)}); voxels too small or too flat"
    )


def _finished_or_same(draft: Draft, max_error_mm: float) -> tuple[Surface, Draft | None]:
    """As `_finished`, with None for a draft that needed no mending: it need not travel from a copy."""
    surface, made = _finished(draft, max_error_mm)
    return surface, None if made is draft else made


def _carved(surface: Surface, other: Surface, clearance_mm: float) -> Surface | None:
    """Return `surface` without what lies in `other` or nearer than about `clearance_mm`; None where that is not sound.

    The last resort for neighbours so entangled that giving way does not part them; it leaves sharp edges.
    """
    away_mm = (clearance_mm + _MORE_MM) * vertex_normals(other.vertices_mm, other.faces)
    left = _solid(surface) - _solid(replace(other, vertices_mm=other.vertices_mm + away_mm))
    pieces = sorted(left.simplify(_CARVED_ERROR_MM).decompose(), key=lambda piece: float(piece.volume()))
    if not pieces:
        return None
    mesh = pieces[-1].to_mesh()
    points, faces = np.asarray(mesh.vert_properties, np.float64)[:, :3], np.asarray(mesh.tri_verts, np.int64)
    carved = Surface(surface.level, _as_written(points), faces)
    return carved if _is_solid(carved) and not len(self_intersections(carved.vertices_mm, faces)) else None


def _as_written(points: Points) -> Points:
    """Return values that float32 holds exactly, as STL and GLB need them: what is checked is what is written."""
    return points.astype(np.float32).astype(np.float64)


def _is_solid(surface: Surface) -> bool:
    check = check_surface(surface)
    return check.manifold and check.components == 1 and check.volume_ml > 0


def _gaps(solids: Sequence[Manifold], pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """Return the least distance of each pair in mm, at most `_SEARCH_MM`; 0 where they intersect."""
    return {(a, b): float(solids[a].min_gap(solids[b], _SEARCH_MM)) for a, b in pairs}


def _solid(surface: Surface) -> Manifold:
    return Manifold(Mesh(surface.vertices_mm.astype(np.float32), surface.faces.astype(np.uint32)))
