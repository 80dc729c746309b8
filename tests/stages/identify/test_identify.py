from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rule_sets import undocumented
from vertebral.core.anatomy import LEVELS, SPINE, Level, level_named, parse_levels
from vertebral.core.records import Instance, Instances, Spine
from vertebral.core.volume import Grid
from vertebral.stages.identify import IdentifyRules, identify, provisional_levels
from vertebral.stages.identify.priors import STEPS_MM, VOLUMES_ML

NETWORK = tuple(level for level in LEVELS if level.name not in ("coccyx", "T13"))
GRID = Grid((40, 40, 400), np.eye(4))
FREE, AT_TOP = slice(100, 101), slice(0, 1)
Shares = dict[str, float]


def instance(class_mass: np.ndarray, height_mm: float, volume_ml: float, cut: bool = False) -> Instance:
    occupancy = np.ones((1, 1, round(1000 * volume_ml)), np.float32)
    box = (slice(0, 1), slice(0, 1), AT_TOP if cut else FREE)
    return Instance(occupancy, box, class_mass, (10.0, -20.0, height_mm), cut)


def spine_of(
    rows: list[Shares],
    true: list[str],
    levels: tuple[Level, ...] = NETWORK,
    scale: float = 1.0,
    sizes: dict[int, float] | None = None,
    cut: tuple[int, ...] = (),
) -> Spine:
    """Identify instances, head to tail: their share of evidence for some levels, and the levels that they are in truth.

    The latter set their distances and volumes; `sizes` holds factors on the volume.
    """
    height_mm, items = 0.0, []
    for n, (row, name) in enumerate(zip(rows, true, strict=True)):
        if n:
            height_mm -= scale * distance_mm(true[n - 1], name)
        mass = np.array([0.0, *(row.get(level.name, 0.0) for level in levels)])
        volume_ml = VOLUMES_ML[name] * scale**3 * (sizes or {}).get(n, 1.0)
        items.append(instance(mass, height_mm, volume_ml, n in cut))
    return identify(Instances(tuple(items), levels, GRID))


def distance_mm(upper: str, lower: str) -> float:
    if upper == lower:
        return 8.0
    if (upper, lower) in STEPS_MM:
        return STEPS_MM[upper, lower]
    chain = [
        x.name for x in parse_levels(f"{upper}-{lower}") if x.name not in ("T13", "L6") or x.name in (upper, lower)
    ]
    return sum(STEPS_MM[pair] for pair in pairwise(chain))


def names(spine: Spine) -> list[str]:
    return [vertebra.level.name for vertebra in spine.vertebrae]


def sure(text: str) -> list[Shares]:
    return [{name: 1.0} for name in text.split()]


def muddled(true: list[str], share: float, shift: int = 0) -> list[Shares]:
    """`share` for the level `shift` places off the true one, the rest in equal parts for its two neighbours."""
    order = [level.name for level in NETWORK if level.name != "L6"]
    rows = []
    for name in true:
        at = order.index(name) + shift
        rest = [order[n] for n in (at - 1, at + 1) if 0 <= n < len(order)]
        rows.append({order[at]: share, **{other: (1 - share) / len(rest) for other in rest}})
    return rows


@pytest.mark.parametrize(
    "text",
    [
        "C1 C2 C3 C4 C5 C6 C7 T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 L1 L2 L3 L4 L5 sacrum",
        "T9 T10 T11 T12 L1 L2",
        "T12 L1 L2 L3 L4 L5 L6 sacrum",
        "T9 T10 T11 L1 L2 L3",
        "L2 L3 L4 sacrum",
        "L3",
    ],
)
def test_clean_evidence_keeps_its_names(text: str) -> None:
    spine = spine_of(sure(text), text.split())
    assert names(spine) == text.split()
    assert spine.grid is GRID
    assert all(vertebra.quality == 1 for vertebra in spine.vertebrae)


