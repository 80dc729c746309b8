"""Worked by hand: blocks of 4 x 4 voxels, 2 x 1 x 3 mm each."""

import json
from pathlib import Path

import numpy as np
import pytest

from blocks import AFFINE, blocks, save_blocks
from vertebral.core.anatomy import SPINE
from vertebral.core.errors import ConfigError, GeometryError, ReadError
from vertebral.core.volume import Volume
from vertebral.evaluation.case import RunRecord, ScoredCase, VertebraScore, from_json, to_json
from vertebral.evaluation.evaluate import evaluate, score_pair
from vertebral.evaluation.pair import pair
from vertebral.evaluation.settings import Settings

# L1 and L2 are whole, L3 reaches the lowest slice, and a sacrum fills space that is not scored.
REFERENCE = {"L1": (20, 25), "L2": (10, 15), "L3": (0, 4), "sacrum": (5, 9)}


def scored(prediction: dict, reference: dict, run: RunRecord | None = None, **policies: object) -> ScoredCase:
    settings = Settings(**policies)  # type: ignore[arg-type]
    return score_pair(pair(blocks(**prediction), blocks(**reference), settings), settings, "a", "a", run or RunRecord())


def by_name(score: ScoredCase) -> dict[str, VertebraScore]:
    return {row.name: row for row in score.levels}


def test_a_map_equals_itself() -> None:
    score = scored(REFERENCE, REFERENCE)
    assert [row.name for row in score.levels] == ["L1", "L2", "L3"]
    for row in (score.spine, *score.regions, *score.levels):
        assert (row.dice, row.hd95_mm, row.assd_mm, row.surface_within_1mm, row.volume_error) == (1, 0, 0, 1, 0)
    assert all(row.any_level_dice == 1 and row.hit and row.distance_mm == 0 for row in score.levels)
    assert score.naming is not None and score.naming.all_right and score.naming.id_rate == 1
    assert score.matching is not None and score.matching.pq == 1
    assert score.extra == ()


def test_a_block_one_slice_off() -> None:
    """L1 moved by 3 mm: 4 of 5 slices shared; each end slice of 16 voxels is 3 mm from the other surface.

    Surface voxels of a 4 x 4 x 5 block: 80 - 2 x 2 x 3 = 68 in each. The far slice's 16 are at 3 mm. The near end of
    the other holds an inside of 2 x 2 voxels at 1 mm (along J) from the surface; all else is shared.
    """
    score = scored({"L1": (21, 26), "L2": (10, 15)}, REFERENCE)
    row = by_name(score)["L1"]
    assert row.dice == pytest.approx(0.8)
    assert row.hd95_mm == 3
    assert row.assd_mm == pytest.approx((16 * 3 + 4 * 1) / 68)
    assert row.surface_within_1mm == row.surface_within_2mm == pytest.approx(52 / 68)
    assert row.surface_within_3mm == 1
    assert (row.volume_ml, row.reference_ml, row.volume_error) == (pytest.approx(0.48), pytest.approx(0.48), 0)
    assert row.distance_mm == 3 and row.hit


def test_what_the_border_cuts_is_flagged() -> None:
    score = scored({"L1": (20, 25), "L2": (10, 15)}, REFERENCE)
    assert [row.cut for row in score.levels] == [False, False, True]
    assert [row.name for row in score.complete] == ["L1", "L2"]
    assert score.naming is not None and score.naming.all_right  # the cut one is not asked for
    assert score.naming.id_rate == pytest.approx(2 / 3)  # VerSe's asks for all
    assert score.matching is not None and (score.matching.pairs, score.matching.missing) == (2, 0)


def test_a_missing_vertebra() -> None:
    score = scored({"L1": (20, 25), "L3": (0, 4)}, REFERENCE)
    row = by_name(score)["L2"]
    assert (row.dice, row.surface_within_2mm, row.hd95_mm, row.assd_mm, row.volume_error) == (0, 0, None, None, -1)
    assert not row.hit and row.distance_mm is None
    # 9 of 14 slices: 2 * 9 / (9 + 14).
    assert score.spine.dice == pytest.approx(18 / 23)
    assert score.naming is not None
    assert (score.naming.all_right, score.naming.recall, score.naming.precision) == (False, 0.5, 1)
    assert score.matching is not None
    assert (score.matching.pairs, score.matching.missing, score.matching.surplus) == (1, 1, 0)
    assert score.matching.pq == pytest.approx(2 / 3)


