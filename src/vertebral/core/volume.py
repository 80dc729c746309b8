"""`Volume`: a voxel grid in the patient's RAS+ frame (mm). The only module that permutes or flips axes."""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vertebral.core.errors import GeometryError

Array = NDArray[Any]
Affine = NDArray[np.float64]

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True)
class Grid:
    """Shape (I, J, K) and affine (4x4, voxel index to RAS+ mm, voxel centres) of a volume, without values.

    Raises GeometryError if the affine is not finite, not invertible, or sheared by more than half a degree.
    """

    shape: tuple[int, int, int]
    affine: Affine

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError(f"shape {self.shape}: a volume needs three axes with at least one voxel each")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"the affine must be 4x4 and finite, not {affine.tolist()}")
        if not np.allclose(affine[3], (0, 0, 0, 1)):
            raise GeometryError(f"the affine's last row must be 0 0 0 1, not {affine[3].tolist()}")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if (lengths < 1e-6).any():
            raise GeometryError(f"spacing {lengths.tolist()} mm: every axis needs a spacing above zero")
        cosines = (affine[:3, :3] / lengths).T @ (affine[:3, :3] / lengths) - np.eye(3)
        if np.abs(cosines).max() > np.sin(np.deg2rad(0.5)):
            raise GeometryError(
                "the axes of the affine are not at right angles (shear, as from a tilted gantry): resample the image"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along I, J, K."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @cached_property
    def world_axes(self) -> tuple[int, int, int]:
        """For each array axis, the world axis (0 R, 1 A, 2 S) that it follows most closely; each is used once.

        This is the permutation with the largest sum of cosines; of equal ones (axes at 45 degrees) the first, so that
        reorienting twice changes nothing.
        """
        cosines = np.abs(self.affine[:3, :3]) / np.asarray(self.spacing_mm)
        orders = tuple(permutations(range(3)))
        sums = np.array([sum(cosines[world, axis] for axis, world in enumerate(order)) for order in orders])
        i, j, k = orders[int(np.flatnonzero(sums >= sums.max() - 1e-6)[0])]
        return i, j, k

    @cached_property
    def axcodes(self) -> str:
        """Orientation as in nibabel, for example `LAS`: the direction in which each array axis increases."""
        return "".join(_LETTERS[w][int(self.affine[w, axis] > 0)] for axis, w in enumerate(self.world_axes))

    def to_world(self, voxels: Array) -> NDArray[np.float64]:
        """Map (..., 3) voxel indices to RAS+ mm."""
        return np.asarray(voxels, np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_voxel(self, points_mm: Array) -> NDArray[np.float64]:
        """Map (..., 3) RAS+ mm points to fractional voxel indices."""
        return (np.asarray(points_mm, np.float64) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def matches(self, other: "Grid", tolerance_mm: float = 1e-2) -> bool:
        """True if both grids have the same shape and their corners agree to within `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        return bool(np.abs(self.to_world(corners) - other.to_world(corners)).max() <= tolerance_mm)

    def resampled(self, spacing_mm: float) -> "Grid":
        """Return the isotropic grid with the same axes and first voxel centre that covers the last voxel centre.

        A thousandth of a voxel is tolerated, so that single precision in a header (1.0000001 mm) adds no plane.
        """
        old = np.asarray(self.spacing_mm)
        shape = np.maximum(1, np.ceil((np.asarray(self.shape) - 1) * old / spacing_mm - 1e-3).astype(int) + 1)
        affine = self.affine.copy()
        affine[:3, :3] *= spacing_mm / old
        return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    def cropped(self, box: tuple[slice, slice, slice]) -> "Grid":
        """Return the sub-grid of `box` (slices with start and stop, step 1)."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(np.array([s.start for s in box]))
        return Grid((box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start), affine)


@dataclass(frozen=True)
class Volume:
    """Values on a grid: `array` (I, J, K) with `affine` (4x4, voxel index to RAS+ mm)."""

    array: Array
    affine: Affine

    def __post_init__(self) -> None:
        object.__setattr__(self, "affine", self.grid.affine)

    @cached_property
    def grid(self) -> Grid:
        """The geometry without the values."""
        return Grid(self.array.shape, self.affine)  # Grid checks the number of axes

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along I, J, K."""
        return self.grid.spacing_mm

    def to_ras(self) -> "Volume":
        """Permute and flip axes, without resampling, so that I, J, K follow R, A, S as closely as possible."""
        return self.reoriented("RAS")

    def reoriented(self, axcodes: str) -> "Volume":
        """Permute and flip axes so that `grid.axcodes` becomes `axcodes`. Raises GeometryError for an invalid code."""
        target = [next((w for w, pair in enumerate(_LETTERS) if c in pair), -1) for c in axcodes]
        if sorted(target) != [0, 1, 2]:
            raise GeometryError(f"orientation {axcodes!r}: use one letter each of L/R, P/A and I/S, as in RAS")
        order = [self.grid.world_axes.index(w) for w in target]
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, order]
        array = self.array.transpose(order)
        for axis, code in enumerate(axcodes):
            if (affine[target[axis], axis] > 0) != (code in "RAS"):
                affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
                affine[:3, axis] *= -1
                array = np.flip(array, axis)
        return Volume(array, affine)

    def cropped(self, box: tuple[slice, slice, slice]) -> "Volume":
        """Return the sub-volume of `box` (slices with start and stop, step 1), in the same world frame."""
        return Volume(self.array[box], self.grid.cropped(box).affine)
