"""One instance per vertebra from the network's offsets: each voxel of bone votes for the centre of its vertebra.

Rules, in order (thresholds: `InstanceRules`):
1. Votes (voxel + offset) are counted on the grid and smoothed; a local maximum with at least `min_centre_ml` of votes
   within `centre_radius_mm` is a centre.
2. The spine is the chain of centres, from head to tail, with the most votes. Each step goes down by at least
   `min_step_mm`, sideways and forwards or backwards by at most `max_sideways_per_down` and `max_forwards_per_down` of
   that, and no further than `max_step_mm`. Centres off the chain are not vertebrae. A centre whose two neighbours on
   the chain are less than `crowded_steps` usual steps apart is removed.
3. A voxel belongs to the centre on the chain nearest to its vote, if that is within `vote_reach_mm`; otherwise it is
   dropped.
4. Of each vertebra the largest component stays, with those that have at least `min_island_share` of its voxels.
"""

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from vertebral.stages.instances.bone import Ids, SpineBone
from vertebral.stages.instances.rules import InstanceRules

Points = NDArray[np.float64]


def owners_by_votes(
    bone: SpineBone, offset_mm: NDArray[np.int8], spacing_mm: float, rules: InstanceRules = InstanceRules()
) -> Ids:
    """Return the vertebra number (from 1, head to tail) of each voxel of bone, 0 elsewhere.

    `offset_mm` (3, I, J, K) points along the grid's axes from a voxel to its vertebra's centroid.
    """
    owner = np.zeros(bone.mask.shape, np.int32)
    voxels = np.argwhere(bone.mask)
    votes_mm: Points = (voxels * spacing_mm + offset_mm[:, bone.mask].T).astype(np.float64)
    centres_mm, votes_ml = _centres(votes_mm, bone.mask.shape, spacing_mm, rules)
    if len(centres_mm) == 0:
        return owner
    spine_mm = centres_mm[_thinned(centres_mm, _chain(centres_mm, votes_ml, rules), rules)]
    distance, nearest = cKDTree(spine_mm).query(votes_mm)
    owner[tuple(voxels.T)] = np.where(distance <= rules.vote_reach_mm, nearest + 1, 0)
    return _without_islands(owner, rules)


def _centres(
    votes_mm: Points, shape: tuple[int, ...], spacing_mm: float, rules: InstanceRules
) -> tuple[Points, NDArray[np.float64]]:
    """Rule 1. Returns centres (N, 3) in mm along the grid's axes, from head to tail, and their votes in ml."""
    cell = np.rint(votes_mm / spacing_mm).astype(np.int64)
    cell = cell[((cell >= 0) & (cell < shape)).all(1)]
    counts = np.bincount(np.ravel_multi_index(tuple(cell.T), shape), minlength=int(np.prod(shape))).reshape(shape)
    box = ndimage.find_objects(np.minimum(counts, 1))
    if not box or box[0] is None:
        return np.zeros((0, 3)), np.zeros(0)
    crop = np.pad(counts[box[0]].astype(np.float32), 4)
    density = ndimage.gaussian_filter(crop, rules.vote_blur_mm / spacing_mm)
    reach = int(np.ceil(rules.centre_radius_mm / spacing_mm))
    peak = (density == ndimage.maximum_filter(density, 2 * reach + 1)) & (density > 0)
    centres_mm = (np.argwhere(peak) - 4 + [s.start for s in box[0]]) * spacing_mm
    near = cKDTree(votes_mm).query_ball_point(centres_mm, rules.centre_radius_mm, return_length=True)
    votes_ml = near * spacing_mm**3 / 1000
    kept = np.flatnonzero(votes_ml >= rules.min_centre_ml)
    kept = kept[np.argsort(-centres_mm[kept, 2], kind="stable")]
    return centres_mm[kept].astype(np.float64), votes_ml[kept]


def _chain(centres_mm: Points, votes_ml: NDArray[np.float64], rules: InstanceRules) -> list[int]:
    """Rule 2. Returns the indices of the chain through `centres_mm`, from head to tail, by dynamic programming."""
    best = votes_ml.copy()
    before = np.full(len(best), -1)
    for n in range(len(best)):
        step = centres_mm[:n] - centres_mm[n]
        sideways, forwards, down = np.abs(step).T
        length = np.linalg.norm(step, axis=1)
        allowed = (down >= rules.min_step_mm) & (length <= rules.max_step_mm)
        allowed &= (sideways <= rules.max_sideways_per_down * down) & (forwards <= rules.max_forwards_per_down * down)
        if allowed.any():
            gain = np.where(allowed, best[:n] - rules.step_cost_ml_per_mm * length, -np.inf)
            if gain.max() > 0:
                before[n] = int(np.argmax(gain))
                best[n] += gain.max()
    chain = [int(np.argmax(best))]
    while before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    return chain[::-1]


def _thinned(centres_mm: Points, chain: list[int], rules: InstanceRules) -> list[int]:
    """Rule 2, last sentence: remove the most crowded centre until none is. The usual step is a median of near ones."""
    chain, reach = list(chain), rules.steps_each_side
    while len(chain) > 3:
        steps = np.linalg.norm(np.diff(centres_mm[chain], axis=0), axis=1)
        usual = np.array([np.median(steps[max(0, n - reach) : n + reach + 2]) for n in range(len(steps) - 1)])
        span = (steps[:-1] + steps[1:]) / usual
        if span.min() >= rules.crowded_steps:
            break
        del chain[int(np.argmin(span)) + 1]
    return chain


def _without_islands(owner: Ids, rules: InstanceRules) -> Ids:
    """Rule 4."""
    components = cc3d.connected_components(owner, connectivity=26)
    voxels = np.bincount(components.ravel())
    owner_of = np.zeros(len(voxels), np.int64)
    owner_of[components.ravel()] = owner.ravel()
    largest = np.zeros(int(owner.max()) + 1, np.int64)
    np.maximum.at(largest, owner_of[1:], voxels[1:])
    keep = voxels >= rules.min_island_share * largest[owner_of]
    keep[0] = False
    return np.where(keep[components], owner, 0).astype(np.int32)
