"""From named occupancies to surfaces: one closed, manifold, outward triangle mesh per vertebra, in RAS+ mm.

Flying edges at 0.5, a windowed-sinc filter, then a shift along the normals that gives each mesh the volume of its
voxels.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.util.vtkConstants import VTK_ID_TYPE
from vtkmodules.vtkCommonCore import vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkImageData, vtkPolyData
from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D, vtkWindowedSincPolyDataFilter

from vertebral.anatomy import Level
from vertebral.errors import VertebralError
from vertebral.mesh_checks import Faces, Points, SurfaceCheck, areas, check_surface, vertex_normals, volume
from vertebral.records import Box, Spine, Surface
from vertebral.volume import Affine, Grid

__all__ = ["SurfaceCheck", "check_surface", "reconstruct", "surface_from_mask"]

Occupancy = NDArray[np.float32]

_ISO = 0.5
# Values nearer than this to the contour are moved away from it: no triangle may shrink to nothing at a voxel centre.
_ISO_MARGIN = 0.02
# (iterations, pass band) of the windowed sinc, measured on analytic shapes: stairs need more than soft borders.
_SMOOTHING_SOFT = (10, 0.1)
_SMOOTHING_STEPPED = (20, 0.05)
_STEP = 0.9
_MAX_SHIFT_VOXELS = 0.25
# Neighbours: blur, then leave to each bone the side where its occupancy leads by `_APART`: about 0.05 voxels.
_APART_BLUR_VOXELS = 0.7
_APART = 0.05
_APART_REACH = 0.02
_APART_STEPS = 4
_APART_MAX_VOXELS = 0.5
_APART_MARGIN_VOXELS = 3


@dataclass(frozen=True)
class _Mesh:
    """A surface in the making.

    `values` is the occupancy of one solid on `box` of the grid (one voxel of which may lie outside the grid). `contour`
    (V, 3) in RAS+ mm is its surface as cut, `vertices` the same points after smoothing.
    """

    level: Level
    values: Occupancy
    box: Box
    contour: Points
    vertices: Points
    faces: Faces


def reconstruct(spine: Spine) -> tuple[Surface, ...]:
    """Return one surface per vertebra, in the spine's order; neighbours are kept apart.

    Each is a single closed outer surface: crumbs and inner cavities are dropped, rings (the vertebral canal) are kept.
    Raises VertebralError where an occupancy stays below 0.5 everywhere or its mesh is not manifold.
    """
    meshes = [_mesh(v.instance.occupancy, v.instance.box, spine.grid, v.level) for v in spine.vertebrae]
    for first, second in combinations(range(len(meshes)), 2):
        meshes[first], meshes[second] = _kept_apart(meshes[first], meshes[second], spine.grid)
    return tuple(_checked(mesh) for mesh in meshes)


def surface_from_mask(mask: NDArray[np.bool_], affine: Affine, level: Level) -> Surface:
    """Return the surface of `mask` (I, J, K) whose `affine` maps voxel indices to RAS+ mm.

    Raises VertebralError where the mask is empty or its mesh is not manifold, GeometryError for a bad affine.
    """
    grid = Grid(mask.shape, affine)
    i, j, k = (slice(0, n) for n in grid.shape)
    return _checked(_mesh(np.asarray(mask, dtype=bool), (i, j, k), grid, level))


def _mesh(occupancy: NDArray[Any], box: Box, grid: Grid, level: Level) -> _Mesh:
    crop, inner = _padded_crop(occupancy, level)
    values = _one_solid(crop)
    vertices, faces = _contour(values)
    determinant = float(np.linalg.det(grid.affine[:3, :3]))
    if determinant < 0:
        faces = faces[:, ::-1]
    i, j, k = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, inner, strict=True))
    contour = grid.to_world(vertices + np.array([i.start, j.start, k.start]))
    volume_mm3 = np.count_nonzero(values > _ISO) * abs(determinant)
    smooth = _smoothed(contour, faces, *_smoothing_for(values))
    smooth = _with_volume(smooth, faces, volume_mm3, min(grid.spacing_mm))
    return _Mesh(level, values, (i, j, k), contour, smooth, np.ascontiguousarray(faces))


def _checked(mesh: _Mesh) -> Surface:
    """Return `mesh` as a surface, less smooth where smoothing would fold a triangle onto a line."""
    for share in (1.0, 0.5, 0.0):
        # Values that float32 holds exactly, as STL and GLB need them: what is checked here is what is written there.
        points = (mesh.contour + share * (mesh.vertices - mesh.contour)).astype(np.float32).astype(np.float64)
        surface = Surface(mesh.level, points, mesh.faces)
        check = check_surface(surface)
        if check.manifold and check.components == 1 and check.volume_ml > 0:
            return surface
    raise VertebralError(f"{mesh.level.name}: no printable surface ({check}); its voxels are too small or too flat")


def _kept_apart(first: _Mesh, second: _Mesh, grid: Grid) -> tuple[_Mesh, _Mesh]:
    """Move vertices where two bones meet so that each keeps to the side on which its own occupancy prevails."""
    margin = _APART_MARGIN_VOXELS
    pairs = list(zip(first.box, second.box, strict=True))
    i, j, k = (slice(max(a.start, b.start) - margin, min(a.stop, b.stop) + margin) for a, b in pairs)
    if min(i.stop - i.start, j.stop - j.start, k.stop - k.start) < margin:
        return first, second
    corner = np.array([i.start, j.start, k.start])
    lead = _blurred(first, (i, j, k)) - _blurred(second, (i, j, k))
    moved = []
    for mesh, other, sign in ((first, second, 1), (second, first, -1)):
        points = grid.to_voxel(mesh.vertices) - corner
        near = _sampled(_blurred(other, (i, j, k)), points) > _APART_REACH
        points[near] = _climbed(sign * lead, points[near])
        moved.append(replace(mesh, vertices=np.where(near[:, None], grid.to_world(points + corner), mesh.vertices)))
    return moved[0], moved[1]


def _climbed(lead: Occupancy, points: Points) -> Points:
    """Move `points` (N, 3) up the slope of `lead` (I, J, K) until it is `_APART` there, or as far as is allowed."""
    slopes = [np.gradient(lead, axis=axis) for axis in range(3)]
    moved = points
    for _ in range(_APART_STEPS):
        lack = _APART - _sampled(lead, moved)
        slope = np.stack([_sampled(part, moved) for part in slopes], axis=1)
        steepness = np.maximum(np.linalg.norm(slope, axis=1), 0.1)
        shift = moved + slope * (np.maximum(lack, 0) / steepness**2)[:, None] - points
        length = np.linalg.norm(shift, axis=1, keepdims=True)
        moved = points + shift * np.minimum(1, _APART_MAX_VOXELS / np.maximum(length, 1e-9))
    return moved


def _sampled(values: NDArray[Any], points: Points) -> NDArray[Any]:
    """Interpolate `values` (I, J, K) linearly at `points` (N, 3) in voxels; zero outside."""
    return np.asarray(map_coordinates(values, points.T, order=1, mode="grid-constant"))


def _blurred(mesh: _Mesh, box: Box) -> Occupancy:
    """Return the mesh's occupancy on `box`, zero outside its own box, a little blurred."""
    spans = [(max(own.start, to.start), min(own.stop, to.stop)) for own, to in zip(mesh.box, box, strict=True)]
    values = np.zeros([to.stop - to.start for to in box], np.float32)
    target = tuple(slice(low - to.start, high - to.start) for (low, high), to in zip(spans, box, strict=True))
    source = tuple(slice(low - own.start, high - own.start) for (low, high), own in zip(spans, mesh.box, strict=True))
    if all(low < high for low, high in spans):
        values[target] = mesh.values[source]
    return np.asarray(gaussian_filter(values, _APART_BLUR_VOXELS), np.float32)


