"""The frozen hand-overs between the stages, in the order of the stages."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import Level
from vertebral.core.config import PreprocessConfig
from vertebral.core.volume import Grid, Volume

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Scan:
    """io/read: a CT in HU on its own grid. `array` keeps the file's integers where the rescale allows it.

    `notes` are sentences for the user (for example a qform that disagrees with the sform). `metadata` holds technical
    facts for the manifest, never a patient's name or id. `sha256` is over the bytes of the input file(s).
    """

    volume: Volume
    path: Path
    sha256: str
    stem: str
    notes: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """preprocess: float32 (I, J, K), axes R, A, S, isotropic, windowed and scaled; `source` is the input's own grid."""

    volume: Volume
    source: Grid
    config: PreprocessConfig


@dataclass(frozen=True, eq=False)
class Evidence:
    """inference: per voxel of the prepared grid the two most probable classes and their softmax probabilities.

    Arrays are uint8 (I, J, K); probabilities are scaled to 0-255. Class 0 is background, class n is `levels[n - 1]`.
    `offset_mm` (3, I, J, K), where the network gives it, points along the grid's axes from a voxel to the centroid of
    its vertebra; it means something on bone only.
    """

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    first_probability: NDArray[np.uint8]
    second_probability: NDArray[np.uint8]
    levels: tuple[Level, ...]
    grid: Grid
    offset_mm: NDArray[np.int8] | None = None


@dataclass(frozen=True, eq=False)
class Instance:
    """instances: one vertebra (or sacrum) without a name yet.

    `occupancy` is float32 in [0, 1] on the crop `box` of the prepared grid, 0.5 on the surface. `class_mass` (classes,)
    is the summed class probability over its voxels, background first. `centroid_mm` is RAS+.
    """

    occupancy: NDArray[np.float32]
    box: Box
    class_mass: NDArray[np.float64]
    centroid_mm: tuple[float, float, float]
    touches_border: bool


@dataclass(frozen=True)
class Instances:
    """instances: all of a scan, from head to tail, on the prepared `grid`."""

    items: tuple[Instance, ...]
    levels: tuple[Level, ...]
    grid: Grid
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vertebra:
    """identify: an instance with its level.

    `confidence` in [0, 1] is the probability that the level is right, `quality` in [0, 1] says how far the mask can be
    trusted; `needs_review` holds the reasons why somebody should look, in words, and is empty where there are none.
    """

    level: Level
    confidence: float
    instance: Instance
    quality: float = 1.0
    needs_review: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spine:
    """identify: named vertebrae from head to tail, on the prepared `grid`.

    `shift_probability` says how likely it is that every level is right (0) or that each is in truth the next one up
    (-1) or down (+1); the three add up to 1. `runner_up` are the names, head to tail, of the best path that gives at
    least one vertebra another level. Both are empty where nothing was decided.
    """

    vertebrae: tuple[Vertebra, ...]
    grid: Grid
    warnings: tuple[str, ...] = ()
    shift_probability: dict[int, float] = field(default_factory=dict)
    runner_up: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Surface:
    """reconstruct: a closed triangle mesh. `vertices_mm` (V, 3) RAS+ mm float64, `faces` (F, 3) int64, outward.

    `part` tells the pieces of one level apart where it was cut, for example `left`; empty for a whole one.
    """

    level: Level
    vertices_mm: NDArray[np.float64]
    faces: NDArray[np.int64]
    part: str = ""

    @property
    def name(self) -> str:
        """What files and objects are called after: the level, and the part where it is one."""
        return f"{self.level.name}-{self.part}" if self.part else self.level.name

    def to_trimesh(self) -> Any:
        """Return a `trimesh.Trimesh` with the same vertices (RAS+ mm) and faces."""
        import trimesh

        return trimesh.Trimesh(self.vertices_mm, self.faces, process=False, metadata={"name": self.name})


@dataclass(frozen=True)
class Segmentation:
    """restore: the label map (uint8, VerSe ids) on the input's own grid, with its volume per level in ml."""

    labels: Volume
    volume_ml: dict[str, float]
