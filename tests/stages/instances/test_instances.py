import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from rule_sets import undocumented
from vertebral.core.anatomy import LEVELS, SPINE, parse_levels
from vertebral.core.records import Evidence, Instance, Instances
from vertebral.core.volume import Grid
from vertebral.stages.instances import InstanceRules, find_instances

LUMBAR = parse_levels("L1-L5")
CLASS = {level.name: number for number, level in enumerate(LUMBAR, start=1)}
SHAPE = (30, 30, 80)
SPACING_MM = 2.0  # a voxel is 0.008 ml
ORIGIN_MM = (-5.0, 7.0, 100.0)
BODY = slice(10, 20)  # a block of 10 x 10 voxels is 0.8 ml a slice

Block = tuple[str, slice, slice, slice]


def grid_of(shape: tuple[int, ...], spacing_mm: float = SPACING_MM) -> Grid:
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = ORIGIN_MM
    return Grid((shape[0], shape[1], shape[2]), affine)


def evidence(*blocks: Block, probability: int = 255) -> Evidence:
    """Blocks of one class each in an empty grid; the rest to 255 is for the background."""
    first, second = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
    first_probability, second_probability = np.full(SHAPE, 255, np.uint8), np.zeros(SHAPE, np.uint8)
    for name, *box in blocks:
        first[tuple(box)], second[tuple(box)] = CLASS[name], 0
        first_probability[tuple(box)], second_probability[tuple(box)] = probability, 255 - probability
    return Evidence(first, second, first_probability, second_probability, LUMBAR, grid_of(SHAPE))


def column(name: str, low: int, high: int) -> Block:
    return name, BODY, BODY, slice(low, high)


