"""Algorithms of VTK, with arrays in and arrays out: flying edges, the windowed-sinc filter, distances, ray hits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.util.vtkConstants import VTK_ID_TYPE
from vtkmodules.vtkCommonCore import reference, vtkDoubleArray, vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkImageData, vtkPolyData, vtkStaticCellLocator
from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D, vtkImplicitPolyDataDistance, vtkWindowedSincPolyDataFilter

from vertebral.core.mesh_checks import Faces, Points, volume
from vertebral.stages.reconstruct.field import ISO, Values

_TOLERANCE_MM = 1e-6


def contour(values: Values) -> tuple[Points, Faces]:
    """Contour by flying edges: vertices (V, 3) in voxels of `values`, faces (F, 3) outward in a right-handed frame.

    Its case table never makes an edge with four faces; the tests try all pairs of neighbouring cells.
    """
    image = vtkImageData()
    image.SetDimensions(*values.shape[::-1])
    image.GetPointData().SetScalars(_to_vtk(np.ascontiguousarray(values).ravel()))
    edges = vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, ISO)
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    edges.ComputeScalarsOff()
    edges.Update()
    mesh = edges.GetOutput()
    vertices = _to_numpy(mesh.GetPoints().GetData())[:, ::-1].astype(np.float64)
    faces = _to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    return vertices, faces[:, ::-1] if volume(vertices, faces) < 0 else faces


def low_passed(vertices: Points, faces: Faces, iterations: int, pass_band: float) -> Points:
    """Return the vertices (V, 3) in mm after a windowed-sinc filter (Taubin 1996)."""
    sinc = vtkWindowedSincPolyDataFilter()
    sinc.SetInputData(poly_data(vertices, faces))
    sinc.SetNumberOfIterations(iterations)
    sinc.SetPassBand(pass_band)
    sinc.BoundarySmoothingOff()
    sinc.FeatureEdgeSmoothingOff()
    sinc.NormalizeCoordinatesOn()
    sinc.Update()
    return _to_numpy(sinc.GetOutput().GetPoints().GetData()).astype(np.float64)


def distances(points: Points, vertices: Points, faces: Faces) -> NDArray[np.float64]:
    """Return the distances (P,) in mm of `points` (P, 3) from the mesh."""
    distance = vtkImplicitPolyDataDistance()
    distance.SetInput(poly_data(vertices, faces))
    result = vtkDoubleArray()
    result.SetNumberOfTuples(len(points))
    distance.EvaluateFunction(_to_vtk(points), result)
    return np.asarray(np.abs(_to_numpy(result)), np.float64)


def first_hits(vertices: Points, faces: Faces, starts: Points, ends: Points) -> NDArray[np.float64]:
    """Return where each segment from `starts` (N, 3) to `ends` (N, 3) first hits the mesh, as a share; 1 for no hit."""
    locator = vtkStaticCellLocator()
    locator.SetDataSet(poly_data(vertices, faces))
    locator.BuildLocator()
    share: Any = reference(1.0)
    sub_id: Any = reference(0)
    where, inside = [0.0] * 3, [0.0] * 3
    hits = np.ones(len(starts))
    for n, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if locator.IntersectWithLine(start, end, _TOLERANCE_MM, share, where, inside, sub_id):
            hits[n] = float(share)
    return hits


def poly_data(vertices: Points, faces: Faces) -> vtkPolyData:
    """Return the mesh as a vtkPolyData."""
    points = vtkPoints()
    points.SetData(_to_vtk(vertices))
    cells = vtkCellArray()
    cells.SetData(3, _to_vtk(faces.ravel(), VTK_ID_TYPE))
    mesh = vtkPolyData()
    mesh.SetPoints(points)
    mesh.SetPolys(cells)
    return mesh


def _to_vtk(array: NDArray[Any], kind: int | None = None) -> Any:
    return numpy_to_vtk(array, deep=True, array_type=kind)  # type: ignore[no-untyped-call]


def _to_numpy(array: Any) -> NDArray[Any]:
    return np.asarray(vtk_to_numpy(array))  # type: ignore[no-untyped-call]
