from itertools import pairwise

import pytest

from vertebral.core.anatomy import (
    BY_NAME,
    BY_VERSE_ID,
    LEVELS,
    TOTALSEGMENTATOR_V2_IDS,
    level_named,
    parse_levels,
    sort_levels,
)
from vertebral.core.errors import ConfigError


def names(text: str) -> list[str]:
    return [level.name for level in parse_levels(text)]


@pytest.mark.parametrize(
    ("name", "verse_id"),
    [("C1", 1), ("C7", 7), ("T1", 8), ("T12", 19), ("L1", 20), ("L5", 24), ("L6", 25), ("sacrum", 26), ("coccyx", 27)],
)
def test_ids_are_those_of_verse(name: str, verse_id: int) -> None:
    assert BY_NAME[name].verse_id == verse_id
    assert BY_VERSE_ID[verse_id].name == name


def test_t13_is_28_and_lies_between_t12_and_l1() -> None:
    assert BY_NAME["T13"].verse_id == 28
    assert BY_NAME["T12"].rank + 1 == BY_NAME["T13"].rank == BY_NAME["L1"].rank - 1
    by_id = sort_levels(BY_VERSE_ID[i] for i in (28, 20, 19))
    assert [level.name for level in by_id] == ["T12", "T13", "L1"]


def test_the_table_is_complete_and_without_repeats() -> None:
    assert len(LEVELS) == 28
    assert set(BY_NAME) - {level.name for level in LEVELS} == {"spine"}
    assert len(BY_VERSE_ID) == len(BY_NAME) == 29
    assert [level.rank for level in LEVELS] == list(range(28))
    assert sum(level.is_vertebra for level in LEVELS) == 26
    assert not BY_NAME["sacrum"].is_vertebra


def test_neighbours_have_different_colours() -> None:
    for upper, lower in pairwise(LEVELS):
        assert upper.rgb != lower.rgb


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L3", ["L3"]),
        ("L1-L5", ["L1", "L2", "L3", "L4", "L5"]),
        ("T12-L1", ["T12", "T13", "L1"]),
        ("L2,T12", ["T12", "L2"]),
        ("C1-C3, C2-C4", ["C1", "C2", "C3", "C4"]),
        ("l5-SACRUM", ["L5", "L6", "sacrum"]),
        ("t1 - t2", ["T1", "T2"]),
    ],
)
def test_parse_levels(text: str, expected: list[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize("text", ["", "L7", "L1-", "-L1", "L1,,L2", "L5-L1", "T12-L1-L2", "20"])
def test_parse_levels_refuses(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_levels(text)


def test_errors_name_the_value_and_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"'L9'.*C1.*L6"):
        level_named("L9")
    with pytest.raises(ConfigError, match="head to tail"):
        parse_levels("L5-L1")


def test_totalsegmentator_ids_against_its_published_class_map() -> None:
    by_hand = {25: "sacrum", 26: "sacrum", 27: "L5", 31: "L1", 32: "T12", 43: "T1", 44: "C7", 50: "C1"}
    assert {i: TOTALSEGMENTATOR_V2_IDS[i] for i in by_hand} == by_hand
    assert sorted(TOTALSEGMENTATOR_V2_IDS) == list(range(25, 51))
    # From tail to head without a gap: each id is the level above the one before it (there is no T13 or L6).
    ranks = [BY_NAME[TOTALSEGMENTATOR_V2_IDS[i]].rank for i in range(27, 51)]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 24
