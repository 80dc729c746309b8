"""What each choice costs: the terms of the path's cost, natural logarithms of odds throughout.

- Evidence: -ln(floor + share of the instance's class evidence that speaks for the level). A level that the network has
  no class for, or hardly saw, takes half of what speaks for its neighbours (`_BORROWS`).
- Size: how far the volume is from the usual one for the level, once the scan's own ratio to the usual (a median over
  its instances) is taken out. Exempt: what touches the border; and the outermost two may be as small as `END_SHARE`.
- Steps: how far the distance between two instances is from that between their levels, times the patient's scale. The
  scale may drift along the spine. Heavy tails, so that one wrong centroid does not decide.
- `LOST` for each level that is passed over, `ABSENT_COST` where the spine is taken to lack it instead, `RARE_COST` for
  T13 and L6, `DOUBLE` for two neighbours in one instance, and for an instance that is dropped up to `DROP`, in
  proportion to its size beside its neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import Level
from vertebral.core.records import Instance, Instances
from vertebral.stages.identify.priors import ABSENT, nameable
from vertebral.stages.identify.states import Floats, States, Steps, states_of, steps_of

FLOOR = 0.02
LOST = 2.5
ABSENT_COST = {"T12": 3.5, "L5": 3.5}
RARE_COST = {"T13": 4.5, "L6": 3.0}
DOUBLE = 2.0
DROP = 9.0
DROP_AT_LEAST = 0.5
SIZE_SPREAD = 0.3
SIZE_FREEDOM = 3.0
# The network may see an end's vertebra in part; a crumb of its neighbour is smaller still.
END_SHARE = 0.2
STEP_SPREAD = 0.06
STEP_SPREAD_MM = 1.0
STEP_FREEDOM = 20.0
# The centroid of what the border cuts lies off; how much of the sacrum is seen varies.
CUT_SPREAD = 2.0
SACRUM_SPREAD_MM = 8.0
# A patient's size beside the usual one, and how it spreads over patients and drifts from a vertebra to the next.
SCALES: Floats = np.exp(np.linspace(np.log(0.66), np.log(1.36), 13))
SCALE_SPREAD = 0.13
SCALE_DRIFT = 0.025
# What a level given by hand rules out. Finite, so that sums of it stay numbers; no path without it costs as much.
FORBIDDEN = 1e5
# So many instances in a row may be dropped between two that are kept.
MOST_DROPPED = 4
_BORROWS = {"T13": ("T12", "L1"), "L6": ("L5",)}
_BORROWED = 0.5


@dataclass(frozen=True)
class Model:
    """The costs of a scan with N instances, K states and S scales.

    `own` (N, K) is evidence, size and rarity; `drop` (N,); `start` (S,) that of the first instance's scale; `drift`
    (S, S) from one scale to the next; `step` maps (upper, lower) instance to (P, S): the cost of each of `steps` at the
    lower one's scale, with what is dropped between them. `names` (N, K) is the index of the level that an instance is
    called by in a state.
    """

    states: States
    steps: Steps
    own: Floats
    drop: Floats
    start: Floats
    drift: Floats
    step: dict[tuple[int, int], NDArray[np.float32]]
    names: NDArray[np.int64]


def build(instances: Instances, pins: Mapping[int, Level]) -> Model:
    """The costs of every choice for `instances`, which come from head to tail; `pins` maps some to their level."""
    states = states_of(nameable(instances.levels))
    volumes = volumes_ml(instances)
    shares = evidence_shares(instances)
    top, bottom = states.top, states.bottom
    rarity = np.array([RARE_COST.get(level.name, 0.0) for level in states.levels])[top] + DOUBLE * states.double
    spoken = np.where(states.double, shares[:, top] + shares[:, bottom], shares[:, top])
    own = -np.log(FLOOR + (1 - FLOOR) * spoken) + rarity + _size_costs(instances.items, volumes, shares, states)
    drop = _drop_costs(volumes, instances.items)
    for n, level in pins.items():
        pinned = states.levels.index(level)
        own[n] = np.where((top == pinned) & (bottom == pinned), 0.0, FORBIDDEN)
        drop[n] = FORBIDDEN
    log_scale = np.log(SCALES)
    start = 0.5 * (log_scale / SCALE_SPREAD) ** 2
    drift = 0.5 * ((log_scale[:, None] - log_scale[None]) / SCALE_DRIFT) ** 2
    drift += np.log(np.exp(-drift).sum(1, keepdims=True))
    return Model(
        states,
        steps_of(states.levels),
        own,
        drop,
        start + np.log(np.exp(-start).sum()),
        drift,
        _step_costs(instances, steps_of(states.levels), drop),
        np.where(shares[:, bottom] > shares[:, top], bottom, top),
    )


def evidence_shares(instances: Instances) -> Floats:
    """(N, L): the share of each instance's evidence that speaks for each of `nameable` levels, background left out."""
    levels = nameable(instances.levels)
    names = [level.name for level in instances.levels]
    speaks = np.zeros((len(names), len(levels)))
    for column, level in enumerate(levels):
        for row, name in enumerate(names):
            speaks[row, column] = 1.0 if name == level.name else _BORROWED * (name in _BORROWS.get(level.name, ()))
    masses = np.stack([item.class_mass[1:] for item in instances.items])
    totals = masses.sum(1, keepdims=True)
    shares: Floats = np.where(totals > 0, masses / np.where(totals > 0, totals, 1.0), 1 / len(names)) @ speaks
    return shares