def test_names_that_are_all_one_up() -> None:
    """Every outline is right, every name is not: what VerSe calls L1 is 30 mm off."""
    score = scored({"T12": (20, 25), "L1": (10, 15)}, {"L1": (20, 25), "L2": (10, 15)})
    assert [row.dice for row in score.levels] == [0, 0]
    assert [row.any_level_dice for row in score.levels] == [1, 1]
    assert score.extra == ("T12",)
    assert score.spine.dice == 1
    assert score.naming is not None and score.naming.shifts == {"-1": 2}
    assert (score.naming.id_rate, score.naming.localisation_mm, score.naming.f1) == (0, 30, 0)
    assert score.matching is not None and (score.matching.pq, score.matching.dice) == (1, 1)


def test_two_names_that_changed_places() -> None:
    score = scored({"L2": (20, 25), "L1": (10, 15)}, {"L1": (20, 25), "L2": (10, 15)})
    assert score.naming is not None and score.naming.shifts == {"-1": 1, "+1": 1}
    assert score.naming.hits == 0 and score.naming.localisation_mm == 30
    assert score.matching is not None and score.matching.pq == 1


def test_false_positives_cost_nothing_in_verse_and_something_here() -> None:
    score = scored({"L1": (20, 25), "L2": (10, 15), "T12": (26, 29)}, {"L1": (20, 25), "L2": (10, 15)})
    naming = score.naming
    assert naming is not None and (naming.id_rate, naming.recall, naming.false_positives) == (1, 1, 1)
    assert (naming.precision, naming.f1, naming.all_right) == (pytest.approx(2 / 3), pytest.approx(0.8), False)
    assert score.matching is not None and score.matching.surplus == 1


def test_what_lies_outside_the_reference_can_be_left_out() -> None:
    prediction = {"L1": (20, 25), "L2": (10, 15), "T12": (26, 29), "L3": (16, 18)}
    reference = {"L1": (20, 25), "L2": (10, 15)}
    score = scored(prediction, reference, ignore_outside_reference=True)
    assert score.ignored == ("T12",)  # L3 lies between two of the reference: an error
    assert score.extra == ("L3",)
    assert score.naming is not None and score.naming.false_positives == 1
    assert score.spine.dice == pytest.approx(2 * 10 / (10 + 12))
    # Less than a tenth of it may leak into its neighbour: 1 of 12 slices, but not 1 of 10.
    for top, expected in ((26, ("T12",)), (24, ())):
        leaking = scored({"L1": (5, 14), "T12": (14, top)}, {"L1": (5, 15)}, ignore_outside_reference=True)
        assert leaking.ignored == expected, top
    # A name that is one up covers the reference and stays.
    shifted = scored({"T12": (20, 25)}, {"L1": (20, 25)}, ignore_outside_reference=True)
    assert shifted.ignored == () and shifted.extra == ("T12",)
    assert scored(prediction, {}, ignore_outside_reference=True).ignored == ()


def test_a_hit_is_within_20_mm_and_nearest_to_its_own() -> None:
    """L2 is predicted 18 mm off, but 12 mm from L3; alone it would be a hit. L1 is 21 mm off."""
    reference = {"L2": (20, 22), "L3": (10, 12)}
    near_another = scored({"L2": (14, 16), "L3": (10, 12)}, reference)
    assert [row.hit for row in near_another.levels] == [False, True]
    assert near_another.naming is not None and near_another.naming.localisation_mm == 9
    # VerSe's code compares with labels in both maps only.
    alone = scored({"L2": (14, 16)}, reference)
    assert [row.hit for row in alone.levels] == [True, False]
    far = scored({"L1": (13, 15)}, {"L1": (20, 22)})
    assert far.levels[0].distance_mm == 21 and not far.levels[0].hit


