"""From a field to a smooth surface that stays within half a voxel of where the field was cut."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.spatial import cKDTree

from vertebral.core.mesh_checks import Faces, Points, areas, vertex_normals, volume
from vertebral.stages.reconstruct.contour import contour, low_passed
from vertebral.stages.reconstruct.field import Field
from vertebral.stages.reconstruct.rules import ReconstructRules

_VOLUME_STEPS = 3


@dataclass(frozen=True, eq=False)
class Draft:
    """An unfinished surface: `contour` (V, 3) in RAS+ mm as contoured, `vertices` the same points after smoothing."""

    field: Field
    contour: Points
    vertices: Points
    faces: Faces


def faired(field: Field, smooth: float, rules: ReconstructRules) -> Draft:
    """Contour `field` at 0.5, smooth it and give it the volume of its source.

    Alternating projections: a low-pass filter, then each vertex back to within half a source voxel (an ellipsoid) of
    its place on the contour. This removes stairs and keeps thin structures. `smooth` between 0 (the contour) and 1
    scales the displacement.
    """
    points, faces = contour(field.values)
    axes = field.grid.affine[:3, :3]
    if float(np.linalg.det(axes)) < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    cut = field.grid.to_world(points)
    cage = axes / np.asarray(field.grid.spacing_mm) * np.asarray(field.voxel_mm) * rules.cage_voxels
    rounds, iterations, pass_band = _filter_for(field, rules)
    vertices = cut
    for _ in range(rounds if smooth > 0 else 0):
        vertices = _caged(cut, low_passed(vertices, faces, iterations, pass_band), cage)
    vertices = cut + smooth * (vertices - cut)
    return _with_volume(Draft(field, cut, vertices, faces), np.ones(len(vertices)), rules)


def with_volume_restored(draft: Draft, before: Points, rules: ReconstructRules) -> Draft:
    """Give `draft` back the volume that it lost where its vertices moved away from `before` (V, 3).

    It grows everywhere else, less and less towards the places that moved.
    """
    moved = (draft.vertices != before).any(axis=1)
    if not moved.any():
        return draft
    distance = cKDTree(draft.vertices[moved]).query(draft.vertices)[0]
    return _with_volume(draft, np.clip(distance / rules.restore_mm - 1, 0, 1), rules)


def repaired(draft: Draft, faults: Points, attempt: int, rules: ReconstructRules) -> Draft:
    """Return `draft` changed near `faults` (N, 3), less with distance, over a reach that grows with `attempt` (1, ...).

    At the first attempts the vertices there are averaged with their neighbours; later they go back to the contour.
    """
    reach_mm = rules.repair_spacings * max(draft.field.grid.spacing_mm) * attempt
    if attempt < rules.contour_repairs:
        return replace(draft, vertices=smoothed_near(draft.vertices, draft.faces, faults, reach_mm, rules))
    share = _nearness(draft.vertices, faults, reach_mm)
    return replace(draft, vertices=draft.vertices + share * (draft.contour - draft.vertices))


def smoothed_near(vertices: Points, faces: Faces, faults: Points, reach_mm: float, rules: ReconstructRules) -> Points:
    """Average the `vertices` (V, 3) near `faults` (N, 3) with their neighbours, less and less up to `reach_mm` away."""
    share = _nearness(vertices, faults, reach_mm)
    target = _averaged(vertices, faces[(share > 0)[:, 0][faces].any(axis=1)], rules.smoothing_passes)
    return np.asarray(vertices + share * (target - vertices))


def _nearness(points: Points, faults: Points, reach_mm: float) -> Points:
    """Return weights (P, 1): 1 up to half of `reach_mm` from the nearest of `faults`, falling to 0 at `reach_mm`."""
    distance = cKDTree(faults).query(points, distance_upper_bound=reach_mm)[0]
    return np.asarray(np.clip(2 - 2 * distance / reach_mm, 0, 1)[:, None])


def _averaged(vertices: Points, faces: Faces, passes: int) -> Points:
    """Move the vertices of `faces` to the mean of their neighbours, `passes` times; others stay."""
    used, local = np.unique(faces, return_inverse=True)
    start, end = local.reshape(-1, 3).T.ravel(), np.roll(local.reshape(-1, 3), -1, axis=1).T.ravel()
    joined = coo_matrix((np.ones(len(start)), (start, end)), shape=(len(used), len(used))).tocsr()
    joined = joined + joined.T
    count = np.asarray(joined.sum(axis=1))
    points = vertices[used]
    for _ in range(passes):
        points = joined @ points / count
    moved = vertices.copy()
    moved[used] = points
    return moved


def _filter_for(field: Field, rules: ReconstructRules) -> tuple[int, int, float]:
    if not field.is_binary:
        return rules.soft_filter
    coarse = min(field.voxel_mm) >= rules.coarse_edges * field.grid.spacing_mm[0]
    return rules.coarse_filter if coarse else rules.mask_filter


def _caged(centres: Points, moved: Points, cage: Points) -> Points:
    """Pull `moved` (V, 3) back into the ellipsoids around `centres` whose half axes are the columns of `cage`."""
    away = (moved - centres) @ np.linalg.inv(cage).T
    length = np.sqrt(np.einsum("vc,vc->v", away, away))[:, None]
    return np.asarray(centres + (away / np.maximum(length, 1)) @ cage.T)


def _with_volume(draft: Draft, shares: NDArray[np.float64], rules: ReconstructRules) -> Draft:
    """Shift vertices along their normals by one distance times `shares` (V,), so that the mesh has its source's volume.

    A few steps suffice, because volume grows nearly by area times distance.
    """
    most_mm = rules.max_shift_voxels * float(np.prod(draft.field.voxel_mm)) ** (1 / 3)
    way = shares[:, None] * vertex_normals(draft.vertices, draft.faces)
    area_mm2 = float(areas(draft.vertices, draft.faces) @ shares[draft.faces].mean(axis=1))
    if area_mm2 <= 0:
        return draft
    shift, moved = 0.0, draft.vertices
    for _ in range(_VOLUME_STEPS):
        missing = (draft.field.volume_mm3 - volume(moved, draft.faces)) / area_mm2
        shift = float(np.clip(shift + missing, -most_mm, most_mm))
        moved = draft.vertices + shift * way
    return replace(draft, vertices=moved)
