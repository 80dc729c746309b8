from dataclasses import replace

import numpy as np
import pytest
from benchmarks.identification.cases import SPACING_MM, Case
from benchmarks.identification.corrupt import KINDS, cropped, lost, merged, noise, shift_part, split_arch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebral.core.anatomy import parse_levels


def blocks() -> Case:
    """T9-L5 as blocks of 14 voxels, 18 apart."""
    levels = [level for level in parse_levels("T9-L5") if level.name != "T13"]
    array = np.zeros((20, 30, 18 * len(levels) + 8), np.uint8)
    for n, level in enumerate(levels):
        top = array.shape[2] - 4 - 18 * n
        array[4:16, 4:26, top - 14 : top] = level.verse_id
    return Case("blocks", array, array, np.diag([SPACING_MM] * 3 + [1.0]), True, True)


@pytest.fixture(name="case")
def _case() -> Case:
    return blocks()


def votes(case: Case) -> list[int]:
    """The VerSe id that most voxels of each vertebra claim, 0 for none."""
    return [int(np.bincount(case.claims[case.truth == level.verse_id]).argmax()) for level in case.levels]


TRUE = [16, 17, 18, 19, 20, 21, 22, 23, 24]


@settings(deadline=None, max_examples=30)
@given(kind=st.sampled_from(sorted(KINDS)), strength=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_corruptions_repeat_and_leave_the_source_alone(kind: str, strength: float, seed: int) -> None:
    source = blocks()
    before = source.claims.copy()
    one, other = (KINDS[kind](source, strength, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(one.claims, other.claims) and np.array_equal(one.truth, other.truth)
    assert np.array_equal(source.claims, before)
    assert one.claims.shape == one.truth.shape and one.claims.dtype == np.uint8


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_strength_no_change(case: Case, kind: str) -> None:
    for seed in range(3):
        assert np.array_equal(KINDS[kind](case, 0.0, np.random.default_rng(seed)).claims, case.claims)


def test_noise_stays_within_the_vertebra_and_its_neighbours(case: Case) -> None:
    made = noise(case, 0.6, np.random.default_rng(1))
    assert np.array_equal(made.claims > 0, case.truth > 0)
    order = [*range(15, 26)]
    for level in case.levels:
        said = set(np.unique(made.claims[made.truth == level.verse_id]).tolist())
        at = order.index(level.verse_id)
        assert said <= set(order[at - 1 : at + 2])
    wrong = (made.claims != case.truth).sum() / (case.truth > 0).sum()
    assert 0.1 < wrong < 0.5


def test_a_merged_pair_has_one_label_and_no_gap(case: Case) -> None:
    made = merged(case, 1.0, np.random.default_rng(0))
    assert 1 <= sum(vote != true for vote, true in zip(votes(made), TRUE, strict=True)) <= 2
    assert (made.claims > 0).sum() > (case.claims > 0).sum()


def test_an_arch_comes_off(case: Case) -> None:
    made = split_arch(case, 1.0, np.random.default_rng(0))
    gone = (case.claims > 0) & (made.claims == 0)
    assert 1 <= len(np.unique(case.truth[gone])) <= 3
    assert len(np.unique(np.nonzero(gone)[1])) <= 2


def test_lost_vertebrae_are_not_the_outermost(case: Case) -> None:
    made = lost(case, 1.0, np.random.default_rng(0))
    assert votes(made).count(0) == 2 and votes(made)[0] == 16 and votes(made)[-1] == 24


def test_an_end_is_shifted_by_one(case: Case) -> None:
    seen = set()
    for seed in range(8):
        off = [
            vote - true
            for vote, true in zip(votes(shift_part(case, 1.0, np.random.default_rng(seed))), TRUE, strict=True)
        ]
        wrong = [n for n, by in enumerate(off) if by]
        assert 0 < len(wrong) <= 4 and len({off[n] for n in wrong}) == 1
        assert wrong[0] == 0 or wrong[-1] == len(TRUE) - 1
        seen.add((wrong[0] == 0, off[wrong[0]]))
    assert len(seen) > 2


def test_a_cropped_field_of_view_cuts_both_ends(case: Case) -> None:
    made = cropped(case, 1.0, np.random.default_rng(3))
    assert 4 <= len(made.levels) < len(TRUE) and not made.open_top and not made.open_bottom
    assert (made.truth[:, :, 0] > 0).any() and (made.truth[:, :, -1] > 0).any()
    inner = made.levels[1]
    where = [
        item.volume(item.truth).grid.to_world(np.argwhere(item.truth == inner.verse_id).mean(0))
        for item in (case, made)
    ]
    assert where[1] == pytest.approx(where[0])


def test_a_view_that_shows_all_stays(case: Case) -> None:
    few = replace(case, truth=np.where(case.truth > 21, case.truth, 0).astype(np.uint8))
    assert cropped(few, 1.0, np.random.default_rng(0)) is few
