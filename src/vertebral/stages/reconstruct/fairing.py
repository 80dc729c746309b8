"""From a field to a smooth surface that stays within half a voxel of where the field was cut."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.spatial import cKDTree

from vertebral.core.mesh_checks import Faces, Points, areas, vertex_normals, volume
from vertebral.stages.reconstruct.contour import contour, low_passed
from vertebral.stages.reconstruct.field import Field

# (rounds, iterations, pass band) of the windowed sinc, measured on analytic shapes (benchmarks/surfaces.py): stairs
# need more than soft borders, and where the source's voxels are long in edges of the mesh, so are its stairs.
_SOFT = (1, 10, 0.1)
_STEPPED = (2, 30, 0.01)
_COARSE = (4, 60, 0.003)
_COARSE_EDGES = 1.9
_MOST_VOXELS = 0.5
_MOST_SHIFT_VOXELS = 0.25
_REFILL_MM = 1.5
_MEND_SPACINGS, _MEND_ROUNDS, _MEND_BY_CONTOUR = 2.0, 5, 3


@dataclass(frozen=True)
class Draft:
    """A surface in the making: `contour` (V, 3) in RAS+ mm as cut, `vertices` the same points after smoothing."""

    field: Field
    contour: Points
    vertices: Points
    faces: Faces


def faired(field: Field, smooth: float = 1.0) -> Draft:
    """Contour `field` at 0.5, smooth it and give it the volume of its source.

    Alternating projections: a low-pass filter, then each vertex back to within half a source voxel (an ellipsoid) of
    where the contour had it. So stairs go, and thin parts stay. `smooth` between 0 (the contour) and 1 scales the way.
    """
    points, faces = contour(field.values)
    axes = field.grid.affine[:3, :3]
    if float(np.linalg.det(axes)) < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    cut = field.grid.to_world(points)
    cage = axes / np.asarray(field.grid.spacing_mm) * np.asarray(field.voxel_mm) * _MOST_VOXELS
    rounds, iterations, pass_band = _filter_for(field)
    vertices = cut
    for _ in range(rounds if smooth > 0 else 0):
        vertices = _caged(cut, low_passed(vertices, faces, iterations, pass_band), cage)
    vertices = cut + smooth * (vertices - cut)
    return _with_volume(Draft(field, cut, vertices, faces), np.ones(len(vertices)))


def refilled(draft: Draft, before: Points) -> Draft:
    """Give `draft` back the volume that it lost where its vertices moved away from `before` (V, 3).

    It grows everywhere else, less and less up to where it had to give way.
    """
    moved = (draft.vertices != before).any(axis=1)
    if not moved.any():
        return draft
    distance = cKDTree(draft.vertices[moved]).query(draft.vertices)[0]
    return _with_volume(draft, np.clip(distance / _REFILL_MM - 1, 0, 1))


def mended(draft: Draft, faults: Points, steps: int) -> Draft:
    """Return `draft` changed near `faults` (N, 3), further away ever less, up to two grid spacings for each of `steps`.

    First the vertices there are evened out among their neighbours; from the third step on, they go back to the contour.
    """
    reach_mm = _MEND_SPACINGS * max(draft.field.grid.spacing_mm) * steps
    if steps < _MEND_BY_CONTOUR:
        return replace(draft, vertices=evened_near(draft.vertices, draft.faces, faults, reach_mm))
    share = _nearness(draft.vertices, faults, reach_mm)
    return replace(draft, vertices=draft.vertices + share * (draft.contour - draft.vertices))


def evened_near(vertices: Points, faces: Faces, faults: Points, reach_mm: float) -> Points:
    """Even out the `vertices` (V, 3) near `faults` (N, 3) among their neighbours, ever less up to `reach_mm` away."""
    share = _nearness(vertices, faults, reach_mm)
    target = _evened(vertices, faces[(share > 0)[:, 0][faces].any(axis=1)])
    return np.asarray(vertices + share * (target - vertices))


def _nearness(points: Points, faults: Points, reach_mm: float) -> Points:
    """Return for each point (P, 1): 1 up to half of `reach_mm` from the nearest of `faults`, falling to 0 there."""
    distance = cKDTree(faults).query(points, distance_upper_bound=reach_mm)[0]
    return np.asarray(np.clip(2 - 2 * distance / reach_mm, 0, 1)[:, None])


def _evened(vertices: Points, faces: Faces) -> Points:
    """Move the vertices of `faces` to the middle of their neighbours, a few times; others stay."""
    used, local = np.unique(faces, return_inverse=True)
    start, end = local.reshape(-1, 3).T.ravel(), np.roll(local.reshape(-1, 3), -1, axis=1).T.ravel()
    joined = coo_matrix((np.ones(len(start)), (start, end)), shape=(len(used), len(used))).tocsr()
    joined = joined + joined.T
    count = np.asarray(joined.sum(axis=1))
    points = vertices[used]
    for _ in range(_MEND_ROUNDS):
        points = joined @ points / count
    moved = vertices.copy()
    moved[used] = points
    return moved


def _filter_for(field: Field) -> tuple[int, int, float]:
    if not field.stepped:
        return _SOFT
    return _COARSE if min(field.voxel_mm) >= _COARSE_EDGES * field.grid.spacing_mm[0] else _STEPPED


def _caged(centres: Points, moved: Points, cage: Points) -> Points:
    """Pull `moved` (V, 3) back into the ellipsoids around `centres` whose half axes are the columns of `cage`."""
    away = (moved - centres) @ np.linalg.inv(cage).T
    length = np.sqrt(np.einsum("vc,vc->v", away, away))[:, None]
    return np.asarray(centres + (away / np.maximum(length, 1)) @ cage.T)


def _with_volume(draft: Draft, shares: NDArray[np.float64]) -> Draft:
    """Shift vertices along their normals by one distance times `shares` (V,), so that the mesh has its source's volume.

    A few steps suffice, since volume grows by area times distance.
    """
    most_mm = _MOST_SHIFT_VOXELS * float(np.prod(draft.field.voxel_mm)) ** (1 / 3)
    way = shares[:, None] * vertex_normals(draft.vertices, draft.faces)
    area_mm2 = float(areas(draft.vertices, draft.faces) @ shares[draft.faces].mean(axis=1))
    if area_mm2 <= 0:
        return draft
    shift, moved = 0.0, draft.vertices
    for _ in range(3):
        missing = (draft.field.volume_mm3 - volume(moved, draft.faces)) / area_mm2
        shift = float(np.clip(shift + missing, -most_mm, most_mm))
        moved = draft.vertices + shift * way
    return replace(draft, vertices=moved)