def test_a_clean_run_is_sure_and_gives_no_reason_to_look() -> None:
    text = "T9 T10 T11 T12 L1 L2 L3 L4 L5 sacrum"
    spine = spine_of(sure(text), text.split())
    assert min(vertebra.confidence for vertebra in spine.vertebrae) > 0.95
    assert all(vertebra.needs_review == () for vertebra in spine.vertebrae)
    assert spine.shift_probability[0] > 0.999 and sum(spine.shift_probability.values()) == pytest.approx(1)
    assert len(spine.runner_up) > 8 and list(spine.runner_up) != text.split()
    assert spine.warnings == ()


def test_order_and_steps_correct_a_wrong_guess() -> None:
    spine = spine_of([{"T11": 1}, {"L4": 0.6, "T12": 0.4}, {"L1": 1}, {"L2": 1}], ["T11", "T12", "L1", "L2"])
    assert names(spine) == ["T11", "T12", "L1", "L2"]
    assert spine.warnings == (
        "named to fit the order of the spine, not by the network's first choice (check these): T12",
    )


def test_a_level_claimed_twice_goes_to_one() -> None:
    spine = spine_of([{"T12": 0.9, "L1": 0.1}, {"T12": 0.7, "L1": 0.3}, {"L2": 1}], ["T12", "L1", "L2"])
    assert names(spine) == ["T12", "L1", "L2"]


@pytest.mark.parametrize("scale", [0.75, 1.0, 1.25])
def test_a_lost_vertebra_leaves_its_gap(scale: float) -> None:
    """Half of the evidence below the gap is one level too high; the distance shows that T5 is missing."""
    true = ["T1", "T2", "T3", "T4", "T6", "T7", "T8", "T9", "T10"]
    rows = muddled(true, 0.8)
    rows[4:6] = [{"T5": 0.6, "T6": 0.4}, {"T6": 0.6, "T7": 0.4}]
    spine = spine_of(rows, true, scale=scale)
    assert names(spine) == true
    assert spine.warnings[0] == "no vertebra was found between T4 and T6"


def test_cervical_pairs_taken_for_one_do_not_shift_the_rest() -> None:
    """Four instances for C1-T1: each holds two, so each step is double and only the evidence decides."""
    rows = [{"C1": 0.4, "C2": 0.6}, {"C3": 0.4, "C4": 0.6}, {"C5": 0.6, "C6": 0.4}, {"C7": 0.6, "T1": 0.4}]
    true = ["T2", "T3", "T4", "T5", "T6"]
    heights = [-9.0, -9 - 36.7, -9 - 70.8, -9 - 108.1, -9 - 140.8]
    mass = [np.array([0.0, *(row.get(level.name, 0.0) for level in NETWORK)]) for row in [*rows, *muddled(true, 0.8)]]
    heights += [heights[-1] - sum(STEPS_MM[pair] for pair in pairwise(true[: n + 1])) for n in range(1, 5)]
    volumes = [36.0, 27.0, 28.0, 43.0, *(VOLUMES_ML[name] for name in true)]
    items = tuple(instance(m, height, v) for m, height, v in zip(mass, heights, volumes, strict=True))
    spine = identify(Instances(items, NETWORK, GRID))
    assert names(spine) == ["C2", "C4", "C5", "C7", *true]
    assert "may contain two vertebrae (C1 and C2)" in spine.vertebrae[0].needs_review
    assert spine.vertebrae[0].quality < 0.5 < spine.vertebrae[-1].quality
    assert min(vertebra.confidence for vertebra in spine.vertebrae[4:]) > 0.8


def test_evidence_shifted_in_one_segment_gives_way_to_the_rest() -> None:
    true = [f"T{n}" for n in range(1, 13)] + [f"L{n}" for n in range(1, 6)]
    rows = muddled(true[:4], 0.8, shift=-1) + muddled(true[4:], 0.8)
    assert names(spine_of(rows, true)) == true


def test_t13_is_named_without_a_class_for_it() -> None:
    true = ["T9", "T10", "T11", "T12", "T13", "L1", "L2", "L3", "L4", "L5", "sacrum"]
    rows = [{name: 1.0} for name in true]
    rows[4] = {"T12": 0.5, "L1": 0.5}
    spine = spine_of(rows, true)
    assert names(spine) == true
    assert "T13 is a rare variant" in spine.vertebrae[4].needs_review


