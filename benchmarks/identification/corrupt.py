"""The errors that networks make in label maps, each at a strength from 0 (none) to 1.

Every function takes a case and returns one with other `claims`; `cropped` changes the truth too. All randomness comes
from the generator that is passed in.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from benchmarks.identification.cases import SPACING_MM, Case, Labels, framed
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import LEVELS, Level
from vertebral.stages.identify.priors import shifted

Rng = np.random.Generator
Mask = NDArray[np.bool_]
Corruption = Callable[[Case, float, Rng], Case]
_CONCENTRATION = 4.0
_LEAST_SHARE = 1e-3  # below it no voxel changes, and the beta distribution underflows


def noise(case: Case, strength: float, rng: Rng) -> Case:
    """Relabel a share of the voxels of every vertebra, half of `strength` on average, as its neighbour.

    The share follows a beta distribution, so some vertebrae are relabelled as a whole. As in a network, the direction
    rarely changes along the spine (probability 0.3 per vertebra).
    """
    mean = 0.5 * strength
    if mean < _LEAST_SHARE:
        return case
    claims = case.claims.copy()
    direction = int(rng.choice((-1, 1)))
    for level in case.levels:
        direction = -direction if rng.random() < 0.3 else direction
        share = rng.beta(mean * _CONCENTRATION, (1 - mean) * _CONCENTRATION)
        _claim_neighbour(case, claims, level, direction, float(share), rng)
    return replace(case, claims=claims)


def double_labels(case: Case, strength: float, rng: Rng) -> Case:
    """Give two labels to a third of the vertebrae (at strength 1), divided by a plane or in patches."""
    claims = case.claims.copy()
    for level in case.levels:
        if rng.random() < strength / 3:
            _claim_neighbour(case, claims, level, int(rng.choice((-1, 1))), float(rng.uniform(0.2, 0.6)), rng)
    return replace(case, claims=claims)


def merged(case: Case, strength: float, rng: Rng) -> Case:
    """Give up to two pairs of neighbours one label, that of the upper or the lower, and fill the gap between them."""
    claims = case.claims.copy()
    vertebrae = _vertebrae(case)
    for _ in range(_count(2, strength, rng)):
        place = int(rng.integers(len(vertebrae) - 1))
        pair = vertebrae[place : place + 2]
        chosen = pair[int(rng.integers(2))].verse_id
        both = np.isin(case.truth, [level.verse_id for level in pair])
        box = _box(both)
        closed = ndimage.binary_closing(np.pad(both[box], 3), iterations=2)[3:-3, 3:-3, 3:-3]
        claims[box][closed & np.isin(case.truth[box], [0, *(level.verse_id for level in pair)])] = chosen
    return replace(case, claims=claims)


def split_arch(case: Case, strength: float, rng: Rng) -> Case:
    """Detach up to three arches from their bodies by a gap of two voxels; relabel half of them as a neighbour."""
    claims = case.claims.copy()
    for level in _some(_vertebrae(case), _count(3, strength, rng), rng):
        own = case.truth == level.verse_id
        forward = np.nonzero(own)[1]
        if forward.size == 0:
            continue
        behind = np.arange(own.shape[1]) < np.quantile(forward, 0.5)
        gap = np.abs(np.arange(own.shape[1]) - np.quantile(forward, 0.5)) < 1
        other = shifted(level, int(rng.choice((-1, 1))))
        if rng.random() < 0.5 and other is not None:
            claims[own & behind[None, :, None]] = other.verse_id
        claims[own & gap[None, :, None]] = 0
    return replace(case, claims=claims)


def lost(case: Case, strength: float, rng: Rng) -> Case:
    """Remove up to two vertebrae."""
    claims = case.claims.copy()
    inner = _vertebrae(case)[1:-1]
    for level in _some(inner, _count(2, strength, rng), rng):
        claims[case.truth == level.verse_id] = 0
    return replace(case, claims=claims)


def shift_part(case: Case, strength: float, rng: Rng) -> Case:
    """Relabel one end of the spine, up to 40 % of its vertebrae at strength 1, one level too high or too low."""
    vertebrae = _vertebrae(case)
    count = int(rng.uniform(0.5, 1.0) * 0.4 * strength * len(vertebrae))
    moved = vertebrae[:count] if rng.random() < 0.5 else vertebrae[len(vertebrae) - count :]
    by = int(rng.choice((-1, 1)))
    table = np.arange(256, dtype=np.uint8)
    claims = case.claims.copy()
    for level in moved:
        other = shifted(level, by)
        table[level.verse_id] = level.verse_id if other is None else other.verse_id
    own = np.isin(case.truth, [level.verse_id for level in moved])
    claims[own] = table[claims[own]]
    return replace(case, claims=claims)


def fragments(case: Case, strength: float, rng: Rng) -> Case:
    """Add up to six balls with a radius of 3 to 7 mm around the spine, each with a random label."""
    claims = case.claims.copy()
    own = np.argwhere(case.truth > 0)
    for _ in range(_count(6, strength, rng)):
        centre = own[int(rng.integers(len(own)))] + rng.normal(0, (20 / SPACING_MM, 20 / SPACING_MM, 0))
        radius = rng.uniform(3, 7) / SPACING_MM
        offsets = np.argwhere(_ball(radius)) - int(np.ceil(radius))
        voxels = np.rint(centre).astype(int) + offsets
        voxels = voxels[((voxels >= 0) & (voxels < claims.shape)).all(1)]
        free = claims[tuple(voxels.T)] == 0
        claims[tuple(voxels[free].T)] = LEVELS[int(rng.integers(len(LEVELS) - 1))].verse_id
    return replace(case, claims=claims)


def cropped(case: Case, strength: float, rng: Rng) -> Case:
    """Crop the field of view to fewer vertebrae (down to four at strength 1); it cuts the outermost two anywhere."""
    vertebrae = _vertebrae(case)
    count = max(4, round(len(vertebrae) * (1 - strength * rng.uniform(0.5, 1.0))))
    if count >= len(vertebrae):
        return case
    first = int(rng.integers(len(vertebrae) - count + 1))
    ends = [np.nonzero(case.truth == level.verse_id)[2] for level in (vertebrae[first], vertebrae[first + count - 1])]
    top = int(rng.uniform(ends[0].min(), ends[0].max() + 1))
    bottom = int(rng.uniform(ends[1].min(), ends[1].max()))
    view = slice(bottom, max(top, bottom + 20))
    affine = case.affine.copy()
    affine[:3, 3] += affine[:3, 2] * view.start
    return framed(
        replace(
            case,
            truth=case.truth[:, :, view],
            claims=case.claims[:, :, view],
            affine=affine,
            open_top=False,
            open_bottom=False,
        )
    )


def mixture(case: Case, strength: float, rng: Rng) -> Case:
    """Apply noise at `strength`, and each other corruption with probability `strength`, at half of it or more."""
    for corruption in (cropped, shift_part, merged, split_arch, lost, fragments):
        if rng.random() < strength:
            case = corruption(case, float(rng.uniform(0.5, 1.0)) * strength, rng)
        if corruption is shift_part:
            case = noise(case, strength, rng)
    return case


KINDS: dict[str, Corruption] = {
    "noise": noise,
    "double labels": double_labels,
    "merged": merged,
    "split arch": split_arch,
    "lost": lost,
    "shifted part": shift_part,
    "fragments": fragments,
    "cropped": cropped,
    "mixture": mixture,
}


def _vertebrae(case: Case) -> list[Level]:
    return [level for level in case.levels if level.is_vertebra]


def _count(most: int, strength: float, rng: Rng) -> int:
    """Draw an integer from 0 to `most` with mean `most` x `strength`."""
    return int(rng.binomial(most, min(1.0, strength)))


def _some(levels: list[Level], count: int, rng: Rng) -> list[Level]:
    return [levels[n] for n in rng.permutation(len(levels))[:count]]


def _claim_neighbour(case: Case, claims: Labels, level: Level, by: int, share: float, rng: Rng) -> None:
    """Relabel a share of the claimed voxels as the neighbour: those nearest to it, or patches."""
    other = shifted(level, by) if level.is_vertebra else None
    own = np.argwhere((case.truth == level.verse_id) & (claims > 0))
    if other is None or len(own) == 0:
        return
    if rng.random() < 0.5:
        order = by * own @ np.array([0.2, 0.2, -1.0]) + rng.normal(0, 1.0, len(own))
    else:
        waves = rng.normal(0, 0.35, (3, 4))
        order = np.cos(own @ waves + rng.uniform(0, 2 * np.pi, 4)).sum(1)
    chosen = own[order >= np.quantile(order, 1 - share)] if share > 0 else own[:0]
    claims[tuple(chosen.T)] = other.verse_id


def _box(mask: Mask) -> tuple[slice, ...]:
    return tuple(ndimage.find_objects(mask.view(np.uint8))[0])


def _ball(radius: float) -> Mask:
    reach = int(np.ceil(radius))
    steps = np.arange(-reach, reach + 1) ** 2
    return np.asarray(steps[:, None, None] + steps[None, :, None] + steps[None, None] <= radius**2)