def _padded_crop(occupancy: NDArray[Any], level: Level) -> tuple[Occupancy, Box]:
    """Crop to the inside with a border of two voxels, zero where the array ends; also the crop's box."""
    inside = occupancy >= _ISO
    if not inside.any():
        peak = float(np.max(occupancy, initial=0))
        raise VertebralError(f"{level.name}: no voxel is inside (highest occupancy {peak:.3f}); drop this vertebra")
    if not np.isfinite(occupancy).all():
        raise VertebralError(f"{level.name}: the occupancy holds values that are not finite")
    spans = [np.flatnonzero(inside.any(axis=others))[[0, -1]] for others in ((1, 2), (0, 2), (0, 1))]
    i, j, k = (slice(max(int(low) - 1, 0), int(high) + 2) for low, high in spans)
    crop = np.pad(occupancy[i, j, k].astype(np.float32), 1)
    i, j, k = (slice(s.start - 1, s.start - 1 + n) for s, n in zip((i, j, k), crop.shape, strict=True))
    return crop, (i, j, k)


def _one_solid(values: Occupancy) -> Occupancy:
    """Keep the largest face-connected piece, fill its cavities and keep values off the contour level."""
    inside = values >= _ISO
    pieces = cc3d.connected_components(inside, connectivity=6)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    hollows = cc3d.connected_components(pieces != largest, connectivity=6)
    solid = hollows != hollows[0, 0, 0]
    values = np.where(solid & ~inside, np.float32(1), np.where(inside & ~solid, np.float32(0), values))
    return np.where(solid, np.maximum(values, _ISO + _ISO_MARGIN), np.minimum(values, _ISO - _ISO_MARGIN))


