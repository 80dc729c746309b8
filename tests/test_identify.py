from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vertebral.anatomy import LEVELS, Level, parse_levels
from vertebral.identify import DROP_COST, RARE, RARE_COST, SKIP_COST, _cheapest_path, _room, identify
from vertebral.records import Instance, Instances, Spine
from vertebral.volume import Grid

ALL = tuple(level for level in LEVELS if level.name != "coccyx")
GRID = Grid((4, 4, 4), np.eye(4))
ONE_VOXEL = (slice(0, 1), slice(0, 1), slice(0, 1))


def part(class_mass: np.ndarray, height_mm: float) -> Instance:
    return Instance(np.ones((1, 1, 1), np.float32), ONE_VOXEL, class_mass, (10.0, -20.0, height_mm), False)


def named(
    *rows: dict[str, float], levels: tuple[Level, ...] = ALL, heights_mm: tuple[float, ...] | None = None
) -> Spine:
    """Identify parts, head to tail, each given as its share of evidence for some levels; 30 mm apart unless said."""
    items = []
    for number, row in enumerate(rows):
        mass = np.array([0.0, *(row.get(level.name, 0.0) for level in levels)])
        items.append(part(mass, heights_mm[number] if heights_mm else -30.0 * number))
    return identify(Instances(tuple(items), levels, GRID))


def names(spine: Spine) -> list[str]:
    return [vertebra.level.name for vertebra in spine.vertebrae]


def test_clean_run_keeps_its_names_and_its_shares() -> None:
    spine = named({"L1": 90, "L2": 10}, {"L2": 60, "L1": 20, "L3": 20}, {"L3": 5})
    assert names(spine) == ["L1", "L2", "L3"]
    assert [vertebra.confidence for vertebra in spine.vertebrae] == [0.9, 0.6, 1.0]
    assert spine.warnings == ()
    assert spine.grid is GRID


def test_background_has_no_share() -> None:
    mass = np.zeros(len(ALL) + 1)
    mass[0], mass[ALL.index(parse_levels("L1")[0]) + 1] = 1000, 3
    spine = identify(Instances((part(mass, 0),), ALL, GRID))
    assert spine.vertebrae[0].level.name == "L1"
    assert spine.vertebrae[0].confidence == 1.0


def test_order_corrects_a_wrong_guess() -> None:
    """L4 would cost 0.5 itself, but forces the last two out (12) or elsewhere; T12 costs -ln 0.4 = 0.9."""
    spine = named({"T11": 1}, {"L4": 0.6, "T12": 0.4}, {"L1": 1}, {"L2": 1})
    assert names(spine) == ["T11", "T12", "L1", "L2"]
    assert spine.vertebrae[1].confidence == pytest.approx(0.4)
    assert spine.warnings == ("named by the order of the spine, against the network's own guess: T12",)


def test_a_repeated_level_is_resolved() -> None:
    """T12 twice is not allowed. T12, L1: -ln 0.9 - ln 0.3 = 1.3; T11, T12: 5 (no evidence) - ln 0.7 = 5.4."""
    spine = named({"T12": 0.9, "L1": 0.1}, {"T12": 0.7, "L1": 0.3}, {"L2": 1})
    assert names(spine) == ["T12", "L1", "L2"]


def test_names_follow_the_order_from_head_to_tail() -> None:
    spine = named({"L2": 0.6, "L1": 0.4}, {"L1": 0.6, "L2": 0.4})
    assert names(spine) == ["L1", "L2"]


@pytest.mark.parametrize(("share", "expected"), [(0.99, "L2"), (0.9, "L1")])
def test_a_gap_needs_strong_evidence(share: float, expected: str) -> None:
    """L2 right after T12 costs 4 - ln(share): 4.01 or 4.11; L1 costs -ln(1 - share): 4.61 or 2.30."""
    spine = named({"T12": 1}, {"L2": share, "L1": 1 - share})
    assert names(spine) == ["T12", expected]


def test_a_missing_level_is_told() -> None:
    spine = named({"T12": 1}, {"L2": 1}, {"L3": 1})
    assert names(spine) == ["T12", "L2", "L3"]
    assert spine.warnings == ("no vertebra was found between T12 and L2",)


@pytest.mark.parametrize("run", ["T12,L1", "T12,T13,L1", "L5,sacrum", "L5,L6,sacrum", "C7,T1"])
def test_rare_levels_may_be_there_or_not(run: str) -> None:
    spine = named(*({name: 1.0} for name in run.split(",")))
    assert names(spine) == run.split(",")
    assert spine.warnings == ()


def test_absent_t12_is_told() -> None:
    spine = named({"T10": 1}, {"T11": 1}, {"L1": 1}, {"L2": 1})
    assert names(spine) == ["T10", "T11", "L1", "L2"]
    assert spine.warnings == ("no vertebra was found between T11 and L1",)


