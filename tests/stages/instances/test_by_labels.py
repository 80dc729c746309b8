"""Label maps of cuboid spines, corrupted by hand as models corrupt them; the answer is the spine they come from."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from label_spines import SPACING_MM, changed, cuboid_spine, ids, span
from rule_sets import undocumented
from vertebral.core.anatomy import LEVELS, SPINE
from vertebral.core.errors import InputError
from vertebral.core.records import Instances
from vertebral.core.volume import Array, Volume
from vertebral.io.ct.read import read_labels
from vertebral.stages.instances.by_labels import instances_from_labels
from vertebral.stages.instances.rules import LabelMapRules

LUMBAR = ("T11", "T12", "L1", "L2", "L3", "L4")
SPINE_MAP = cuboid_spine(*LUMBAR)


def owners(found: Instances) -> Array:
    """(I, J, K) in RAS: the number, from 1, of the instance of each voxel."""
    array = np.zeros(found.grid.shape, np.uint8)
    for number, item in enumerate(found.items, start=1):
        assert not array[item.box][item.occupancy > 0.5].any()
        array[item.box][item.occupancy > 0.5] = number
    return array


def truth(volume: Volume, *names: str) -> Array:
    """The map with 1, 2, ... from head to tail in place of its ids."""
    return sum(((volume.array == value) * np.uint8(n) for n, value in enumerate(ids(*names), 1)), np.uint8(0))


def owners_after(array: Array) -> Array:
    return owners(instances_from_labels(changed(SPINE_MAP, array), LEVELS))


def share_right(array: Array) -> float:
    expected = truth(SPINE_MAP, *LUMBAR)
    bone = array > 0
    return float((owners_after(array) == expected)[bone].mean())


def test_a_correct_map_stays_as_it_is() -> None:
    found = instances_from_labels(SPINE_MAP, LEVELS)
    assert found.warnings == ()
    assert found.levels == LEVELS
    assert np.array_equal(owners(found), truth(SPINE_MAP, *LUMBAR))
    item = found.items[2]
    l1 = ids("L1")[0]
    voxels = np.count_nonzero(SPINE_MAP.array == l1)
    assert item.class_mass[0] == 0
    assert item.class_mass[1 + [level.name for level in LEVELS].index("L1")] == voxels * SPACING_MM**3
    assert item.class_mass.sum() == voxels * SPACING_MM**3
    centre = np.argwhere(SPINE_MAP.array == l1).mean(0)
    assert item.centroid_mm == pytest.approx(tuple(SPINE_MAP.grid.to_world(centre)))
    assert set(np.unique(item.occupancy)) == {0.0, 1.0}
    assert not item.touches_border


@given(st.sampled_from(["RAS", "LPS", "SAR", "IPL", "PIR"]), st.integers(0, 5))
@settings(max_examples=8, deadline=None)
def test_orientation_and_level_do_not_matter(axcodes: str, first: int) -> None:
    names = tuple(level.name for level in LEVELS if level.is_vertebra)[7 + first : 11 + first]
    volume = cuboid_spine(*names)
    found = instances_from_labels(volume.reoriented(axcodes), LEVELS)
    assert np.array_equal(owners(found), truth(volume, *names))


def test_anisotropic_voxels() -> None:
    thick = Volume(SPINE_MAP.array[:, :, ::2], SPINE_MAP.affine @ np.diag([1, 1, 2, 1]))
    found = instances_from_labels(thick, LEVELS)
    assert np.array_equal(owners(found), truth(SPINE_MAP, *LUMBAR)[:, :, ::2])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("other", ["T12", "L2"])
def test_two_labels_in_one_vertebra_are_one(axis: int, other: str) -> None:
    array = SPINE_MAP.array.copy()
    own = np.argwhere(array == ids("L1"))
    half = own[own[:, axis] >= np.median(own[:, axis])]
    array[tuple(half.T)] = ids(other)[0]
    assert len(instances_from_labels(changed(SPINE_MAP, array), LEVELS).items) == len(LUMBAR)
    assert share_right(array) == 1.0


def test_two_vertebrae_under_one_label_are_two() -> None:
    array = SPINE_MAP.array.copy()
    array[array == ids("L2")] = ids("L1")[0]
    assert share_right(array) == 1.0


def test_two_that_touch_under_one_label_are_cut_at_the_disc() -> None:
    array = SPINE_MAP.array.copy()
    array[array == ids("L2")] = ids("L1")[0]
    low, high = span(SPINE_MAP, ids("L2")[0])[1], span(SPINE_MAP, ids("L1")[0])[0]
    array[12:28, 14:16, low - 3 : high + 4] = ids("L1")[0]  # the arches grow together
    owner = owners_after(array)
    expected = truth(SPINE_MAP, *LUMBAR)
    bodies = (slice(14, 26), slice(26, 36))
    assert np.array_equal(owner[bodies], expected[bodies])
    assert (owner == expected)[(expected > 0)].mean() > 0.98


def test_where_no_disc_is_visible_labels_decide() -> None:
    array = SPINE_MAP.array.copy()
    low, high = span(SPINE_MAP, ids("L2")[0])[1], span(SPINE_MAP, ids("L1")[0])[0]
    array[14:26, 26:36, low:high] = ids("L2")[0]  # ankylosed
    owner = owners_after(array)
    assert owner.max() == len(LUMBAR)
    assert (owner[array == ids("L2")] == 4).all()
    assert (owner[array == ids("L1")] == 3).all()


def test_a_fractured_vertebra_is_not_merged_away() -> None:
    array = SPINE_MAP.array.copy()
    low, high = span(SPINE_MAP, ids("L1")[0])
    array[14:26, 26:36, low : low + 4] = 0
    array[14:26, 26:36, high - 3 : high] = 0  # 5 of 12 planes of the body are left
    assert np.array_equal(owners_after(array), np.where(array > 0, truth(SPINE_MAP, *LUMBAR), 0))


@pytest.mark.parametrize("other", ["T12", "L2"])
def test_an_arch_under_a_neighbours_label_returns_to_its_vertebra(other: str) -> None:
    array = SPINE_MAP.array.copy()
    arch = (array == ids("L1")[0]) & (np.arange(array.shape[1])[None, :, None] < 24)
    array[arch] = ids(other)[0]
    assert share_right(array) == 1.0


def test_an_arch_cut_off_from_its_body_stays_with_it() -> None:
    array = SPINE_MAP.array.copy()
    array[:, 21:23] = 0
    assert share_right(array) == 1.0


def test_a_lost_vertebra_leaves_its_neighbours_alone() -> None:
    array = np.where(ids("L1")[0] == SPINE_MAP.array, 0, SPINE_MAP.array)
    found = instances_from_labels(changed(SPINE_MAP, array), LEVELS)
    assert len(found.items) == len(LUMBAR) - 1
    assert np.array_equal(owners(found) > 0, array > 0)


def test_islands() -> None:
    array = SPINE_MAP.array.copy()
    low, _ = span(SPINE_MAP, ids("L1")[0])
    near, far = array.copy(), array.copy()
    near[30:32, 30:32, low + 5 : low + 7] = ids("L1")[0]  # 0.06 ml, 8 mm from L1
    assert owners_after(near)[30, 30, low + 5] == 3
    far[0, 0, 0] = ids("C3")[0]  # 8 mm3 of a label that no vertebra has, 50 mm away
    found = instances_from_labels(changed(SPINE_MAP, far), LEVELS)
    assert owners(found)[0, 0, 0] == 0
    assert found.warnings == ("0.01 ml in fragments far from any vertebra were left out",)


def test_a_piece_of_the_last_vertebra_under_the_next_label_is_no_vertebra() -> None:
    """0.9 ml of T11's arch are labelled T10, as nothing else is; one whole side touches the rest of the arch."""
    array = SPINE_MAP.array.copy()
    low, _ = span(SPINE_MAP, ids("T11")[0])
    array[12:16, 14:18, low + 3 : low + 10] = ids("T10")[0]
    assert share_right(array) == 1.0