def test_half_of_two_vertebrae_in_one_label_matches_neither() -> None:
    """One label over two blocks of 5: IoU 5 / 10 with each, and one half is not above one half."""
    score = scored({"L1": (10, 20)}, {"L1": (15, 20), "L2": (10, 15)})
    assert score.matching is not None and (score.matching.pairs, score.matching.pq) == (0, 0)
    assert score.matching.dice is None


def test_regions_are_masks_of_their_own() -> None:
    score = scored({"L2": (20, 25), "L1": (10, 15)}, {"L1": (20, 25), "L2": (10, 15), "T12": (26, 28)})
    assert [row.name for row in score.regions] == ["thoracic", "lumbar"]
    assert [row.dice for row in score.regions] == [0, 1]


def test_sacrum_is_ignored_on_both_sides() -> None:
    score = scored({"L1": (20, 25), "L2": (10, 15), "L3": (0, 4), "sacrum": (26, 29), "coccyx": (5, 7)}, REFERENCE)
    assert score.spine.dice == 1 and score.extra == ()


def test_levels_come_in_anatomical_order_and_steps_over_absent_ones_count_once() -> None:
    truth = {"T12": (24, 28), "T13": (18, 22), "L1": (12, 16)}
    score = scored(truth, truth)
    assert [row.name for row in score.levels] == ["T12", "T13", "L1"]
    # A tool without T13 calls it L1: off by one; T12 called L1 is off by one too where there is no T13.
    assert scored({"L1": (18, 22)}, {"T13": (18, 22)}).naming.shifts == {"+1": 1}  # type: ignore[union-attr]
    assert scored({"L1": (18, 22)}, {"T12": (18, 22)}).naming.shifts == {"+1": 1}  # type: ignore[union-attr]
    assert scored({"sacrum": (1, 4)}, {"L6": (5, 8)}).naming.recall == 0  # type: ignore[union-attr]


def test_empty_maps() -> None:
    both = scored({}, {})
    assert (both.spine.dice, both.spine.hd95_mm, both.levels, both.naming, both.matching) == (
        None,
        None,
        (),
        None,
        None,
    )
    assert scored({}, {}, perfect_when_both_empty=True).spine.dice == 1
    nothing = scored({}, REFERENCE)
    assert (nothing.spine.dice, nothing.spine.hd95_mm) == (0, None)
    assert nothing.naming is not None and (nothing.naming.recall, nothing.naming.precision) == (0, None)
    assert (nothing.naming.f1, nothing.naming.all_right) == (0, False)
    invented = scored(REFERENCE, {}, perfect_when_both_empty=True)
    assert (invented.spine.dice, invented.spine.volume_error) == (0, None)
    assert invented.extra == ("L1", "L2", "L3")
    assert invented.naming is not None and (invented.naming.id_rate, invented.naming.precision) == (None, 0)


@pytest.mark.parametrize("axcodes", ["LPS", "PIR", "SRA", "RAI"])
def test_orientation_never_matters(axcodes: str) -> None:
    prediction, reference = blocks(L1=(21, 26), L2=(9, 15)), blocks(**REFERENCE)
    settings = Settings()
    expected = score_pair(pair(prediction, reference, settings), settings, "a", "a", RunRecord())
    for ours, theirs in ((prediction.reoriented(axcodes), reference), (prediction, reference.reoriented(axcodes))):
        found = score_pair(pair(ours, theirs, settings), settings, "a", "a", RunRecord())
        assert found.levels == expected.levels and found.naming == expected.naming
        assert found.spine == expected.spine