def test_t13_with_a_class_of_its_own() -> None:
    levels = tuple(level for level in LEVELS if level.name != "coccyx")
    text = "T11 T12 T13 L1 L2"
    assert names(spine_of(sure(text), text.split(), levels)) == text.split()


def test_l6_is_seen_in_evidence_split_above_the_sacrum() -> None:
    true = ["T12", "L1", "L2", "L3", "L4", "L5", "L6", "sacrum"]
    rows = muddled(true[:6], 0.8)
    rows[5] = {"L5": 0.6, "L4": 0.4}
    spine = spine_of([*rows, {"L5": 0.9, "L4": 0.1}, {"sacrum": 1.0}], true)
    assert names(spine) == true


def test_a_small_false_instance_is_dropped() -> None:
    true = ["L1", "L2", "L3", "L4", "L5"]
    rows = [{"L1": 1.0}, {"L2": 1.0}, {"L2": 0.5, "L3": 0.5}, {"L3": 1.0}, {"L4": 1.0}, {"L5": 1.0}]
    spine = spine_of(rows, ["L1", "L2", "L2", "L3", "L4", "L5"], sizes={2: 0.05})
    assert names(spine) == true
    assert any("did not fit the sequence of levels and was left out" in warning for warning in spine.warnings)


@pytest.mark.parametrize(("share", "kept"), [(0.3, True), (0.02, False)])
def test_an_end_may_be_small_but_no_island(share: float, kept: bool) -> None:
    true = ["T9", "T10", "T11", "T12", "L1"]
    spine = spine_of([{name: 1.0} for name in true], true, sizes={0: share})
    assert names(spine) == (true if kept else true[1:])
    assert any("was left out" in warning for warning in spine.warnings) != kept


def test_what_the_border_cuts_is_not_judged_by_its_size() -> None:
    true = ["T10", "T11", "T12", "L1", "L2"]
    spine = spine_of(muddled(true, 0.7), true, sizes={0: 0.1}, cut=(0,))
    assert names(spine) == true
    assert spine.vertebrae[0].quality == 1


def test_an_implausible_size_lowers_the_quality() -> None:
    """A third of the usual volume: exp(-(ln 3 / 0.4)^2 / 2) = 0.023."""
    true = ["T10", "T11", "T12", "L1", "L2"]
    low = spine_of(muddled(true, 0.8), true, sizes={2: 1 / 3}).vertebrae[2]
    assert low.quality == pytest.approx(0.023, abs=1e-3)
    assert low.needs_review[-1] == "mask questionable (33 % of the usual volume)"


def test_evidence_between_two_paths_is_reported_as_a_shift() -> None:
    """Five thoracic vertebrae whose evidence is 55 to 45 for one level higher up."""
    true = ["T5", "T6", "T7", "T8", "T9"]
    rows = [{name: 0.45, other: 0.55} for name, other in zip(true, ["T4", *true], strict=False)]
    spine = spine_of(rows, true)
    assert names(spine) == ["T4", "T5", "T6", "T7", "T8"]
    assert 0.25 < spine.shift_probability[1] < spine.shift_probability[0]
    assert list(spine.runner_up) == true
    assert all(vertebra.needs_review[0].startswith("level uncertain (0.") for vertebra in spine.vertebrae)


def test_no_evidence_at_all_names_in_order() -> None:
    spine = spine_of([{}, {}, {}], ["L1", "L2", "L3"])
    assert len(names(spine)) == 3
    assert max(vertebra.confidence for vertebra in spine.vertebrae) < 0.5


def test_nothing_in_nothing_out() -> None:
    spine = identify(Instances((), NETWORK, GRID, ("an earlier warning",)))
    assert spine.vertebrae == () and spine.shift_probability == {} and spine.runner_up == ()
    assert spine.warnings == ("an earlier warning", "no vertebrae were found")


