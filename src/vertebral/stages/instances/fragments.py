"""Parts beside the column of bodies: arches, C1, crumbs. To which vertebra each belongs, by label and by contact."""

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vertebral.core.anatomy import Level
from vertebral.stages.instances.bone import Ids
from vertebral.stages.instances.oversized import usual_ml
from vertebral.stages.instances.parts import CRUMB_ML, HOLDS_ML, OWN_VERTEBRA_ML, REACH_MM, WIDE_MM2, Parts

_CLOUD_MM = 2.5
# Of the area of a side of the cube that has a part's volume.
BROKEN_OFF_SHARE = 0.5


def give_loose_parts(parts: Parts, owner: Ids, best: NDArray[np.int_], levels: tuple[Level, ...]) -> tuple[Ids, float]:
    """Rules 3 to 5 of `by_labels`: number the parts that have no voxel in `owner` (I, J, K).

    `best` is the commonest class of each number in `owner`, with one for 0. Returns all numbers and the ml dropped.
    """
    owned = np.zeros(len(parts.ml), bool)
    owned[parts.ids[owner > 0]] = True
    loose = [int(n) for n in np.argsort(-parts.ml) if parts.ml[n] > 0 and not owned[n]]
    if not loose:
        return owner, 0.0
    numbers = list(best)
    given = np.zeros(len(parts.ml), np.int32)
    contacts = _contacts(parts, owner, loose, len(best))
    lack = _lacks_ml(owner, parts, len(best))
    holders = _holders(owner, parts, len(best), len(levels))
    later = []
    for n in loose:
        level = levels[parts.best[n] - 1]
        same = [m for m in range(1, len(numbers)) if numbers[m] == parts.best[n]]
        if level.region == "sacral" or level.name == "C1":
            if not same and parts.ml[n] >= OWN_VERTEBRA_ML:
                numbers.append(parts.best[n])
                same = [len(numbers) - 1]
            given[n] = same[0] if same else 0
        else:
            given[n] = _widest(contacts[n], given, same, parts.ml[n], lack)
        if given[n] == 0:
            later.append(n)
    # The largest first: where no vertebra carries a label, its largest part is one and the smaller ones join it.
    places = _Places(parts, owner, given)
    dropped_ml = 0.0
    for n in later:
        same = [m for m in range(1, len(numbers)) if numbers[m] == parts.best[n]] or holders[parts.best[n]]
        touched = _touched(contacts[n], given)
        if same:
            given[n] = places.nearest(n, same)[0]
        elif parts.ml[n] >= OWN_VERTEBRA_ML and not _broken_off(touched, float(parts.ml[n])):
            numbers.append(parts.best[n])
            given[n] = len(numbers) - 1
            places.add(n, given[n])
        elif touched:
            given[n] = max(touched, key=lambda m: touched[m])
        else:
            number, distance_mm = places.nearest(n, list(range(1, len(numbers))))
            given[n] = number if distance_mm <= REACH_MM else 0
            dropped_ml += float(parts.ml[n]) if given[n] == 0 else 0.0
    return np.where(owner > 0, owner, given[parts.ids]).astype(np.int32), dropped_ml


def _widest(
    contact: dict[int, float], given: NDArray[np.int32], same: list[int], ml: float, lack_ml: NDArray[np.float64]
) -> int:
    """Rule 3: the vertebra that a part touches widely, more widely than its own label's, and that lacks it; else 0."""
    touched = _touched(contact, given)
    if not touched or ml < CRUMB_ML:
        return 0
    widest = max(touched, key=lambda m: touched[m])
    own = sum(touched.get(m, 0.0) for m in same)
    wide = touched[widest] > max(WIDE_MM2, own) and widest < len(lack_ml)
    return widest if wide and lack_ml[widest] > ml / 2 else 0


def _broken_off(touched: dict[int, float], ml: float) -> bool:
    """Whether a part touches a vertebra on as wide an area as a piece of it does, not just at facets."""
    return bool(max(touched.values(), default=0.0) > BROKEN_OFF_SHARE * (1000 * ml) ** (2 / 3))


def _lacks_ml(owner: Ids, parts: Parts, count: int) -> NDArray[np.float64]:
    """How many ml each vertebra has less than the middle one of those around it."""
    voxels = np.bincount(owner[parts.ids > 0], minlength=count)[:count]
    ml = voxels * float(np.prod(parts.spacing_mm)) / 1000
    return np.concatenate([[0.0], usual_ml(ml[1:]) - ml[1:]])


def _holders(owner: Ids, parts: Parts, count: int, classes: int) -> list[list[int]]:
    """For each class, 0 included, the vertebrae that hold `HOLDS_ML` of it or more."""
    inside = owner > 0
    voxels = np.bincount(owner[inside] * (classes + 1) + parts.best[parts.ids[inside]], minlength=count * (classes + 1))
    ml = voxels.reshape(count, classes + 1) * float(np.prod(parts.spacing_mm)) / 1000
    return [[int(m) for m in np.flatnonzero(ml[:, n] >= HOLDS_ML)] for n in range(classes + 1)]


def _touched(contact: dict[int, float], given: NDArray[np.int32]) -> dict[int, float]:
    """Contact by vertebra; keys of `contact` are vertebra numbers, or minus a part's id where that is loose too."""
    areas: dict[int, float] = {}
    for key, area in contact.items():
        number = key if key > 0 else int(given[-key])
        if number:
            areas[number] = areas.get(number, 0.0) + area
    return areas


def _contacts(parts: Parts, owner: Ids, loose: list[int], count: int) -> dict[int, dict[int, float]]:
    """For each loose part the area (mm2) that it shares with each vertebra and with each other loose part."""
    keys = np.where(owner > 0, owner, np.where(parts.ids > 0, parts.ids + count, 0)).astype(np.uint32)
    pairs = cc3d.contacts(keys, connectivity=6, surface_area=True, anisotropy=parts.spacing_mm)
    result: dict[int, dict[int, float]] = {n: {} for n in loose}
    for (a, b), area in pairs.items():
        for own, other in ((int(a), int(b)), (int(b), int(a))):
            if own >= count:
                result[own - count][other if other < count else count - other] = float(area)
    return result


class _Places:
    """Where the vertebrae are: a thinned cloud of points of each, to measure distances to."""

    def __init__(self, parts: Parts, owner: Ids, given: NDArray[np.int32]) -> None:
        self._parts = parts
        step = tuple(max(1, round(_CLOUD_MM / mm)) for mm in parts.spacing_mm)
        few = (slice(None, None, step[0]), slice(None, None, step[1]), slice(None, None, step[2]))
        self._ids = parts.ids[few]
        at = np.argwhere(self._ids > 0)
        self._numbers = np.where(owner[few] > 0, owner[few], given[self._ids])[tuple(at.T)]
        self._points_mm = at * np.array(step) * parts.spacing_mm
        self._part_of = self._ids[tuple(at.T)]

    def add(self, part: int, number: int) -> None:
        """Let a part count as a vertebra."""
        self._numbers[self._part_of == part] = number

    def nearest(self, part: int, numbers: list[int]) -> tuple[int, float]:
        """Of `numbers` the one nearest to the centroid of `part`, with its distance in mm; 0 where there is none."""
        among = np.isin(self._numbers, numbers)
        if not among.any():
            return 0, np.inf
        distance_mm, index = cKDTree(self._points_mm[among]).query(self._parts.centre_mm[part])
        return int(self._numbers[among][index]), float(distance_mm)
