"""Which voxels of the evidence are bone of the spine."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebral.core.records import Evidence

Ids = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class SpineBone:
    """`mask` bool, `best` uint8 level class (0 outside the mask), `spine_probability` uint8; all (I, J, K)."""

    mask: NDArray[np.bool_]
    best: NDArray[np.uint8]
    spine_probability: NDArray[np.uint8]


def find_bone(evidence: Evidence) -> SpineBone:
    """Return the voxels whose background probability is below 0.5, each with its most probable level."""
    background = np.where(
        evidence.first == 0,
        evidence.first_probability,
        np.where(evidence.second == 0, evidence.second_probability, 0),
    )
    spine = (255 - background).astype(np.uint8)
    mask = spine > 127
    best = np.where(evidence.first > 0, evidence.first, evidence.second)
    return SpineBone(mask, np.where(mask, best, 0).astype(np.uint8), spine)