def inside(item: Instance, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[item.box] = item.occupancy >= 0.5
    return mask


def block_mask(*blocks: Block) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for _, *box in blocks:
        mask[tuple(box)] = True
    return mask


def assert_is(item: Instance, *blocks: Block) -> None:
    assert np.array_equal(inside(item), block_mask(*blocks))


def test_two_touching_vertebrae() -> None:
    upper, lower = column("L1", 22, 30), column("L2", 14, 22)
    found = find_instances(evidence(lower, upper, probability=204))
    assert found.warnings == ()
    assert found.levels == LUMBAR
    first, second = found.items
    assert_is(first, upper)
    assert_is(second, lower)
    # The middle of voxels 10-19 is 14.5, that of 22-29 is 25.5.
    assert first.centroid_mm == pytest.approx((-5 + 29, 7 + 29, 100 + 51))
    assert second.centroid_mm == pytest.approx((24, 36, 100 + 35))
    # 800 voxels of 0.8 for the class and 0.2 for the background.
    assert first.class_mass == pytest.approx([160, 640, 0, 0, 0, 0])
    assert second.class_mass == pytest.approx([160, 0, 640, 0, 0, 0])
    assert first.occupancy.dtype == np.float32
    assert first.occupancy.max() == pytest.approx(0.8)
    assert not first.touches_border


def test_one_vertebra_with_two_labels() -> None:
    """Steps of 20, 8 and 20 mm: 8 is below 0.45 x 20."""
    whole = (column("L1", 22, 26), column("L2", 18, 22))
    found = find_instances(evidence(column("L1", 30, 38), *whole, column("L3", 6, 14)))
    assert len(found.items) == 3
    assert_is(found.items[1], *whole)
    assert found.items[1].class_mass == pytest.approx([0, 400, 400, 0, 0, 0])


def test_an_arch_joins_its_body_not_the_one_below() -> None:
    """A spinous process apart from its body hangs lower, closer in z to the next one, but has its own class."""
    bodies = column("L1", 40, 50), column("L2", 26, 36)
    arches = ("L1", slice(12, 18), slice(2, 7), slice(31, 43)), ("L2", slice(12, 18), slice(2, 7), slice(17, 29))
    found = find_instances(evidence(*bodies, *arches))
    assert len(found.items) == 2
    assert_is(found.items[0], bodies[0], arches[0])
    assert_is(found.items[1], bodies[1], arches[1])


def test_neighbours_under_one_name_stay_apart() -> None:
    found = find_instances(evidence(column("L2", 40, 50), column("L2", 26, 36), column("L3", 12, 22)))
    assert len(found.items) == 3


def test_a_lone_vertebra_split_left_and_right() -> None:
    """No neighbour gives the usual step, but two vertebrae are never at one axial position."""
    halves = ("L1", slice(4, 14), BODY, slice(20, 28)), ("L2", slice(14, 24), BODY, slice(20, 28))
    found = find_instances(evidence(*halves))
    assert len(found.items) == 1
    assert_is(found.items[0], *halves)


def test_three_labels_in_one_vertebra() -> None:
    """The middle third is the smallest; it must not pull the outer two apart."""
    thirds = column("L1", 24, 28), ("L2", slice(10, 19), BODY, slice(21, 24)), column("L3", 17, 21)
    found = find_instances(evidence(column("L1", 40, 50), *thirds, column("L4", 0, 6)))
    assert [inside(item).sum() for item in found.items] == [1000, 1070, 600]


def test_a_piece_between_two_vertebrae_does_not_join_them() -> None:
    """Usual 24 mm; a disc-like piece is 10 mm from either neighbour: it goes to one, the other stays."""
    names = ("L1", "L2", "L3", "L4", "L5", "L1")
    bodies = [column(name, low, low + 8) for name, low in zip(names, (60, 48, 36, 26, 14, 2), strict=True)]
    piece = ("L2", BODY, BODY, slice(34, 36)), ("L2", slice(20, 24), BODY, slice(31, 39))
    found = find_instances(evidence(*bodies, *piece))
    assert sorted(inside(item).sum() for item in found.items) == [800, 800, 800, 800, 800, 1320]


def test_a_small_fragment_joins_its_vertebra() -> None:
    """A rod of another label starts 4 mm behind the body and ends 24 mm behind it: it joins as a whole."""
    body, rod = column("L1", 20, 28), ("L2", slice(14, 15), slice(21, 30), slice(24, 25))
    found = find_instances(evidence(body, rod))
    assert len(found.items) == 1
    assert_is(found.items[0], body, rod)
    assert found.warnings == ()


def test_a_fragment_goes_to_the_nearest_vertebra() -> None:
    upper, lower = column("L1", 30, 38), column("L2", 14, 22)
    fragment = ("L5", slice(12, 18), slice(12, 18), slice(23, 25))
    found = find_instances(evidence(upper, lower, fragment))
    assert_is(found.items[0], upper)
    assert_is(found.items[1], lower, fragment)


def test_a_fragment_out_of_reach_is_dropped() -> None:
    """12 mm away: over the 10 mm of reach, but not a group of its own. 5 x 5 x 6 voxels are 1.2 ml."""
    body, fragment = column("L1", 20, 28), ("L2", slice(25, 30), slice(10, 15), slice(20, 26))
    found = find_instances(evidence(body, fragment))
    assert_is(found.items[0], body)
    assert found.warnings == ("1.2 ml of predicted bone far from the spine was left out",)


def test_a_far_blob_is_dropped_with_a_warning() -> None:
    """5 x 10 x 13 voxels are 5.2 ml, more than enough for a vertebra, but 14 % of the largest group."""
    bodies = [column("L1", 66, 78), column("L2", 52, 64), column("L3", 38, 50), column("L4", 24, 36)]
    blob = ("L5", slice(0, 5), slice(0, 10), slice(0, 13))
    found = find_instances(evidence(*bodies, blob))
    assert len(found.items) == 4
    assert [item.class_mass.argmax() for item in found.items] == [1, 2, 3, 4]
    assert found.warnings == ("5.2 ml of predicted bone far from the spine was left out",)


def test_no_evidence() -> None:
    found = find_instances(evidence())
    assert found == Instances((), LUMBAR, found.grid)


@pytest.mark.parametrize(
    ("height", "warnings"), [(1, ()), (4, ("3.2 ml of predicted bone far from the spine was left out",))]
)
def test_too_little_evidence(height: int, warnings: tuple[str, ...]) -> None:
    found = find_instances(evidence(column("L1", 20, 20 + height)))
    assert found.items == ()
    assert found.warnings == warnings


def test_evidence_below_one_half_is_background() -> None:
    assert find_instances(evidence(column("L1", 20, 28), probability=127)).items == ()
    assert len(find_instances(evidence(column("L1", 20, 28), probability=128)).items) == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("edge", ["low", "high"])
@pytest.mark.parametrize("gap", [0, 1])
def test_border_flag(axis: int, edge: str, gap: int) -> None:
    box = [BODY, BODY, slice(20, 30)]
    box[axis] = slice(gap, gap + 10) if edge == "low" else slice(SHAPE[axis] - gap - 10, SHAPE[axis] - gap)
    block = ("L1", *box)
    found = find_instances(evidence(block))
    assert found.items[0].touches_border == (gap == 0)
    assert_is(found.items[0], block)


def test_occupancy_yields_to_the_neighbour() -> None:
    """In the lower vertebra's top slice 0.4 is for the upper one: 0.6 stays, and the upper one gets 0.4 there."""
    upper, lower = column("L1", 22, 30), column("L2", 14, 22)
    given_ = evidence(upper, lower)
    top = (BODY, BODY, slice(21, 22))
    given_.first_probability[top], given_.second[top], given_.second_probability[top] = 153, CLASS["L1"], 102
    first, second = find_instances(given_).items
    assert second.occupancy[second.box[0].start - 10 + 4, 4, 21 - second.box[2].start] == pytest.approx(0.6)
    assert first.occupancy[4, 4, 21 - first.box[2].start] == pytest.approx(0.4)
    assert_is(first, upper)
    assert_is(second, lower)


def soft_evidence(seed: int, shape: tuple[int, int, int], class_count: int, spacing_mm: float) -> Evidence:
    """Smooth random fields: touching, overlapping and broken components of every size."""
    generator = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(generator.standard_normal(shape), 2.5) * 45 for _ in range(class_count)]
    logits = np.stack([np.ones(shape), *fields])
    probabilities = np.exp(logits) / np.exp(logits).sum(0)
    order = np.argsort(probabilities, axis=0)[::-1][:2]
    first, second = np.take_along_axis(probabilities, order, 0)
    return Evidence(
        order[0].astype(np.uint8),
        order[1].astype(np.uint8),
        np.rint(first * 255).astype(np.uint8),
        np.rint(second * 255).astype(np.uint8),
        LEVELS[:class_count],
        grid_of(shape, spacing_mm),
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2.0, 4.0, 6.0]))
def test_no_voxel_is_lost_or_owned_twice(seed: int, spacing_mm: float) -> None:
    shape = (18, 16, 40)
    given_ = soft_evidence(seed, shape, 3, spacing_mm)
    found = find_instances(given_)
    owners = sum((inside(item, shape).astype(int) for item in found.items), np.zeros(shape, int))
    assert owners.max(initial=0) <= 1
    background = np.select(
        [given_.first == 0, given_.second == 0], [given_.first_probability, given_.second_probability], 0
    )
    bone = background < 128
    assert not (owners.astype(bool) & ~bone).any()
    dropped_ml = (bone & (owners == 0)).sum() * spacing_mm**3 / 1000
    expected = (f"{dropped_ml:.1f} ml of predicted bone far from the spine was left out",)
    assert found.warnings == (expected if dropped_ml >= 1 else ())
    for item in found.items:
        assert 0 <= item.occupancy.min() <= item.occupancy.max() <= 1
        assert item.occupancy.shape == tuple(s.stop - s.start for s in item.box)
        assert item.class_mass.shape == (len(given_.levels) + 1,)
        centre = np.argwhere(inside(item, shape)).mean(0)
        assert item.centroid_mm == pytest.approx(tuple(given_.grid.to_world(centre)))
    heights = [item.centroid_mm[2] for item in found.items]
    assert all(upper >= lower for upper, lower in pairwise(heights))


