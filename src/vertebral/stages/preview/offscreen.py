# mypy: allow-untyped-calls
"""The process in which `rendering` draws with VTK: `python offscreen.py job.npz pictures.npz`.

It is a process of its own because VTK crashes on a machine that cannot render off screen.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import vtkmodules.vtkRenderingOpenGL2  # noqa: F401  # registers the renderer
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.util.vtkConstants import VTK_ID_TYPE
from vtkmodules.vtkCommonCore import vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
from vtkmodules.vtkRenderingCore import (
    vtkActor,
    vtkLightKit,
    vtkPolyDataMapper,
    vtkRenderer,
    vtkRenderWindow,
    vtkWindowToImageFilter,
)

_SAMPLES = 8


def main(job_path: Path, result_path: Path) -> None:
    """Draw every view of the job; the result holds one uint8 picture (height, width, 3) per view name."""
    with np.load(job_path) as packed:
        job = dict(packed)
    renderer = vtkRenderer()
    renderer.SetBackground(*job["background"].tolist())
    vtkLightKit().AddLightsToRenderer(renderer)
    for n in range(int(job["count"])):
        renderer.AddActor(_actor(job[f"vertices{n}"], job[f"normals{n}"], job[f"faces{n}"], job[f"rgb{n}"]))
    window = vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(_SAMPLES)
    window.AddRenderer(renderer)
    pictures: dict[str, Any] = {}
    for name in job["names"].tolist():
        frame = job[f"{name}_frame"]
        window.SetSize(int(frame[4]), int(frame[5]))
        _aim(renderer, job[f"{name}_axes"], frame)
        window.Render()
        pictures[name] = _picture(window)
    np.savez(result_path, **pictures)


def _actor(vertices: NDArray[Any], normals: NDArray[Any], faces: NDArray[Any], rgb: NDArray[Any]) -> vtkActor:
    points, cells, mesh = vtkPoints(), vtkCellArray(), vtkPolyData()
    points.SetData(numpy_to_vtk(vertices, deep=True))
    cells.SetData(3, numpy_to_vtk(faces.ravel(), deep=True, array_type=VTK_ID_TYPE))
    mesh.SetPoints(points)
    mesh.SetPolys(cells)
    mesh.GetPointData().SetNormals(numpy_to_vtk(normals, deep=True))
    mapper = vtkPolyDataMapper()
    mapper.SetInputData(mesh)
    actor = vtkActor()
    actor.SetMapper(mapper)
    surface = actor.GetProperty()
    surface.SetColor(*rgb.tolist())
    surface.SetInterpolationToPhong()
    surface.SetAmbient(0.08)
    surface.SetSpecular(0.15)
    surface.SetSpecularPower(20)
    return actor


def _aim(renderer: vtkRenderer, axes: NDArray[Any], frame: NDArray[Any]) -> None:
    """Look along a parallel projection; `frame` is centre (3), mm per pixel, width and height in pixels."""
    camera = renderer.GetActiveCamera()
    camera.ParallelProjectionOn()
    camera.SetFocalPoint(*frame[:3].tolist())
    camera.SetPosition(*(frame[:3] + 2000 * axes[2]).tolist())
    camera.SetViewUp(*axes[1].tolist())
    camera.SetParallelScale(float(frame[3] * frame[5] / 2))
    renderer.ResetCameraClippingRange()


def _picture(window: vtkRenderWindow) -> NDArray[np.uint8]:
    grab = vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    image = grab.GetOutput()
    width, height, _ = image.GetDimensions()
    rows = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
    return np.ascontiguousarray(rows[::-1, :, :3], np.uint8)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
