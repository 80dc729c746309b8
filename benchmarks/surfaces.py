"""How near surfaces of known shapes come to the truth: this project's mesher beside those of VTK.

OMP_NUM_THREADS=1 python benchmarks/surfaces.py [--shapes 4]

Sphere, ellipsoid and torus, each in several random poses on grids of 1 mm, 3 mm, 3 x 0.7 x 0.7 mm and 0.7 x 0.7 x 5 mm.
Distances are exact, from 20,000 points spread evenly over each surface. `soft` is the share of each voxel that lies
inside, smeared by 0.7 voxels, as a network gives it.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkFiltersCore import vtkSurfaceNets3D

from vertebral.core.anatomy import BY_NAME
from vertebral.core.mesh_checks import Faces, Points, areas, check_surface, volume
from vertebral.core.mesh_intersections import self_intersections
from vertebral.core.records import Surface
from vertebral.core.volume import Grid
from vertebral.stages.reconstruct import field_of, mesh_fields
from vertebral.stages.reconstruct.config import MeshConfig
from vertebral.stages.reconstruct.contour import contour, low_passed

L1 = BY_NAME["L1"]
HALF_AXES_MM = np.array([22.0, 16.0, 12.0])
FIELD_MM = 60.0
POINTS = 20_000
Distance = Callable[[Points], Points]
Method = Callable[[NDArray[Any], Grid], tuple[Points, Faces]]


def sphere(points: Points) -> Points:
    """Signed distance from a sphere of 12 mm."""
    return np.linalg.norm(points, axis=-1) - 12


def ellipsoid(points: Points) -> Points:
    """Signed distance from an ellipsoid of 22, 16 and 12 mm: to first order, good to 0.01 mm near it."""
    near = np.linalg.norm(points / HALF_AXES_MM, axis=-1)
    return near * (near - 1) / (np.linalg.norm(points / HALF_AXES_MM**2, axis=-1) + 1e-9)


def torus(points: Points) -> Points:
    """Signed distance from a torus of 14 mm with a tube of 5 mm."""
    return np.hypot(np.hypot(points[..., 0], points[..., 1]) - 14, points[..., 2]) - 5


SHAPES: dict[str, tuple[Distance, float]] = {
    "sphere": (sphere, 4 / 3 * np.pi * 12**3),
    "ellipsoid": (ellipsoid, 4 / 3 * np.pi * float(HALF_AXES_MM.prod())),
    "torus": (torus, 2 * np.pi**2 * 14 * 5**2),
}
SPACINGS_MM = {"1": (1.0, 1.0, 1.0), "3": (3.0, 3.0, 3.0), "3x0.7x0.7": (3.0, 0.7, 0.7), "0.7x0.7x5": (0.7, 0.7, 5.0)}


def ours(config: MeshConfig) -> Method:
    """This project's mesher."""

    def mesh(values: NDArray[Any], grid: Grid) -> tuple[Points, Faces]:
        box = tuple(slice(0, n) for n in grid.shape)
        surface = mesh_fields([field_of(values, box, grid, L1)], config).surfaces[0]
        return surface.vertices_mm, surface.faces

    return mesh


def flying_edges(iterations: int, pass_band: float) -> Method:
    """VTK's flying edges, then its windowed sinc."""

    def mesh(values: NDArray[Any], grid: Grid) -> tuple[Points, Faces]:
        points, faces = contour(values.astype(np.float32))
        points = grid.to_world(points)
        return (low_passed(points, faces, iterations, pass_band) if iterations else points), faces

    return mesh