def test_the_spine_as_a_whole_has_one_name() -> None:
    spine = identify(Instances((instance(np.array([0.0, 5.0]), 0.0, 1.0),), (SPINE,), GRID))
    assert names(spine) == ["spine"] and spine.vertebrae[0].confidence == 1


def test_a_network_of_few_levels_names_only_these() -> None:
    levels = parse_levels("L1,L2,L3")
    assert names(spine_of(sure("L1 L3"), ["L1", "L3"], levels)) == ["L1", "L3"]


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_levels_rise_strictly_whatever_is_seen(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    masses = data.draw(arrays(np.float64, (count, len(NETWORK) + 1), elements=st.floats(0, 1e6)))
    steps_mm = data.draw(arrays(np.float64, count, elements=st.floats(0, 300)))
    volumes_ml = data.draw(arrays(np.float64, count, elements=st.floats(0.001, 3)))
    heights_mm = -np.cumsum(steps_mm)
    items = tuple(instance(m, h, v) for m, h, v in zip(masses, heights_mm, volumes_ml, strict=True))
    spine = identify(Instances(items, NETWORK, GRID))
    ranks = [vertebra.level.rank for vertebra in spine.vertebrae]
    assert all(upper < lower for upper, lower in pairwise(ranks))
    kept = [next(n for n, item in enumerate(items) if item is v.instance) for v in spine.vertebrae]
    assert kept == sorted(kept)
    assert len(items) - len(kept) == sum("was left out" in warning for warning in spine.warnings)
    assert all(0 <= v.confidence <= 1 and 0 <= v.quality <= 1 for v in spine.vertebrae)
    runner_up = [level_named(name).rank for name in spine.runner_up]
    assert all(upper < lower for upper, lower in pairwise(runner_up))


def test_voxels_that_disagree_lower_the_quality() -> None:
    """0.42 of the evidence for one level: 0.42 / 0.7 = 0.6."""
    true = ["T10", "T11", "T12", "L1"]
    rows = [{"T10": 1.0}, {"T11": 0.42, "T10": 0.29, "T12": 0.29}, {"T12": 1.0}, {"L1": 1.0}]
    assert spine_of(rows, true).vertebrae[1].quality == pytest.approx(0.6, abs=0.01)


def test_a_higher_temperature_is_less_sure() -> None:
    items = tuple(instance(np.eye(len(NETWORK) + 1)[n], -30.0 * n, 40.0) for n in (20, 21, 22))
    cold, warm = (identify(Instances(items, NETWORK, GRID), temperature) for temperature in (1.0, 5.0))
    assert names(cold) == names(warm)
    assert warm.vertebrae[1].confidence < cold.vertebrae[1].confidence
    assert warm.shift_probability[0] < cold.shift_probability[0]


def test_every_rule_has_a_unit_and_a_source() -> None:
    assert undocumented(IdentifyRules) == []


def test_a_rule_can_be_varied() -> None:
    """Where dropping costs next to nothing, a vertebra that contradicts the others goes."""
    items = tuple(instance(np.eye(len(NETWORK) + 1)[n], -30.0 * k, 40.0) for k, n in enumerate((20, 12, 21)))
    cheap = IdentifyRules(max_drop_cost=0.1, min_drop_cost=0.1)
    assert len(identify(Instances(items, NETWORK, GRID)).vertebrae) == 3
    assert len(identify(Instances(items, NETWORK, GRID), rules=cheap).vertebrae) < 3


def test_provisional_levels_leave_a_place_for_what_is_dropped() -> None:
    true = ["L1", "L2", "L3", "L4", "L5"]
    spine = spine_of([{name: 1.0} for name in true], true)
    items = [vertebra.instance for vertebra in spine.vertebrae]
    small = instance(np.eye(len(NETWORK) + 1)[20], items[2].centroid_mm[2] + 8, 1.0)
    found = provisional_levels(Instances((*items[:2], small, *items[2:]), NETWORK, GRID))
    assert [level and level.name for level in found] == ["L1", "L2", None, "L3", "L4", "L5"]
    assert provisional_levels(Instances((), NETWORK, GRID)) == ()
