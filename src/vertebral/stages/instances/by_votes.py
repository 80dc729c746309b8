"""One instance per vertebra from the network's offsets: each voxel of bone votes for the centre of its vertebra.

Rules, in order:
1. Votes (voxel + offset) are counted on the grid and smoothed; a local maximum with at least `MIN_SEED_ML` of votes
   within `RADIUS_MM` is a centre.
2. The spine is the chain of centres, from head to tail, that gathers most votes, where each step goes down by
   `MIN_STEP_MM` or more, to the side no more than down, forwards or backwards no more than twice that, and no further
   than `MAX_STEP_MM`. Centres off the chain are no vertebrae. A centre whose two neighbours on the chain are less than
   `CROWDED` usual steps apart is one too many.
3. A voxel belongs to the centre on the chain nearest to its vote, if that is within `REACH_MM`; else it is dropped.
4. Of each vertebra the largest part stays, with the parts that hold at least `MIN_PART_SHARE` of it.
"""

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from vertebral.stages.instances.bone import Bone, Ids

RADIUS_MM = 7.0
MIN_SEED_ML = 2.0
MIN_STEP_MM = 5.0
MAX_STEP_MM = 110.0
STEP_COST_ML_PER_MM = 0.05
REACH_MM = 25.0
CROWDED = 1.45
MIN_PART_SHARE = 0.05
_BLUR_MM = 2.0

Points = NDArray[np.float64]


def owners_by_votes(bone: Bone, offset_mm: NDArray[np.int8], spacing_mm: float) -> Ids:
    """Return the vertebra number (from 1, head to tail) of each voxel of bone, 0 where there is none.

    `offset_mm` (3, I, J, K) points along the grid's axes from a voxel to its vertebra's centroid.
    """
    owner = np.zeros(bone.mask.shape, np.int32)
    voxels = np.argwhere(bone.mask)
    votes_mm: Points = (voxels * spacing_mm + offset_mm[:, bone.mask].T).astype(np.float64)
    centres_mm, votes_ml = _centres(votes_mm, bone.mask.shape, spacing_mm)
    if len(centres_mm) == 0:
        return owner
    spine_mm = centres_mm[_thinned(centres_mm, _chain(centres_mm, votes_ml))]
    distance, nearest = cKDTree(spine_mm).query(votes_mm)
    owner[tuple(voxels.T)] = np.where(distance <= REACH_MM, nearest + 1, 0)
    return _without_crumbs(owner)


def _centres(votes_mm: Points, shape: tuple[int, ...], spacing_mm: float) -> tuple[Points, NDArray[np.float64]]:
    """Rule 1. Returns centres (N, 3) in mm along the grid's axes, from head to tail, and their votes in ml."""
    cell = np.rint(votes_mm / spacing_mm).astype(np.int64)
    cell = cell[((cell >= 0) & (cell < shape)).all(1)]
    counts = np.bincount(np.ravel_multi_index(tuple(cell.T), shape), minlength=int(np.prod(shape))).reshape(shape)
    box = ndimage.find_objects(np.minimum(counts, 1))
    if not box or box[0] is None:
        return np.zeros((0, 3)), np.zeros(0)
    crop = np.pad(counts[box[0]].astype(np.float32), 4)
    density = ndimage.gaussian_filter(crop, _BLUR_MM / spacing_mm)
    reach = int(np.ceil(RADIUS_MM / spacing_mm))
    peak = (density == ndimage.maximum_filter(density, 2 * reach + 1)) & (density > 0)
    centres_mm = (np.argwhere(peak) - 4 + [s.start for s in box[0]]) * spacing_mm
    near = cKDTree(votes_mm).query_ball_point(centres_mm, RADIUS_MM, return_length=True)
    votes_ml = near * spacing_mm**3 / 1000
    kept = np.flatnonzero(votes_ml >= MIN_SEED_ML)
    kept = kept[np.argsort(-centres_mm[kept, 2], kind="stable")]
    return centres_mm[kept].astype(np.float64), votes_ml[kept]


def _chain(centres_mm: Points, votes_ml: NDArray[np.float64]) -> list[int]:
    """Rule 2. `centres_mm` from head to tail; returns the indices of the chain, by dynamic programming."""
    best = votes_ml.copy()
    before = np.full(len(best), -1)
    for n in range(len(best)):
        step = centres_mm[:n] - centres_mm[n]
        sideways, forwards, down = np.abs(step).T
        length = np.linalg.norm(step, axis=1)
        allowed = (down >= MIN_STEP_MM) & (sideways <= down) & (forwards <= 2 * down) & (length <= MAX_STEP_MM)
        if allowed.any():
            gain = np.where(allowed, best[:n] - STEP_COST_ML_PER_MM * length, -np.inf)
            if gain.max() > 0:
                before[n] = int(np.argmax(gain))
                best[n] += gain.max()
    chain = [int(np.argmax(best))]
    while before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    return chain[::-1]


def _thinned(centres_mm: Points, chain: list[int]) -> list[int]:
    """Rule 2, its end: take the most crowded centre out until none is. The usual step is a median of nearby ones."""
    chain = list(chain)
    while len(chain) > 3:
        steps = np.linalg.norm(np.diff(centres_mm[chain], axis=0), axis=1)
        usual = np.array([np.median(steps[max(0, n - 3) : n + 5]) for n in range(len(steps) - 1)])
        room = (steps[:-1] + steps[1:]) / usual
        if room.min() >= CROWDED:
            break
        del chain[int(np.argmin(room)) + 1]
    return chain


def _without_crumbs(owner: Ids) -> Ids:
    """Rule 4."""
    parts = cc3d.connected_components(owner, connectivity=26)
    voxels = np.bincount(parts.ravel())
    whose = np.zeros(len(voxels), np.int64)
    whose[parts.ravel()] = owner.ravel()
    largest = np.zeros(int(owner.max()) + 1, np.int64)
    np.maximum.at(largest, whose[1:], voxels[1:])
    keep = voxels >= MIN_PART_SHARE * largest[whose]
    keep[0] = False
    return np.where(keep[parts], owner, 0).astype(np.int32)
