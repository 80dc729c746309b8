"""The cost of each choice: the terms of a path's cost, all natural logarithms of odds (`IdentifyRules`).

- Evidence: -ln(`evidence_floor` + share of the instance's class evidence for the level). A level for which the network
  has no class, or that it hardly saw, takes `borrowed_share` of the evidence for its neighbours (`_BORROWS`).
- Size: how far the volume is from the usual one for the level, after dividing by the scan's own ratio to the usual (a
  median over its instances). Instances that touch the border are exempt, and the outermost two may have
  `end_volume_ratio` of the usual volume.
- Steps: how far the distance between two instances is from that between their levels, times the patient's scale. The
  scale may drift along the spine. Tails are heavy, so that one wrong centroid does not decide.
- `passed_cost` for each level that is passed over, `t12_absent_cost` or `l5_absent_cost` if the spine is taken to lack
  it instead, `t13_cost` and `l6_cost` for the rare levels, `double_cost` for two neighbours in one instance, and for a
  dropped instance `min_drop_cost` to `max_drop_cost`, in proportion to its size relative to its neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import Level
from vertebral.core.records import Instance, Instances
from vertebral.stages.identify.priors import ABSENT, nameable
from vertebral.stages.identify.rules import IdentifyRules
from vertebral.stages.identify.states import Floats, Indices, States, Steps, states_of, steps_of

# The cost of what a manual level rules out. Finite, so that sums stay finite; larger than any path without it.
_FORBIDDEN = 1e5
_BORROWS = {"T13": ("T12", "L1"), "L6": ("L5",)}


@dataclass(frozen=True, eq=False)
class PathCosts:
    """The costs of a scan with N instances, K states and S scales.

    `own` (N, K) is the cost of evidence, size and rarity; `drop` (N,) that of dropping; `start` (S,) that of the first
    instance's scale; `drift` (S, S) that of going from one scale to the next. `step` maps (upper, lower) instance to
    (P, S): the cost of each of `steps` at the lower one's scale, with what is dropped between them. `names` (N, K) is
    the index of the level by which an instance in a state is named.
    """

    states: States
    steps: Steps
    own: Floats
    drop: Floats
    start: Floats
    drift: Floats
    step: dict[tuple[int, int], NDArray[np.float32]]
    names: Indices


def path_costs(instances: Instances, pins: Mapping[int, Level], rules: IdentifyRules) -> PathCosts:
    """Return the costs of every choice for `instances`, from head to tail; `pins` maps some to their known level."""
    states = states_of(nameable(instances.levels))
    volumes = volumes_ml(instances)
    shares = evidence_shares(instances, rules)
    top, bottom = states.top, states.bottom
    rare = {"T13": rules.t13_cost, "L6": rules.l6_cost}
    rarity = np.array([rare.get(level.name, 0.0) for level in states.levels])[top] + rules.double_cost * states.double
    support = np.where(states.double, shares[:, top] + shares[:, bottom], shares[:, top])
    floor = rules.evidence_floor
    own = -np.log(floor + (1 - floor) * support) + rarity + _size_costs(instances.items, volumes, shares, states, rules)
    drop = _drop_costs(volumes, instances.items, rules)
    for n, level in pins.items():
        pinned = states.levels.index(level)
        own[n] = np.where((top == pinned) & (bottom == pinned), 0.0, _FORBIDDEN)
        drop[n] = _FORBIDDEN
    scales = _scales(rules)
    log_scale = np.log(scales)
    start = 0.5 * (log_scale / rules.scale_spread) ** 2
    drift = 0.5 * ((log_scale[:, None] - log_scale[None]) / rules.scale_drift) ** 2
    drift += np.log(np.exp(-drift).sum(1, keepdims=True))
    return PathCosts(
        states,
        steps_of(states.levels),
        own,
        drop,
        start + np.log(np.exp(-start).sum()),
        drift,
        _step_costs(instances, steps_of(states.levels), drop, scales, rules),
        np.where(shares[:, bottom] > shares[:, top], bottom, top),
    )


def _scales(rules: IdentifyRules) -> Floats:
    """Return the patient sizes (S,), relative to the usual one, that a path may take."""
    return np.exp(np.linspace(np.log(rules.smallest_scale), np.log(rules.largest_scale), rules.scale_count))


def evidence_shares(instances: Instances, rules: IdentifyRules) -> Floats:
    """Return (N, L): the share of each instance's evidence for each of the `nameable` levels, without background."""
    levels = nameable(instances.levels)
    names = [level.name for level in instances.levels]
    weight = np.zeros((len(names), len(levels)))
    for column, level in enumerate(levels):
        for row, name in enumerate(names):
            borrowed = rules.borrowed_share * (name in _BORROWS.get(level.name, ()))
            weight[row, column] = 1.0 if name == level.name else borrowed
    masses = np.stack([item.class_mass[1:] for item in instances.items])
    totals = masses.sum(1, keepdims=True)
    shares: Floats = np.where(totals > 0, masses / np.where(totals > 0, totals, 1.0), 1 / len(names)) @ weight
    return shares