def volumes_ml(instances: Instances) -> Floats:
    """(N,): the volume of each instance where its occupancy is one half or more, ml."""
    voxel_ml = float(np.prod(instances.grid.spacing_mm)) / 1000
    return np.array([np.count_nonzero(item.occupancy >= 0.5) * voxel_ml for item in instances.items])


def _size_costs(items: tuple[Instance, ...], volumes: Floats, shares: Floats, states: States) -> Floats:
    logs, usual = np.log(np.maximum(volumes, 1e-3)), np.log(states.volumes_ml())
    single = usual[: len(states.levels)]
    claimed = (shares / np.maximum(shares.sum(1, keepdims=True), 1e-9)) @ single
    whole = np.array([not item.touches_border for item in items])
    if np.count_nonzero(whole) < 2:
        return np.zeros((len(items), len(usual)))
    off = (logs - np.median((logs - claimed)[whole]))[:, None] - usual[None]
    ends = off[[0, -1]]
    off[[0, -1]] = np.where(ends < 0, np.minimum(ends - np.log(END_SHARE), 0), ends)
    return np.where(whole[:, None], _heavy(off / SIZE_SPREAD, SIZE_FREEDOM), 0.0)


def _drop_costs(volumes: Floats, items: tuple[Instance, ...]) -> Floats:
    """`DROP` for an instance at least half as large as the median of its neighbours, three to each side.

    What the border cuts is small for a good reason: it costs half of that at least.
    """
    if len(volumes) == 1:
        return np.array([DROP])
    usual = np.array([np.median(np.delete(volumes[max(0, n - 3) : n + 4], min(n, 3))) for n in range(len(volumes))])
    part = np.minimum(1.0, volumes / np.maximum(usual / 2, 1e-9))
    part = np.where([item.touches_border for item in items], np.maximum(part, 0.5), part)
    return np.asarray(DROP_AT_LEAST + (DROP - DROP_AT_LEAST) * part)


def _step_costs(instances: Instances, steps: Steps, drop: Floats) -> dict[tuple[int, int], NDArray[np.float32]]:
    """Minus the log of a Student density of the distance, up to a constant, and the cost of what is passed over."""
    absent_cost = np.array([*(ABSENT_COST[name] for name in ABSENT), 0.0])[steps.absent]
    expected = steps.usual_mm[:, None] * SCALES
    spread = STEP_SPREAD_MM + STEP_SPREAD * expected + SACRUM_SPREAD_MM * steps.to_sacrum[:, None]
    passed = (LOST * steps.passed + absent_cost)[:, None] + np.log(spread / 3.0)
    # In single precision: most of the time goes into these logarithms.
    relative, steepness, passed = (x.astype(np.float32) for x in (expected / spread, 1 / spread, passed))
    centres_mm = np.array([item.centroid_mm for item in instances.items])
    cut = [_is_cut(item, instances.grid.shape[2]) for item in instances.items]
    dropped = np.concatenate([[0.0], np.cumsum(drop)])
    costs = {}
    for lower in range(len(centres_mm)):
        for upper in range(max(0, lower - 1 - MOST_DROPPED), lower):
            apart_mm = float(np.linalg.norm(centres_mm[lower] - centres_mm[upper]))
            wide = CUT_SPREAD if cut[lower] or cut[upper] else 1.0
            cost = _heavy((np.float32(apart_mm) * steepness - relative) / np.float32(wide), STEP_FREEDOM)
            costs[upper, lower] = cost + passed + np.float32(dropped[lower] - dropped[upper + 1] + np.log(wide))
    return costs


def _is_cut(item: Instance, height: int) -> bool:
    """True for what the upper or lower border of the field of view cuts: its centroid is not the vertebra's."""
    return item.touches_border and (item.box[2].start == 0 or item.box[2].stop == height)


def _heavy(z: NDArray[Any], freedom: float) -> NDArray[Any]:
    """Minus the log of Student's density, without its constant."""
    return np.asarray((freedom + 1) / 2 * np.log(1 + z * z / freedom))
