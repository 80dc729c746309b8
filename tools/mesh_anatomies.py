"""Make label maps of anatomies that were published as surfaces, one mesh per vertebra.

    python tools/mesh_anatomies.py DATA OUT

DATA holds meshes/visible_human_L1-L5_S1_mm.npz (Robin Remus, BSD-3-Clause) and meshes/artisynth_C1-C7_mm.npz (ArtiSynth
authors): arrays LEVEL_v (vertices, mm) and LEVEL_f (triangles). OUT gets NAME_seg-vert_msk.nii.gz of each (VerSe
ids, 1 mm, RAS), which `vertebral synth` and configs/default.yaml place in a body.
"""

import argparse
from pathlib import Path

import numpy as np
import vtk
from numpy.typing import NDArray
from scipy import ndimage
from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

from vertebral.core.anatomy import BY_NAME
from vertebral.core.volume import Volume
from vertebral.io.write import write_labels

SPACING_MM, MARGIN_MM = 1.0, 5.0
# Rows: right, front and up in the frame of each file; in the Visible Human x points forwards and y to the left.
TO_RAS = {
    "visible_human_L1-L5_S1_mm": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "artisynth_C1-C7_mm": np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]]),
}
LEVELS = {"S1": "sacrum"}


def main() -> None:
    """Write a label map of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, to_ras in TO_RAS.items():
        with np.load(arguments.data / "meshes" / f"{name}.npz") as arrays:
            names = [key.removesuffix("_v") for key in arrays.files if key.endswith("_v")]
            meshes = {level: (arrays[f"{level}_v"] @ to_ras.T, arrays[f"{level}_f"]) for level in names}
        path = arguments.out / f"{name.removesuffix('_mm')}_seg-vert_msk.nii.gz"
        write_labels(label_map(meshes), path)
        print(path)


def label_map(meshes: dict[str, tuple[NDArray[np.float64], NDArray[np.int32]]]) -> Volume:
    """Return a label map of the meshes (vertices in RAS mm, triangles) by level, with a margin of `MARGIN_MM`."""
    corners = np.concatenate([vertices for vertices, _ in meshes.values()])
    origin = np.floor(corners.min(0) - MARGIN_MM)
    shape = np.ceil((corners.max(0) + MARGIN_MM - origin) / SPACING_MM).astype(int) + 1
    labels = np.zeros(shape, np.uint8)
    for level, (vertices, triangles) in meshes.items():
        inside = filled(vertices, triangles, origin, shape)
        labels[inside & (labels == 0)] = BY_NAME[LEVELS.get(level, level)].verse_id
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = origin
    return Volume(labels, affine)


def filled(
    vertices: NDArray[np.float64], triangles: NDArray[np.int32], origin: NDArray[np.float64], shape: NDArray[np.int_]
) -> NDArray[np.bool_]:
    """Return the voxels (I, J, K) whose centres are inside a surface; gaps of a leaky surface are closed."""
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(vertices, np.float64), deep=True))
    cells = vtk.vtkCellArray()
    counted = np.insert(triangles.astype(np.int64), 0, 3, axis=1).ravel()
    cells.ImportLegacyFormat(numpy_to_vtkIdTypeArray(counted, deep=True))
    mesh = vtk.vtkPolyData()
    mesh.SetPoints(points)
    mesh.SetPolys(cells)
    image = vtk.vtkImageData()
    image.SetDimensions(*map(int, shape))
    image.SetOrigin(*map(float, origin))
    image.SetSpacing(SPACING_MM, SPACING_MM, SPACING_MM)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    image.GetPointData().GetScalars().Fill(1)
    stencil = vtk.vtkPolyDataToImageStencil()
    stencil.SetInputData(mesh)
    stencil.SetInformationInput(image)
    cut = vtk.vtkImageStencil()
    cut.SetInputData(image)
    cut.SetStencilConnection(stencil.GetOutputPort())
    cut.SetBackgroundValue(0)
    cut.Update()
    voxels = vtk_to_numpy(cut.GetOutput().GetPointData().GetScalars()).reshape(tuple(shape), order="F") > 0
    closed: NDArray[np.bool_] = ndimage.binary_fill_holes(ndimage.binary_closing(voxels))
    return closed


if __name__ == "__main__":
    main()