def volumes_ml(instances: Instances) -> Floats:
    """Return (N,): the volume in ml of each instance, where its occupancy is 0.5 or more."""
    voxel_ml = float(np.prod(instances.grid.spacing_mm)) / 1000
    return np.array([np.count_nonzero(item.occupancy >= 0.5) * voxel_ml for item in instances.items])


def _size_costs(
    items: tuple[Instance, ...], volumes: Floats, shares: Floats, states: States, rules: IdentifyRules
) -> Floats:
    logs, usual = np.log(np.maximum(volumes, 1e-3)), np.log(states.volumes_ml())
    single = usual[: len(states.levels)]
    claimed = (shares / np.maximum(shares.sum(1, keepdims=True), 1e-9)) @ single
    whole = np.array([not item.touches_border for item in items])
    if np.count_nonzero(whole) < 2:
        return np.zeros((len(items), len(usual)))
    off = (logs - np.median((logs - claimed)[whole]))[:, None] - usual[None]
    ends = off[[0, -1]]
    off[[0, -1]] = np.where(ends < 0, np.minimum(ends - np.log(rules.end_volume_ratio), 0), ends)
    return np.where(whole[:, None], _heavy(off / rules.size_spread, rules.size_freedom), 0.0)


def _drop_costs(volumes: Floats, items: tuple[Instance, ...], rules: IdentifyRules) -> Floats:
    """Return (N,): `max_drop_cost` for an instance of `full_drop_ratio` of its neighbours' median volume, or larger.

    An instance that the border cuts is small for that reason: its size counts as `cut_drop_share` at least.
    """
    if len(volumes) == 1:
        return np.array([rules.max_drop_cost])
    reach = rules.neighbours_each_side
    usual = np.array(
        [np.median(np.delete(volumes[max(0, n - reach) : n + reach + 1], min(n, reach))) for n in range(len(volumes))]
    )
    size = np.minimum(1.0, volumes / np.maximum(usual * rules.full_drop_ratio, 1e-9))
    size = np.where([item.touches_border for item in items], np.maximum(size, rules.cut_drop_share), size)
    return np.asarray(rules.min_drop_cost + (rules.max_drop_cost - rules.min_drop_cost) * size)


def _step_costs(
    instances: Instances, steps: Steps, drop: Floats, scales: Floats, rules: IdentifyRules
) -> dict[tuple[int, int], NDArray[np.float32]]:
    """Return -ln of a Student density of the distance, up to a constant, plus the cost of what is passed over."""
    absent = {"T12": rules.t12_absent_cost, "L5": rules.l5_absent_cost}
    absent_cost = np.array([*(absent[name] for name in ABSENT), 0.0])[steps.absent]
    expected = steps.usual_mm[:, None] * scales
    spread = rules.step_spread_mm + rules.step_spread_share * expected
    spread += rules.sacrum_spread_mm * steps.to_sacrum[:, None]
    passed = (rules.passed_cost * steps.passed + absent_cost)[:, None] + np.log(spread / rules.reference_spread_mm)
    # In single precision, because these logarithms take most of the time.
    relative, steepness, passed = (x.astype(np.float32) for x in (expected / spread, 1 / spread, passed))
    centres_mm = np.array([item.centroid_mm for item in instances.items])
    cut = [_is_cut(item, instances.grid.shape[2]) for item in instances.items]
    dropped = np.concatenate([[0.0], np.cumsum(drop)])
    costs = {}
    for lower in range(len(centres_mm)):
        for upper in range(max(0, lower - 1 - rules.max_dropped_in_a_row), lower):
            apart_mm = float(np.linalg.norm(centres_mm[lower] - centres_mm[upper]))
            wide = rules.cut_spread_factor if cut[lower] or cut[upper] else 1.0
            cost = _heavy((np.float32(apart_mm) * steepness - relative) / np.float32(wide), rules.step_freedom)
            costs[upper, lower] = cost + passed + np.float32(dropped[lower] - dropped[upper + 1] + np.log(wide))
    return costs


def _is_cut(item: Instance, height: int) -> bool:
    """Return True if the upper or lower border of the field of view cuts the instance, which moves its centroid."""
    return item.touches_border and (item.box[2].start == 0 or item.box[2].stop == height)


def _heavy(z: NDArray[Any], freedom: float) -> NDArray[Any]:
    """Return -ln of Student's density, without its constant."""
    return np.asarray((freedom + 1) / 2 * np.log(1 + z * z / freedom))