def test_a_whole_spine_takes_less_than_two_seconds() -> None:
    """25 touching levels in 120 x 120 x 300 voxels; time of this process, so that a busy machine does not matter."""
    shape, levels = (120, 120, 300), LEVELS[:25]
    first = np.zeros(shape, np.uint8)
    for number in range(1, 26):
        first[40:80, 30:90, 300 - 12 * number : 311 - 12 * number] = number
        first[55:65, 20:30, 303 - 12 * number : 306 - 12 * number] = 1 + number % 25  # a fragment of another level
    empty = np.zeros(shape, np.uint8)
    whole = Evidence(first, empty, np.full(shape, 255, np.uint8), empty, levels, grid_of(shape, 2.5))
    start = time.process_time()
    found = find_instances(whole)
    assert time.process_time() - start < 2
    assert len(found.items) == 25


def test_a_spine_without_levels_is_one_instance() -> None:
    """Two vertebrae apart, and a blob far away that is dropped."""
    blob = ("L1", slice(0, 3), slice(0, 3), slice(0, 3))
    found = replace(evidence(column("L1", 40, 50), column("L1", 28, 38), blob), levels=(SPINE,))
    (item,) = find_instances(found).items
    assert_is(item, column("L1", 40, 50), column("L1", 28, 38))


