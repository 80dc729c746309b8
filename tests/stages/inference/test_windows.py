from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rule_sets import undocumented
from vertebral.models.config import InferenceConfig
from vertebral.stages.inference.rules import InferenceRules
from vertebral.stages.inference.windows import (
    BODY_AXIS,
    Corner,
    SpineMask,
    SpineSearch,
    WindowPlan,
    plan_windows,
    visit_layer,
    window_starts,
)

CONFIG = InferenceConfig(window=(16, 16, 32), overlap=0.25)


def test_starts_by_hand() -> None:
    assert window_starts(16, 16, 0.25) == [0]
    assert window_starts(10, 16, 0.25) == [-3]
    assert window_starts(17, 16, 0.25) == [0, 1]
    assert window_starts(40, 16, 0.25) == [0, 12, 24]


@given(st.integers(1, 300), st.integers(4, 64), st.sampled_from([0.0, 0.25, 0.5]))
def test_windows_cover_all_and_overlap_enough(size: int, extent: int, overlap: float) -> None:
    starts = window_starts(size, extent, overlap)
    assert starts[0] <= 0 and starts[-1] + extent >= size
    assert all(0 < b - a <= max(1, int(extent * (1 - overlap))) for a, b in pairwise(starts))


def visited(plan: WindowPlan, spine: SpineMask, min_voxels: float = 1) -> list[Corner]:
    """Return the windows that a search visits if the network finds `spine` (I, J, K)."""
    padded = np.pad(spine, 40)
    seen: list[Corner] = []

    def visit(corner: Corner) -> SpineMask:
        seen.append(corner)
        return padded[tuple(slice(c + 40, c + 40 + w) for c, w in zip(corner, plan.window, strict=True))]

    search = SpineSearch(plan, min_voxels)
    for layer in plan.layers:
        search.follow(visit, layer)
    assert len(set(seen)) == len(seen)
    return seen


def test_a_spine_in_the_middle_needs_one_window_a_layer() -> None:
    spine = np.zeros((40, 40, 80), bool)
    spine[18:22, 18:22] = True
    plan = plan_windows(spine.shape, CONFIG, BODY_AXIS)
    assert visited(plan, spine) == [(12, 12, 0), (12, 12, 24), (12, 12, 48)]


def test_a_neighbour_follows_where_the_spine_reaches_it() -> None:
    spine = np.zeros((40, 40, 80), bool)
    spine[18:22, 10:22, 30:] = True  # near the side of its window, in the first layer already
    plan = plan_windows(spine.shape, CONFIG, BODY_AXIS)
    assert visited(plan, spine) == [
        *((i, j, 0) for i, j in ((12, 12), (12, 0))),
        *((i, j, k) for k in (24, 48) for i, j in ((12, 0), (12, 12))),
    ]


def test_a_spine_off_the_middle_is_found_by_visiting_all_windows() -> None:
    spine = np.zeros((40, 40, 80), bool)
    spine[0:6, 0:6] = True
    plan = plan_windows(spine.shape, CONFIG, BODY_AXIS)
    seen = visited(plan, spine)
    assert {corner[:2] for corner in seen if corner[2] == 0} == set(product((0, 12, 24), repeat=2))
    assert [corner for corner in seen if corner[2] > 0] == [(0, 0, 24), (0, 0, 48)]  # from there it is followed


@pytest.mark.parametrize("least", [1, 500])
def test_too_little_is_no_spine(least: int) -> None:
    spine = np.zeros((40, 40, 30), bool)
    spine[18:22, 18:22, :10] = True  # 160 voxels
    plan = plan_windows(spine.shape, CONFIG, BODY_AXIS)
    assert len(visited(plan, spine, least)) == (1 if least == 1 else 9)


@given(st.integers(0, 2**32 - 1))
def test_every_voxel_of_a_column_is_seen(seed: int) -> None:
    """A column that bends as it likes: no voxel of it is left out, wherever the search began."""
    rng = np.random.default_rng(seed)
    spine = np.zeros((50, 50, 70), bool)
    place = rng.integers(5, 45, 2)
    for k in range(spine.shape[2]):
        place = np.clip(place + rng.integers(-1, 2, 2), 3, 46)
        spine[place[0] - 3 : place[0] + 3, place[1] - 3 : place[1] + 3, k] = True
    plan = plan_windows(spine.shape, CONFIG, BODY_AXIS)
    covered = np.zeros_like(spine)
    for corner in visited(plan, spine):
        covered[tuple(slice(max(0, c), c + w) for c, w in zip(corner, plan.window, strict=True))] = True
    assert covered[spine].all()


def test_every_window_without_a_search() -> None:
    plan = plan_windows((40, 20, 33), CONFIG, 0)
    seen: list[Corner] = []
    for layer in plan.layers:
        visit_layer(plan, seen.append, layer)
    assert len(set(seen)) == len(seen) == 3 * 2 * 2


def test_every_rule_has_a_unit_and_a_source() -> None:
    assert undocumented(InferenceRules) == []
