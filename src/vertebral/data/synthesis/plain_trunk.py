"""A simple body around a vertebra-only label map, used without a body map: an oval trunk with a few organs."""

import numpy as np
from scipy import ndimage

from vertebral.core.anatomy import BY_NAME, BY_VERSE_ID
from vertebral.core.errors import ReadError
from vertebral.core.volume import Array, Volume
from vertebral.data.synthesis.body_map import BodyMap
from vertebral.data.synthesis.spine_placement import replace_vertebrae, resample_soft
from vertebral.data.synthesis.tissues import TISSUE_ID

# mm at a level of an adult man: half width of the trunk, vertebral centre to the skin behind, depth, subcutaneous fat,
# half width and half depth of both lungs together (0: none).
_OUTLINE: dict[str, tuple[float, ...]] = {
    "C1": (76, 92, 195, 5, 0, 0), "C3": (62, 68, 128, 7, 0, 0), "C7": (80, 76, 138, 9, 0, 0),
    "T2": (130, 81, 165, 10, 55, 40), "T6": (149, 82, 212, 11, 118, 78), "T10": (149, 88, 214, 12, 118, 80),
    "T12": (148, 93, 210, 13, 95, 60), "L1": (147, 96, 208, 14, 0, 0), "L3": (147, 99, 204, 17, 0, 0),
    "sacrum": (150, 95, 205, 20, 0, 0),
}  # fmt: skip
_ABOVE_MM, _LONG_LEVEL_MM = 40.0, 30.0
_SKIN_MM = 2.0
_CANAL_MM = (9.0, 8.0)


def plain_trunk(subject: Volume, spacing_mm: float) -> BodyMap:
    """Add a trunk to a label map (VerSe ids): canal, discs, muscle, fat, skin, lungs, organs, aorta; no ribs or pelvis.

    Sizes follow the nearest levels. Bones that the map lacks are missing from the body, so a body map gives better
    context. Raises ReadError if `subject` has ids that are not levels, or none at all.
    """
    ras = subject.to_ras()
    found = sorted({int(v) for v in np.unique(ras.array)} - {0})
    if not found or set(found) - set(BY_VERSE_ID):
        raise ReadError(f"label ids {found}: give a label map with VerSe ids (C1 is 1, T1 is 8, L1 is 20)")
    points = np.argwhere(ras.array > 0)
    world = ras.grid.to_world(points)
    low, high = world.min(0), world.max(0)
    low = np.array([world[:, 0].mean() - 165, low[1] - 70, low[2] - _ABOVE_MM])
    high = np.array([world[:, 0].mean() + 165, high[1] + 130, high[2] + _ABOVE_MM])
    x, y, z = (np.arange(a, b, spacing_mm) for a, b in zip(low, high, strict=True))
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = low
    placed = resample_soft(ras.array.astype(np.uint8), ras.affine, (len(x), len(y), len(z)), affine)
    values = ras.array[tuple(points.T)]
    centres = {int(v): world[values == v].mean(0) for v in found}
    tissue = _trunk(x, y, z, centres)
    labels = np.zeros(tissue.shape, np.uint8)
    return replace_vertebrae(BodyMap(tissue, labels, spacing_mm, affine), placed)


def _trunk(x: Array, y: Array, z: Array, centres: dict[int, Array]) -> Array:
    """Return tissue ids (I, J, K) of a trunk around the centroids of the vertebrae, without bone and discs."""
    order = sorted(centres, key=lambda v: centres[v][2])
    heights = np.array([centres[v][2] for v in order])
    spine_x, spine_y = (np.interp(z, heights, [centres[v][a] for v in order]) for a in (0, 1))
    # Beyond the ends of the map, assume levels of 30 mm each, so that the trunk continues.
    rank = np.interp(z, heights, [BY_VERSE_ID[v].rank for v in order])
    rank += np.maximum(0, heights[0] - z) / _LONG_LEVEL_MM - np.maximum(0, z - heights[-1]) / _LONG_LEVEL_MM
    ranks = [BY_NAME[name].rank for name in _OUTLINE]
    wide, behind, depth, fat, lung_x, lung_y = (
        ndimage.gaussian_filter1d(np.interp(rank, ranks, column), 5) for column in zip(*_OUTLINE.values(), strict=True)
    )
    right, front = x[:, None, None] - spine_x, y[None, :, None] - spine_y
    middle = front + behind - depth / 2
    tissue = np.zeros((len(x), len(y), len(z)), np.uint8)

    def lay(name: str, oval: Array) -> None:
        tissue[oval < 1] = TISSUE_ID[name]

    for name, inset in (("skin", 0.0), ("fat", _SKIN_MM), ("muscle", fat)):
        lay(name, _oval(right, middle, wide - inset, depth / 2 - inset))
    wall = np.maximum(fat + 14, 20)
    belly = _oval(right, middle - 12, wide - wall, depth / 2 - wall)
    abdomen = belly + np.where(rank > BY_NAME["T11"].rank, 0, 10)
    chest = np.maximum(0, 10 * (rank > BY_NAME["T12"].rank))
    lay("fat", abdomen)
    lay("lung", _oval(right, middle - 6, lung_x + 0.1, lung_y + 0.1) + chest + np.where(lung_x > 20, 0, 10))
    lay("soft", _oval(right, front - 20, 26, 50) + chest)
    lay("heart", _oval(right + 15, front - 70, 52, 45) + chest + np.where(rank > BY_NAME["T5"].rank, 0, 10))
    lay("bowel", np.maximum(abdomen + 0.15, _oval(right + 25, front - 85, 0.6 * wide, 38)))
    upper = np.abs(rank - BY_NAME["T12"].rank - 0.5) < 2
    lay("liver", np.maximum(belly + 0.05, _oval(right - 0.35 * wide, front - 60, 75, 85)) + np.where(upper, 0, 10))
    lay("organ", _oval(np.abs(right) - 62, front, 27, 24) + np.where(rank > BY_NAME["T12"].rank, 0, 10))
    lay("muscle", _oval(right, front + 14, 46, 38))
    lay("artery", _oval(right + 16, front - 36, 11, 11) + np.where(rank > BY_NAME["T4"].rank, 0, 10))
    lay("canal", _oval(right, front + 14, *_CANAL_MM))
    return tissue


def _oval(x: Array, y: Array, half_x: Array | float, half_y: Array | float) -> Array:
    """Return values below 1 inside the oval, which is a little squarer than an ellipse."""
    oval: Array = np.abs(x / np.maximum(half_x, 0.1)) ** 2.4 + np.abs(y / np.maximum(half_y, 0.1)) ** 2.4
    return oval