@pytest.mark.parametrize(("probability", "count"), [(255, 2), (153, 3)])
def test_two_centres_in_one_sacrum_are_one_bone(probability: int, count: int) -> None:
    """Voxels of L5 and of each half of the sacrum vote for centres of their own; 0.6 of evidence is not enough to join.

    The other 0.4 is for L5.
    """
    levels = parse_levels("L5,sacrum")
    first, second = np.zeros(SHAPE, np.uint8), np.full(SHAPE, 1, np.uint8)
    best, rest = np.full(SHAPE, 255, np.uint8), np.zeros(SHAPE, np.uint8)
    offset_mm = np.zeros((3, *SHAPE), np.int8)
    for value, low, high in ((1, 50, 65), (2, 28, 46), (2, 10, 28)):
        block = (BODY, BODY, slice(low, high))
        first[block], second[block] = value, 1 if value == 2 else 0
        if value == 2:
            best[block], rest[block] = probability, 255 - probability
        for axis, (a, b) in enumerate(((10, 20), (10, 20), (low, high))):
            way = ((a + b - 1) / 2 - np.arange(SHAPE[axis])) * SPACING_MM
            shaped = np.rint(way).reshape([-1 if n == axis else 1 for n in range(3)])
            offset_mm[(axis, *block)] = np.broadcast_to(shaped.astype(int), SHAPE)[block]
    found = find_instances(Evidence(first, second, best, rest, levels, grid_of(SHAPE), offset_mm))
    assert len(found.items) == count
    if count == 2:
        assert inside(found.items[1]).sum() == 10 * 10 * 36


def test_every_rule_has_a_unit_and_a_source() -> None:
    assert undocumented(InstanceRules) == []


def test_a_rule_can_be_varied() -> None:
    """1.2 ml, 12 mm from the body: out of the usual reach of 10 mm, within 15 mm."""
    body, fragment = column("L1", 20, 28), ("L2", slice(25, 30), slice(10, 15), slice(20, 26))
    found = find_instances(evidence(body, fragment), InstanceRules(fragment_reach_mm=15.0))
    assert_is(found.items[0], body, fragment)