def test_c1_has_no_body_and_the_sacrum_no_discs() -> None:
    volume = cuboid_spine("C2", "C3", "C4", margin=12)
    array = volume.array.copy()
    array[10:30, 10:14, -8:-5] = array[10:14, 10:34, -8:-5] = array[26:30, 10:34, -8:-5] = ids("C1")[0]
    array[14:26, 26:36, :6] = array[14:26, 10:16, 2:6] = ids("sacrum")[0]
    found = instances_from_labels(changed(volume, array), LEVELS)
    assert np.array_equal(owners(found), truth(changed(volume, array), "C1", "C2", "C3", "C4", "sacrum"))
    assert [item.touches_border for item in found.items] == [False, False, False, False, True]


def test_a_label_cut_by_the_border_is_a_vertebra_of_its_own() -> None:
    low, _ = span(SPINE_MAP, ids("L4")[0])
    cut = Volume(SPINE_MAP.array[:, :, low + 8 :], SPINE_MAP.affine)  # 4 of 12 planes of L4 are left
    found = instances_from_labels(cut, LEVELS)
    assert np.array_equal(owners(found), truth(cut, *LUMBAR))
    assert [item.touches_border for item in found.items] == [False] * 5 + [True]


def test_a_map_without_levels_is_cut_at_its_discs() -> None:
    array = np.where(SPINE_MAP.array > 0, SPINE.verse_id, 0).astype(np.uint8)
    found = instances_from_labels(changed(SPINE_MAP, array), (SPINE,))
    assert np.array_equal(owners(found), truth(SPINE_MAP, *LUMBAR))