def surface_nets(values: NDArray[Any], grid: Grid) -> tuple[Points, Faces]:
    """VTK's surface nets with its default smoothing."""
    image = vtkImageData()
    image.SetDimensions(*values.shape[::-1])
    image.SetSpacing(*grid.spacing_mm[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk((values > 0.5).astype(np.uint8).ravel(), deep=True))
    nets = vtkSurfaceNets3D()
    nets.SetInputData(image)
    nets.SetValue(0, 1)
    nets.SmoothingOn()
    nets.SetOutputMeshTypeToTriangles()
    nets.Update()
    output = nets.GetOutput()
    points = vtk_to_numpy(output.GetPoints().GetData())[:, ::-1].astype(np.float64) / np.asarray(grid.spacing_mm)
    faces = vtk_to_numpy(output.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    points = grid.to_world(points)
    return points, faces[:, ::-1] if volume(points, faces) < 0 else faces


METHODS: dict[str, tuple[Method, bool]] = {
    "flying edges": (flying_edges(0, 0), False),
    "flying edges, sinc 20 x 0.05": (flying_edges(20, 0.05), False),
    "flying edges, sinc 30 x 0.01": (flying_edges(30, 0.01), False),
    "surface nets, default": (surface_nets, False),
    "ours, all triangles": (ours(MeshConfig(max_error_mm=0)), False),
    "ours": (ours(MeshConfig()), False),
    "soft: flying edges": (flying_edges(0, 0), True),
    "soft: ours, all triangles": (ours(MeshConfig(max_error_mm=0)), True),
    "soft: ours": (ours(MeshConfig()), True),
}


def main() -> None:
    """Print a row for each method and spacing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=int, default=4, help="poses of each shape")
    poses = parser.parse_args().shapes
    print(
        "| mm | method | volume error % | mean mm | RMS mm | 95 % mm | max mm | sound | faces | s |\n"
        + "|---" * 10
        + "|"
    )
    for name, spacing_mm in SPACINGS_MM.items():
        cases = [(shape, *posed(shape, spacing_mm, seed)) for shape in SHAPES for seed in range(poses)]
        for label, (method, soft) in METHODS.items():
            rows = np.array([score(method, soft, *case) for case in cases])
            error, mean, rms, p95, _, sound, faces, seconds = rows.mean(axis=0)
            print(
                f"| {name} | {label} | {error:.2f} | {mean:.3f} | {rms:.3f} | {p95:.3f} | {rows[:, 4].max():.2f} | "
                f"{sound * len(rows):.0f}/{len(rows)} | {faces:.0f} | {seconds:.2f} |",
                flush=True,
            )


def posed(shape: str, spacing_mm: tuple[float, float, float], seed: int) -> tuple[Grid, NDArray[Any], NDArray[Any]]:
    """Return a turned grid around the shape, its mask there, and its soft occupancy."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    counts = [int(np.ceil(FIELD_MM / mm)) for mm in spacing_mm]
    affine = np.eye(4)
    affine[:3, :3] = turn * np.sign(np.linalg.det(turn)) @ np.diag(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(counts) / 2 + random.uniform(-0.5, 0.5, 3))
    grid = Grid((counts[0], counts[1], counts[2]), affine)
    distance = SHAPES[shape][0](grid.to_world(np.stack(np.indices(grid.shape), axis=-1)))
    smear = 0.7 * float(np.prod(spacing_mm)) ** (1 / 3)
    return grid, distance < 0, (1 / (1 + np.exp(np.clip(distance / smear * 1.7, -50, 50)))).astype(np.float32)


def score(
    method: Method, soft: bool, shape: str, grid: Grid, mask: NDArray[Any], occupancy: NDArray[Any]
) -> tuple[float, ...]:
    """Volume error in per cent, mean, RMS, 95th percentile and most distance in mm, soundness, faces, seconds."""
    distance, volume_mm3 = SHAPES[shape]
    start = time.perf_counter()
    vertices, faces = method(occupancy if soft else mask, grid)
    seconds = time.perf_counter() - start
    random = np.random.default_rng(0)
    weights = areas(vertices, faces)
    chosen = random.choice(len(faces), POINTS, p=weights / weights.sum())
    cuts = np.sort(random.random((POINTS, 2)), axis=1)
    shares = np.column_stack([cuts[:, 0], cuts[:, 1] - cuts[:, 0], 1 - cuts[:, 1]])
    errors = np.abs(distance(np.einsum("pc,pcx->px", shares, vertices[faces[chosen]])))
    check = check_surface(Surface(L1, vertices, faces))
    sound = check.manifold and check.components == 1 and len(self_intersections(vertices, faces)) == 0
    return (
        100 * abs(volume(vertices, faces) / volume_mm3 - 1),
        float(errors.mean()),
        float(np.sqrt((errors**2).mean())),
        float(np.percentile(errors, 95)),
        float(errors.max()),
        float(sound),
        len(faces),
        seconds,
    )


if __name__ == "__main__":
    main()
