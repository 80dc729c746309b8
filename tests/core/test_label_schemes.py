import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebral.core.anatomy import BY_NAME, LEVELS, level_named
from vertebral.core.errors import ConfigError
from vertebral.core.label_schemes import SCHEMES, check_scheme, from_verse, to_verse

# As the sources print them.
BY_HAND = {
    "verse": {
        1: "C1",
        7: "C7",
        8: "T1",
        19: "T12",
        20: "L1",
        24: "L5",
        25: "L6",
        26: "sacrum",
        27: "coccyx",
        28: "T13",
    },
    "totalsegmentator": {25: "sacrum", 26: "sacrum", 27: "L5", 32: "T12", 43: "T1", 44: "C7", 50: "C1"},
    "totalsegmentator-v1": {18: "L5", 22: "L1", 23: "T12", 34: "T1", 35: "C7", 41: "C1", 92: "sacrum"},
    "vista3d": {33: "L5", 37: "L1", 38: "T12", 49: "T1", 50: "C7", 56: "C1", 97: "sacrum", 127: "sacrum", 131: "L6"},
    "monailabel": {1: "C1", 8: "T1", 19: "T12", 20: "L1", 24: "L5"},
    "cads": {18: "L5", 23: "T12", 34: "T1", 35: "C7", 41: "C1", 70: "sacrum"},
    "cads-vertebrae": {1: "L5", 5: "L1", 6: "T12", 17: "T1", 18: "C7", 24: "C1"},
    "plain": {1: "C1", 8: "T1", 19: "T12", 20: "L1", 24: "L5", 25: "L6"},
}
SIZES = {
    "verse": 28,
    "totalsegmentator": 26,
    "totalsegmentator-v1": 25,
    "vista3d": 27,
    "monailabel": 24,
    "cads": 25,
    "cads-vertebrae": 24,
    "plain": 25,
}


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_ids_against_their_sources(scheme: str) -> None:
    ids = SCHEMES[scheme]
    assert {value: ids[value] for value in BY_HAND[scheme]} == BY_HAND[scheme]
    assert len(ids) == SIZES[scheme]
    assert set(ids.values()) <= set(BY_NAME)


def test_every_scheme_is_checked() -> None:
    assert set(SCHEMES) == set(BY_HAND)


@pytest.mark.parametrize("scheme", list(SCHEMES))
@given(st.lists(st.sampled_from(["C1", "C7", "T1", "T12", "L1", "L5"]), min_size=1, max_size=8))
def test_there_and_back(scheme: str, names: list[str]) -> None:
    verse = np.array([level_named(name).verse_id for name in names], np.uint8).reshape(-1, 1, 1)
    written = from_verse(verse, scheme)
    back = to_verse(written, scheme)
    assert np.array_equal(back.array, verse)
    assert back.ignored == {}


def test_other_structures_are_counted_and_left_out() -> None:
    labels = np.array([[[0, 1, 52, 52], [27, 26, 25, 117]]], np.uint8)  # liver and the like; L5, S1, sacrum
    converted = to_verse(labels, "totalsegmentator")
    assert converted.array.tolist() == [[[0, 0, 0, 0], [24, 26, 26, 0]]]
    assert converted.ignored == {1: 1, 52: 2, 117: 1}
    assert converted.array.dtype == np.uint8


def test_large_ids() -> None:
    assert to_verse(np.array([[[0, 300, 5]]], np.uint16), "verse").ignored == {300: 1}


def test_two_ids_of_one_level_become_the_first() -> None:
    assert from_verse(np.array([[[26]]], np.uint8), "totalsegmentator").tolist() == [[[25]]]
    assert from_verse(np.array([[[26]]], np.uint8), "vista3d").tolist() == [[[97]]]


def test_a_level_that_a_scheme_lacks_is_refused() -> None:
    labels = np.array([[[20, 25, 28, 26]]], np.uint8)
    with pytest.raises(ConfigError, match="monailabel has no id for T13, L6, sacrum: choose another"):
        from_verse(labels, "monailabel")
    assert from_verse(labels, "verse").tolist() == labels.tolist()


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'nnunet'.*verse, totalsegmentator, .*plain"):
        check_scheme("nnunet")


def test_all_levels_have_an_id_in_verse() -> None:
    assert set(SCHEMES["verse"].values()) == {level.name for level in LEVELS}
