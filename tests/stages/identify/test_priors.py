import pytest

from vertebral.core.anatomy import BY_NAME, LEVELS, Level, parse_levels
from vertebral.stages.identify.priors import between, distance_mm, nameable, shifted
from vertebral.stages.identify.states import states_of, steps_of


def level(name: str) -> Level:
    return BY_NAME[name]


@pytest.mark.parametrize(
    ("upper", "lower", "absent", "expected"),
    [
        ("L1", "L2", None, 32.4),
        ("L1", "L3", None, 32.4 + 33.4),
        ("T12", "L1", None, 31.7),
        ("T12", "T13", None, 31.2),
        ("T11", "T13", None, 30.2 + 31.2),
        ("T13", "L2", None, 31.9 + 32.4),
        ("T11", "L1", None, 30.2 + 31.7),
        ("T11", "L1", "T12", 31.0),
        ("T10", "L2", "T12", 27.7 + 31.0 + 32.4),
        ("L4", "sacrum", "L5", 49.0),
        ("L5", "sacrum", None, 49.0),
        ("L4", "L6", None, 31.3 + 32.0),
    ],
)
def test_distances_by_hand(upper: str, lower: str, absent: str | None, expected: float) -> None:
    assert distance_mm(level(upper), level(lower), absent) == pytest.approx(expected)


def test_every_pair_has_a_distance() -> None:
    for a, upper in enumerate(LEVELS):
        for lower in LEVELS[a + 1 :]:
            assert distance_mm(upper, lower) > 0


def test_rare_levels_are_not_between() -> None:
    assert between(level("T12"), level("L1")) == ()
    assert [x.name for x in between(level("T11"), level("L2"))] == ["T12", "L1"]
    assert between(level("L5"), level("sacrum")) == ()


def test_t13_and_l6_can_be_named_without_a_class() -> None:
    assert [x.name for x in nameable(parse_levels("T12,L1"))] == ["T12", "T13", "L1"]
    assert [x.name for x in nameable(parse_levels("L5,sacrum"))] == ["L5", "L6", "sacrum"]
    assert [x.name for x in nameable(parse_levels("T11,T12"))] == ["T11", "T12"]


@pytest.mark.parametrize(
    ("name", "by", "expected"),
    [
        ("T12", 1, "L1"),
        ("L1", -1, "T12"),
        ("T13", 1, "L1"),
        ("T13", -1, "T12"),
        ("L5", 1, "L6"),
        ("L6", 1, None),
        ("C1", -1, None),
        ("sacrum", 1, "sacrum"),
        ("L3", 0, "L3"),
    ],
)
def test_shifts_by_hand(name: str, by: int, expected: str | None) -> None:
    found = shifted(level(name), by)
    assert (None if found is None else found.name) == expected


def test_states_are_levels_and_pairs_of_neighbours() -> None:
    states = states_of(nameable(parse_levels("T11,T12,L1,L2")))
    pairs = [(states.levels[a].name, states.levels[b].name) for a, b in zip(states.top, states.bottom, strict=True)]
    assert pairs == [
        ("T11", "T11"),
        ("T12", "T12"),
        ("T13", "T13"),
        ("L1", "L1"),
        ("L2", "L2"),
        ("T11", "T12"),
        ("T12", "L1"),
        ("L1", "L2"),
    ]
    assert states.volumes_ml()[5] == pytest.approx(43.4 + 48.0)


def test_steps_go_down_and_a_pair_counts_half_a_step() -> None:
    levels = parse_levels("L1,L2,L3")
    states, steps = states_of(levels), steps_of(levels)
    assert (states.bottom[steps.upper] < states.top[steps.lower]).all()
    pair = int(((states.top == 0) & (states.bottom == 1)).nonzero()[0][0])
    (row,) = ((steps.upper == pair) & (steps.lower == 2)).nonzero()[0]
    assert steps.usual_mm[row] == pytest.approx(32.4 / 2 + 33.4)
    (row,) = ((steps.upper == 0) & (steps.lower == 2)).nonzero()[0]
    assert steps.passed[row] == 1 and steps.absent[row] == -1