def test_grids_must_match_or_be_resampled() -> None:
    """The prediction's grid starts 30 mm up and has voxels of half the height: nearest gives the same blocks back."""
    reference = blocks(L1=(20, 25), L2=(2, 5))
    fine = np.repeat(blocks(L1=(20, 25), L2=(2, 5)).array[:, :, 10:], 2, axis=2)
    affine = np.diag([2.0, 1.0, 1.5, 1.0])
    affine[2, 3] = 30 - 0.75
    with pytest.raises(GeometryError, match=r"10x10x40 at 2x1x1.5 mm.*10x10x30 at 2x1x3 mm.*--resample nearest"):
        pair(Volume(fine, affine), reference, Settings())
    made = pair(Volume(fine, affine), reference, Settings(resample=True))
    assert made.notes == ("resampled to the grid of the reference",)
    score = score_pair(made, Settings(), "a", "a", RunRecord())
    assert [row.dice for row in score.levels] == [1, 0]  # L2 lies below the prediction's image


def test_resampling_from_an_oblique_grid() -> None:
    """A block turned by 6 degrees: nearest voxels cover most of it."""
    angle = np.deg2rad(6)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    array = np.zeros((40, 40, 8), np.uint8)
    array[10:30, 10:30, 2:6] = 20
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[:2, 3] = -20
    made = pair(Volume(array, turn @ affine), Volume(array, affine), Settings(resample=True))
    assert score_pair(made, Settings(), "a", "a", RunRecord()).levels[0].dice == pytest.approx(0.95, abs=0.03)


def test_other_schemes() -> None:
    """TotalSegmentator v2: L1 is 31, L2 30, S1 26; a liver (5) is left out, with a note."""
    theirs = blocks(L1=(20, 25), L2=(10, 15))
    array = np.zeros_like(theirs.array)
    array[theirs.array == 20], array[theirs.array == 21], array[0, 0, 0] = 31, 30, 26
    array[9, 9, 9] = 5
    made = pair(Volume(array, AFFINE), theirs, Settings(scheme="totalsegmentator"))
    score = score_pair(made, Settings(), "a", "a", RunRecord())
    assert [row.dice for row in score.levels] == [1, 1] and score.spine.dice == 1
    assert score.notes == ("prediction: ignored 1 voxels whose ids are not in scheme totalsegmentator",)
    with pytest.raises(ConfigError, match="unknown scheme 'nothing'"):
        Settings(scheme="nothing")


def test_a_map_that_tells_no_levels_apart() -> None:
    whole = blocks(L1=(10, 25))
    spine = Volume(np.where(whole.array > 0, SPINE.verse_id, 0).astype(np.uint8), AFFINE)
    score = score_pair(pair(spine, blocks(L1=(18, 25), L2=(10, 18)), Settings()), Settings(), "a", "a", RunRecord())
    assert score.spine.dice == 1
    assert (score.levels, score.regions, score.naming, score.matching, score.extra) == ((), (), None, None, ())


def test_confidences_become_answers() -> None:
    """L1 is right, L3 stands for L2, T12 for nothing; `sacrum` is no vertebra here."""
    run = RunRecord("m", 3.0, 1.0, (("L1", 0.9), ("L3", 0.6), ("T12", 0.5), ("sacrum", 0.4), ("what", 0.3)))
    score = scored({"L1": (20, 25), "L3": (10, 15), "T12": (26, 29)}, {"L1": (20, 25), "L2": (10, 15)}, run)
    assert score.answers == ((0.9, True), (0.6, False))


def test_records_survive_json() -> None:
    run = RunRecord("m", 3.0, 1.0, (("L1", 0.9),))
    for score in (scored({"L1": (20, 25)}, REFERENCE, run), scored({}, {})):
        assert from_json(json.loads(json.dumps(to_json(score), allow_nan=False))) == score


def test_from_files(tmp_path: Path) -> None:
    reference = save_blocks(tmp_path / "ref.nii.gz", **REFERENCE)
    score = evaluate(reference, reference)
    assert (score.case, score.subject, score.spine.dice) == ("ref.nii.gz", "ref.nii.gz", 1)
    moved = AFFINE.copy()
    moved[0, 3] = 0.5
    with pytest.raises(GeometryError, match=r"pred\.nii\.gz.*ref\.nii\.gz"):
        evaluate(save_blocks(tmp_path / "pred.nii.gz", moved, L1=(20, 25)), reference)
    with pytest.raises(ReadError, match=r"none\.nii\.gz"):
        evaluate(tmp_path / "none.nii.gz", reference)
