"""One label at a time: a small grid around it, its soft occupancy, and the facts about the mask as a whole."""

from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import LEVELS, Level
from vertebral.core.records import Box
from vertebral.core.volume import Grid, Volume
from vertebral.stages.measure.rules import MeasureRules

Occupancy = NDArray[np.float32]
Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]

_MARGIN = 1


@dataclass(frozen=True, eq=False)
class Crop:
    """One label of a map.

    `occupancy` is float32 (I, J, K) in [0, 1] on `grid`: block means of the mask's largest connected piece, cavities
    filled, with an empty border. `volume_ml` and `centroid_mm` (3,), RAS+, count all voxels of the label.
    `fragment_share` is the share of its voxels outside the largest piece, `cavity_share` that of filled cavities.
    `low` and `high` (3,) are the outermost voxel centres of the whole map in voxels of `grid`, each of which holds
    `factors` (3,) voxels of the map.
    """

    level: Level
    occupancy: Occupancy
    grid: Grid
    volume_ml: float
    centroid_mm: Vector
    touches_border: bool
    fragment_share: float
    cavity_share: float
    low: Vector
    high: Vector
    factors: Vector

    def near_border(self, points_mm: NDArray[np.float64], within_voxels: float, slack_voxels: float) -> Flags:
        """Tell for each of (N, 3) RAS+ mm surface points whether it is within so many voxels of the map's border.

        The border is half a voxel outside the outermost voxel centres; `slack_voxels` is added to the distance.
        """
        voxels = self.grid.to_voxel(points_mm)
        distance = (within_voxels - 0.5 + slack_voxels) / self.factors
        return np.asarray(((voxels < self.low + distance) | (voxels > self.high - distance)).any(axis=-1))


def find_crops(labels: Volume, rules: MeasureRules) -> tuple[tuple[Crop, ...], tuple[int, ...]]:
    """Return a crop for each level of a label map (I, J, K), from head to tail, and the values that are no VerSe id."""
    boxes = _boxes(labels.array)
    crops = tuple(_crop(labels, level, boxes[level.verse_id], rules) for level in LEVELS if level.verse_id in boxes)
    named = {level.verse_id for level in LEVELS}
    return crops, tuple(n for n in boxes if n not in named)


def _boxes(array: NDArray[Any]) -> dict[int, Box]:
    """Return the bounding box of each id, scanned in memory order, which is faster."""
    if not array.flags.f_contiguous or array.flags.c_contiguous:
        return {n: box for n, box in enumerate(ndimage.find_objects(array), 1) if box is not None}
    found = enumerate(ndimage.find_objects(array.T), 1)
    return {n: (box[2], box[1], box[0]) for n, box in found if box is not None}


def _crop(labels: Volume, level: Level, box: Box, rules: MeasureRules) -> Crop:
    mask = labels.array[box] == level.verse_id
    voxel_ml = abs(float(np.linalg.det(labels.affine[:3, :3]))) / 1000
    count = int(np.count_nonzero(mask))
    start = np.array([s.start for s in box])
    mean = np.array([float((np.arange(n) * mask.sum(axis=others)).sum()) for n, others in _sides(mask)]) / count
    factors = np.maximum(1, np.rint(rules.working_voxel_mm / np.asarray(labels.spacing_mm))).astype(int)
    occupancy, origin = _block_means(mask, factors)
    solid, fragment_share, cavity_share = _largest_piece(occupancy, rules)
    affine = labels.affine.copy()
    affine[:3, 3] = labels.grid.to_world(start + origin)
    affine[:3, :3] = labels.affine[:3, :3] * factors
    shape = labels.array.shape
    return Crop(
        level,
        solid,
        Grid(solid.shape, affine),
        count * voxel_ml,
        labels.grid.to_world(start + mean),
        any(s.start == 0 or s.stop == n for s, n in zip(box, shape, strict=True)),
        fragment_share,
        cavity_share,
        -(start + origin) / factors,
        (np.array(shape) - 1 - start - origin) / factors,
        factors.astype(np.float64),
    )


def _sides(mask: NDArray[np.bool_]) -> list[tuple[int, tuple[int, int]]]:
    return [(mask.shape[0], (1, 2)), (mask.shape[1], (0, 2)), (mask.shape[2], (0, 1))]


def _block_means(mask: NDArray[np.bool_], factors: NDArray[Any]) -> tuple[Occupancy, Vector]:
    """Average over blocks of `factors` voxels; also return the first block's centre in voxels of `mask`."""
    blocks = -(-np.array(mask.shape) // factors) + 2 * _MARGIN
    before = _MARGIN * factors
    padded = np.zeros(blocks * factors, np.float32)
    i, j, k = (slice(int(b), int(b) + n) for b, n in zip(before, mask.shape, strict=True))
    padded[i, j, k] = mask
    if (factors > 1).any():
        shape = [int(n) for pair in zip(blocks, factors, strict=True) for n in pair]
        padded = padded.reshape(shape).mean(axis=(1, 3, 5))
    return padded, (factors - 1) / 2 - before


def _largest_piece(occupancy: Occupancy, rules: MeasureRules) -> tuple[Occupancy, float, float]:
    """Keep the largest piece (26-neighbourhood) and fill its cavities; also return the shares dropped and filled."""
    inside = occupancy >= 0.5
    if not inside.any():
        inside = occupancy >= rules.faint_mask_share * occupancy.max()
    pieces = cc3d.connected_components(inside, connectivity=26)
    sizes = np.bincount(pieces.ravel())[1:]
    main = pieces == 1 + int(np.argmax(sizes))
    outside = cc3d.connected_components(~main, connectivity=6)
    cavity = (outside != outside[0, 0, 0]) & ~main
    # Soft borders belong to the piece that they touch.
    values = np.where((pieces > 0) & ~main, np.float32(0), occupancy)
    values[cavity] = 1
    volume = float(sizes.sum())
    return values, 1 - float(sizes.max()) / volume, float(np.count_nonzero(cavity)) / volume