def _contour(values: Occupancy) -> tuple[Points, Faces]:
    """Flying edges: vertices (V, 3) in voxels of `values`, faces (F, 3) outward in a right-handed voxel frame.

    Its case table never makes an edge with four faces: tests/test_reconstruct.py tries all pairs of neighbouring cells.
    """
    image = vtkImageData()
    image.SetDimensions(*values.shape[::-1])
    image.GetPointData().SetScalars(_to_vtk(values.ravel()))
    edges = vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, _ISO)
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    edges.ComputeScalarsOff()
    edges.Update()
    mesh = edges.GetOutput()
    vertices = _to_numpy(mesh.GetPoints().GetData())[:, ::-1].astype(np.float64)
    faces = _to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    return vertices, faces[:, ::-1] if volume(vertices, faces) < 0 else faces


def _smoothing_for(values: Occupancy) -> tuple[int, float]:
    """Choose the filter: strong where over half of the steps through the surface are those of a binary mask."""
    crossing = stepped = 0
    for axis in range(3):
        low, high = np.moveaxis(values, axis, 0)[:-1], np.moveaxis(values, axis, 0)[1:]
        jump = np.abs(high - low)[(high > _ISO) != (low > _ISO)]
        crossing += jump.size
        stepped += int(np.count_nonzero(jump > _STEP))
    return _SMOOTHING_STEPPED if stepped > crossing / 2 else _SMOOTHING_SOFT


def _smoothed(vertices: Points, faces: Faces, iterations: int, pass_band: float) -> Points:
    """Windowed-sinc filter (Taubin 1996). Moves vertices (V, 3) in mm, keeps `faces`."""
    points = vtkPoints()
    points.SetData(_to_vtk(vertices))
    cells = vtkCellArray()
    cells.SetData(3, _to_vtk(faces.ravel(), VTK_ID_TYPE))
    mesh = vtkPolyData()
    mesh.SetPoints(points)
    mesh.SetPolys(cells)
    sinc = vtkWindowedSincPolyDataFilter()
    sinc.SetInputData(mesh)
    sinc.SetNumberOfIterations(iterations)
    sinc.SetPassBand(pass_band)
    sinc.BoundarySmoothingOff()
    sinc.FeatureEdgeSmoothingOff()
    sinc.NormalizeCoordinatesOn()
    sinc.Update()
    return _to_numpy(sinc.GetOutput().GetPoints().GetData()).astype(np.float64)


def _to_vtk(array: NDArray[Any], kind: int | None = None) -> Any:
    return numpy_to_vtk(array, deep=True, array_type=kind)  # type: ignore[no-untyped-call]


def _to_numpy(array: Any) -> NDArray[Any]:
    return np.asarray(vtk_to_numpy(array))  # type: ignore[no-untyped-call]


def _with_volume(vertices: Points, faces: Faces, volume_mm3: float, spacing_mm: float) -> Points:
    """Shift all vertices along their normals by one distance so that the mesh has `volume_mm3`.

    The distance is kept below a quarter of a voxel; a few steps suffice, since volume grows by area times distance.
    """
    shift = 0.0
    moved = vertices
    for _ in range(3):
        missing = (volume_mm3 - volume(moved, faces)) / areas(moved, faces).sum()
        shift = float(np.clip(shift + missing, -_MAX_SHIFT_VOXELS * spacing_mm, _MAX_SHIFT_VOXELS * spacing_mm))
        moved = vertices + shift * vertex_normals(vertices, faces)
    return moved
