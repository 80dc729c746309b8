"""Fragments: components off the column of bodies, such as posterior elements, C1 and islands, assigned to vertebrae."""

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vertebral.core.anatomy import Level
from vertebral.stages.instances.bone import Ids
from vertebral.stages.instances.components import Components
from vertebral.stages.instances.oversized import usual_volumes_ml
from vertebral.stages.instances.rules import LabelMapRules

_CLOUD_MM = 2.5


def assign_fragments(
    components: Components, owner: Ids, best: NDArray[np.int_], levels: tuple[Level, ...], rules: LabelMapRules
) -> tuple[Ids, float]:
    """Rules 3 to 5 of `by_labels`: number the components that have no voxel in `owner` (I, J, K).

    `best` is the most common class of each number in `owner`, including 0. Returns all numbers and the ml dropped.
    """
    owned = np.zeros(len(components.ml), bool)
    owned[components.ids[owner > 0]] = True
    fragments = [int(n) for n in np.argsort(-components.ml) if components.ml[n] > 0 and not owned[n]]
    if not fragments:
        return owner, 0.0
    numbers = list(best)
    given = np.zeros(len(components.ml), np.int32)
    contacts = _contacts(components, owner, fragments, len(best))
    lack_ml = _lack_ml(owner, components, len(best), rules)
    carriers = _carriers(owner, components, len(best), len(levels), rules)
    later = []
    for n in fragments:
        level = levels[components.best[n] - 1]
        same = [m for m in range(1, len(numbers)) if numbers[m] == components.best[n]]
        if level.region == "sacral" or level.name == "C1":
            if not same and components.ml[n] >= rules.min_vertebra_ml:
                numbers.append(components.best[n])
                same = [len(numbers) - 1]
            given[n] = same[0] if same else 0
        else:
            given[n] = _undersized_neighbour(contacts[n], given, same, components.ml[n], lack_ml, rules)
        if given[n] == 0:
            later.append(n)
    # The largest first: if no vertebra carries a label, its largest fragment is one and the smaller ones join it.
    cloud = _PointCloud(components, owner, given)
    dropped_ml = 0.0
    for n in later:
        same = [m for m in range(1, len(numbers)) if numbers[m] == components.best[n]] or carriers[components.best[n]]
        touched = _contact_areas(contacts[n], given)
        if same:
            given[n] = cloud.nearest(n, same)[0]
        elif components.ml[n] >= rules.min_vertebra_ml and not _broken_off(touched, float(components.ml[n]), rules):
            numbers.append(components.best[n])
            given[n] = len(numbers) - 1
            cloud.add(n, given[n])
        elif touched:
            given[n] = max(touched, key=lambda m: touched[m])
        else:
            number, distance_mm = cloud.nearest(n, list(range(1, len(numbers))))
            given[n] = number if distance_mm <= rules.fragment_reach_mm else 0
            dropped_ml += float(components.ml[n]) if given[n] == 0 else 0.0
    return np.where(owner > 0, owner, given[components.ids]).astype(np.int32), dropped_ml


def _undersized_neighbour(
    contact: dict[int, float],
    given: NDArray[np.int32],
    same: list[int],
    ml: float,
    lack_ml: NDArray[np.float64],
    rules: LabelMapRules,
) -> int:
    """Rule 3: return the undersized vertebra with which this fragment shares its largest contact area, else 0."""
    touched = _contact_areas(contact, given)
    if not touched or ml < rules.max_island_ml:
        return 0
    widest = max(touched, key=lambda m: touched[m])
    own = sum(touched.get(m, 0.0) for m in same)
    wide = touched[widest] > max(rules.wide_contact_mm2, own) and widest < len(lack_ml)
    return widest if wide and lack_ml[widest] > ml * rules.min_lack_share else 0


def _broken_off(touched: dict[int, float], ml: float, rules: LabelMapRules) -> bool:
    """Return whether a fragment has as wide a contact with a vertebra as a broken-off piece, not just facets."""
    return bool(max(touched.values(), default=0.0) > rules.broken_off_share * (1000 * ml) ** (2 / 3))


def _lack_ml(owner: Ids, components: Components, count: int, rules: LabelMapRules) -> NDArray[np.float64]:
    """Return how many ml each vertebra is short of the median of those around it."""
    voxels = np.bincount(owner[components.ids > 0], minlength=count)[:count]
    ml = voxels * float(np.prod(components.spacing_mm)) / 1000
    return np.concatenate([[0.0], usual_volumes_ml(ml[1:], rules) - ml[1:]])


def _carriers(owner: Ids, components: Components, count: int, classes: int, rules: LabelMapRules) -> list[list[int]]:
    """Return for each class, 0 included, the vertebrae with `min_carried_ml` of it or more."""
    inside = owner > 0
    labels = components.best[components.ids[inside]]
    voxels = np.bincount(owner[inside] * (classes + 1) + labels, minlength=count * (classes + 1))
    ml = voxels.reshape(count, classes + 1) * float(np.prod(components.spacing_mm)) / 1000
    return [[int(m) for m in np.flatnonzero(ml[:, n] >= rules.min_carried_ml)] for n in range(classes + 1)]


def _contact_areas(contact: dict[int, float], given: NDArray[np.int32]) -> dict[int, float]:
    """Return contact by vertebra; keys of `contact` are vertebra numbers, or minus the id of another fragment."""
    areas: dict[int, float] = {}
    for key, area in contact.items():
        number = key if key > 0 else int(given[-key])
        if number:
            areas[number] = areas.get(number, 0.0) + area
    return areas


def _contacts(components: Components, owner: Ids, fragments: list[int], count: int) -> dict[int, dict[int, float]]:
    """Return for each fragment the area (mm2) that it shares with each vertebra and with each other fragment."""
    ids = components.ids
    keys = np.where(owner > 0, owner, np.where(ids > 0, ids + count, 0)).astype(np.uint32)
    pairs = cc3d.contacts(keys, connectivity=6, surface_area=True, anisotropy=components.spacing_mm)
    result: dict[int, dict[int, float]] = {n: {} for n in fragments}
    for (a, b), area in pairs.items():
        for own, other in ((int(a), int(b)), (int(b), int(a))):
            if own >= count:
                result[own - count][other if other < count else count - other] = float(area)
    return result


class _PointCloud:
    """The voxels of the vertebrae, thinned to about `_CLOUD_MM`, to measure distances to."""

    def __init__(self, components: Components, owner: Ids, given: NDArray[np.int32]) -> None:
        self._components = components
        step = tuple(max(1, round(_CLOUD_MM / mm)) for mm in components.spacing_mm)
        few = (slice(None, None, step[0]), slice(None, None, step[1]), slice(None, None, step[2]))
        ids = components.ids[few]
        at = np.argwhere(ids > 0)
        self._numbers = np.where(owner[few] > 0, owner[few], given[ids])[tuple(at.T)]
        self._points_mm = at * np.array(step) * components.spacing_mm
        self._component_of = ids[tuple(at.T)]

    def add(self, component: int, number: int) -> None:
        """Give the points of a component to a vertebra."""
        self._numbers[self._component_of == component] = number

    def nearest(self, component: int, numbers: list[int]) -> tuple[int, float]:
        """Return the one of `numbers` nearest to the centroid of `component`, and its distance in mm; 0 if none."""
        among = np.isin(self._numbers, numbers)
        if not among.any():
            return 0, np.inf
        distance_mm, index = cKDTree(self._points_mm[among]).query(self._components.centre_mm[component])
        return int(self._numbers[among][index]), float(distance_mm)