def test_levels_in_numeric_order_are_taken_in_anatomical_order() -> None:
    """VerSe's T13 is 28, so a network may list it last."""
    levels = tuple(sorted(ALL, key=lambda level: level.verse_id))
    assert names(named({"T12": 1}, {"T13": 1}, {"L1": 1}, levels=levels)) == ["T12", "T13", "L1"]


def test_a_part_without_a_place_is_dropped() -> None:
    """Below the sacrum there is no level: dropping a fifth of a vertebra costs 8, moving others up 5 each."""
    spine = named({"L4": 1}, {"L5": 1}, {"sacrum": 1}, {"C3": 0.2})
    assert names(spine) == ["L4", "L5", "sacrum"]
    assert spine.warnings == ("a part at 10, -20, -90 mm (RAS) fits no level in order and was dropped",)


def test_a_part_without_evidence_takes_the_free_place() -> None:
    undecided = {level.name: 1 / len(ALL) for level in ALL}
    spine = named({"L1": 1}, undecided, {"L3": 1})
    assert names(spine) == ["L1", "L2", "L3"]
    assert spine.vertebrae[1].confidence == pytest.approx(1 / len(ALL))


def test_nothing_in_nothing_out() -> None:
    spine = identify(Instances((), ALL, GRID, ("told before",)))
    assert spine.vertebrae == ()
    assert spine.warnings == ("told before", "no vertebrae were found")


@settings(deadline=None, max_examples=60)
@given(arrays(np.float64, st.tuples(st.integers(1, 30), st.just(len(ALL) + 1)), elements=st.floats(0, 1e6)))
def test_levels_rise_strictly_whatever_the_evidence(masses: np.ndarray) -> None:
    items = tuple(part(mass, -float(number)) for number, mass in enumerate(masses))
    spine = identify(Instances(items, ALL, GRID))
    ranks = [vertebra.level.rank for vertebra in spine.vertebrae]
    assert all(upper < lower for upper, lower in pairwise(ranks))
    kept = [vertebra.instance.centroid_mm[2] for vertebra in spine.vertebrae]
    assert kept == sorted(kept, reverse=True)
    assert len(items) - len(kept) == sum("was dropped" in warning for warning in spine.warnings)
    assert all(0 <= vertebra.confidence <= 1 for vertebra in spine.vertebrae)


def test_a_wide_gap_is_room_for_a_level() -> None:
    """60 mm between steps of 30: L1 was lost. Without the room T12 would be followed by L1 at -ln 0.45 each."""
    rows = ({"T11": 1}, {"T12": 1}, {"L1": 0.45, "L2": 0.55}, {"L2": 0.45, "L3": 0.55})
    assert names(named(*rows)) == ["T11", "T12", "L1", "L2"]
    apart = named(*rows, heights_mm=(0, -30, -90, -120))
    assert names(apart) == ["T11", "T12", "L2", "L3"]
    assert "no vertebra was found between T12 and L1" not in apart.warnings


def test_room_is_counted_in_usual_steps() -> None:
    room = _room([(0, 0, z) for z in (0, -20, -40, -80, -100, -120, -140, -200, -220)])
    assert room[0].tolist() == [0, 0, 1, 3, 4, 5, 6, 9, 10]
    assert [int(room[n, n + 1]) for n in range(8)] == [0, 0, 1, 0, 0, 0, 2, 0]
    assert _room([(0, 0, 0), (0, 0, -90)]).tolist() == [[0, 0], [0, 0]]


SMALL = parse_levels("T11-L2")  # T13, which is free to pass, lies in the middle


def cost_of(path: tuple[int | None, ...], costs: np.ndarray, room: np.ndarray) -> float:
    used = [(number, level) for number, level in enumerate(path) if level is not None]
    if any(upper[1] >= lower[1] for upper, lower in pairwise(used)):
        return float("inf")
    total = 0.0
    for number, level in enumerate(path):
        rare = level is not None and SMALL[level].name in RARE
        total += DROP_COST / (number + 1) if level is None else costs[number, level] + rare * RARE_COST
    for (m, upper), (n, lower) in pairwise(used):
        passed = [SMALL[level].name in RARE for level in range(upper + 1, lower)]
        allowed = range(len(passed) - sum(passed), len(passed) + 1)
        total += SKIP_COST * min(abs(int(room[m, n]) - count) for count in allowed)
    return total


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 4), st.just(len(SMALL))), elements=st.floats(0, 9)),
    arrays(np.int64, (4, 4), elements=st.integers(0, 3)),
)
def test_no_path_is_cheaper(costs: np.ndarray, room: np.ndarray) -> None:
    drop_costs = DROP_COST / np.arange(1, len(costs) + 1)
    found = cost_of(tuple(_cheapest_path(costs, drop_costs, room, list(SMALL))), costs, room)
    paths = product([None, *range(len(SMALL))], repeat=len(costs))
    assert found == pytest.approx(min(cost_of(path, costs, room) for path in paths))
