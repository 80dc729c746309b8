"""Label maps of blocks, whose scores can be worked out by hand."""

from pathlib import Path

import numpy as np

from vertebral.core.anatomy import BY_NAME
from vertebral.core.volume import Volume
from vertebral.io.write import write_labels

AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])
SHAPE = (10, 10, 30)


def blocks(affine: np.ndarray = AFFINE, **slices: tuple[int, int]) -> Volume:
    """One block per level: voxels 3 to 6 along I and J, `slices` along K; 6 mm^3 a voxel."""
    array = np.zeros(SHAPE, np.uint8)
    for name, (low, high) in slices.items():
        array[3:7, 3:7, low:high] = BY_NAME[name].verse_id
    return Volume(array, affine)


def save_blocks(path: Path, affine: np.ndarray = AFFINE, **slices: tuple[int, int]) -> Path:
    """Write `blocks` and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labels(blocks(affine, **slices), path)
    return path