def test_nothing_and_other_ids_are_no_vertebrae() -> None:
    for value in (0, 55, 300):
        found = instances_from_labels(changed(SPINE_MAP, np.full((9, 9, 9), value, np.uint16)), LEVELS)
        assert found.items == ()
    with pytest.raises(InputError, match="no levels"):
        instances_from_labels(SPINE_MAP, ())


def test_one_voxel_is_no_vertebra() -> None:
    array = np.zeros((5, 5, 5), np.uint8)
    array[2, 2, 2] = 20
    found = instances_from_labels(Volume(array, np.eye(4)), LEVELS)
    assert len(found.items) <= 1


@pytest.mark.parametrize("name", ["train/VerSe_sub-verse010", "train/pred_verse023", "stress/pred_verse252"])
def test_real_maps_stay_as_they_are(name: str) -> None:
    folder = Path(__file__).parents[4] / "shared" / "data" / "labels"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    volume = read_labels(folder / f"{name}_seg-vert_msk.nii.gz").to_ras()
    found = instances_from_labels(volume, LEVELS)
    labels = np.zeros_like(volume.array)
    for item in found.items:
        level = LEVELS[int(item.class_mass[1:].argmax())]
        labels[item.box][item.occupancy > 0.5] = level.verse_id
    assert np.array_equal(labels, volume.array)


def test_every_rule_has_a_unit_and_a_source() -> None:
    assert undocumented(LabelMapRules) == []


def test_a_rule_can_be_varied() -> None:
    """Two vertebrae under one label stay one if neither their bodies nor their size can split them."""
    array = np.where(ids("L2")[0] == SPINE_MAP.array, ids("L1")[0], SPINE_MAP.array)
    low, high = span(SPINE_MAP, ids("L2")[0])[1], span(SPINE_MAP, ids("L1")[0])[0]
    array[12:28, 14:16, low - 3 : high + 4] = ids("L1")[0]
    whole = LabelMapRules(split_share=2.0, oversized_ratio=9.0)
    assert len(instances_from_labels(changed(SPINE_MAP, array), LEVELS).items) == len(LUMBAR)
    assert len(instances_from_labels(changed(SPINE_MAP, array), LEVELS, whole).items) == len(LUMBAR) - 1
