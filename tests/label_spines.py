"""Spines of cuboids with known answers, as label maps with VerSe ids at 2 mm."""

import numpy as np

from vertebral.core.anatomy import level_named
from vertebral.core.volume import Array, Volume

SPACING_MM = 2.0
BODY, DISC = 12, 3  # voxels: 24 mm and 6 mm
SHAPE_IJ = (40, 44)


def ids(*names: str) -> list[int]:
    return [level_named(name).verse_id for name in names]


def cuboid_spine(*names: str, margin: int = 4) -> Volume:
    """Vertebrae from head to tail: a body (24 x 20 x 24 mm), two pedicles, and an arch behind them."""
    step = BODY + DISC
    array = np.zeros((*SHAPE_IJ, 2 * margin + step * len(names) - DISC), np.uint8)
    for n, value in enumerate(ids(*names)):
        low = array.shape[2] - margin - n * step - BODY
        array[:, :, low : low + BODY][vertebra()] = value
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = (-40, -150, 20)
    return Volume(array, affine)


def vertebra() -> Array:
    """One vertebra (I, J, `BODY`) as a mask; its body lies in front, at greater J."""
    mask = np.zeros((*SHAPE_IJ, BODY), bool)
    mask[body_box()] = True
    for side in (15, 22):
        mask[side : side + 3, 18:26, 5:10] = True
    mask[12:28, 14:18, 3:10] = True
    mask[19:21, 6:14, 3:7] = True
    return mask


def body_box() -> tuple[slice, slice, slice]:
    return slice(14, 26), slice(26, 36), slice(0, BODY)


def span(volume: Volume, value: int) -> tuple[int, int]:
    """The first and one past the last plane (K) of a label."""
    planes = np.flatnonzero((volume.array == value).any((0, 1)))
    return int(planes[0]), int(planes[-1]) + 1


def changed(volume: Volume, array: Array) -> Volume:
    return Volume(array, volume.affine)
