"""Write and read the occupancies of the vertebrae, from which finer surfaces can be made than from a label map.

One npz: `affine` (4, 4) voxel index to RAS+ mm and `shape` (3,) of the grid, `levels` (N,) names from head to tail,
`starts` (N, 3) first voxel of each box, and per level `occupancy_<level>` uint8, 255 inside, 127.5 on the surface.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_NAME, Level
from vertebral.core.errors import ReadError
from vertebral.core.records import Box, Spine
from vertebral.core.volume import Grid
from vertebral.io.write import atomic_write


@dataclass(frozen=True)
class Occupancy:
    """One vertebra: `values` float32 in [0, 1], 0.5 on the surface, on the crop `box` of the grid."""

    level: Level
    values: NDArray[np.float32]
    box: Box


def write_occupancies(spine: Spine, path: Path) -> None:
    """Write the occupancies of a spine, in steps of 1/255. Raises InputError if the folder is not writable."""
    vertebrae = spine.vertebrae
    arrays = {f"occupancy_{v.level.name}": np.rint(v.instance.occupancy * 255).astype(np.uint8) for v in vertebrae}
    starts = [[side.start for side in v.instance.box] for v in vertebrae]
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            allow_pickle=False,
            affine=spine.grid.affine,
            shape=np.array(spine.grid.shape),
            levels=np.array([v.level.name for v in vertebrae], dtype="U16"),
            starts=np.array(starts, np.int64).reshape(-1, 3),
            **arrays,
        )


def read_occupancies(path: Path) -> tuple[Grid, list[Occupancy]]:
    """Read a file of `write_occupancies`, from head to tail. Raises ReadError for anything else."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            i, j, k = stored["shape"].tolist()
            grid = Grid((i, j, k), stored["affine"])
            found = [
                _occupancy(BY_NAME[str(name)], stored[f"occupancy_{name}"], start)
                for name, start in zip(stored["levels"], stored["starts"].tolist(), strict=True)
            ]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ReadError(f"{path}: not an occupancy file of `vertebral run` ({error}): run it again") from error
    return grid, found


def _occupancy(level: Level, stored: NDArray[np.uint8], start: list[int]) -> Occupancy:
    i, j, k = (slice(low, low + n) for low, n in zip(start, stored.shape, strict=True))
    return Occupancy(level, stored.astype(np.float32) / np.float32(255), (i, j, k))
