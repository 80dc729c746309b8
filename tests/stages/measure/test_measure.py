"""Analytic vertebrae: what was built in is what must come out."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measure_solids import Vertebra, grid_around, moved, painted, stacked, turned
from vertebral.core.errors import GeometryError
from vertebral.core.measurements import MeasurementRow, Measurements
from vertebral.core.volume import Grid, Volume
from vertebral.stages.measure import measure

# No plane is parallel to the grid: one that is, is known to half a voxel only, whatever is done.
OBLIQUE = turned((1, 0.4, 0.3), 9)
LUMBAR = {"width": 44.0, "depth": 34.0, "height": 27.0}
THORACIC = {"width": 30.0, "depth": 27.0, "height": 20.0}
CERVICAL = {"width": 19.0, "depth": 16.0, "height": 13.0}


def lumbar(wedge_deg: float = 0, disc_deg: float = 0, slip_mm: float = 0, lean_deg: float = 0) -> list[Vertebra]:
    bones = [Vertebra(name, wedge_deg=wedge_deg, lean_deg=lean_deg, **LUMBAR) for name in ("L2", "L3", "L4")]
    return [moved(bone, OBLIQUE) for bone in stacked(bones, 9.0, disc_deg, slip_mm)]


def measured(bones: list[Vertebra], spacing: tuple[float, float, float] = (1, 1, 1)) -> Measurements:
    return measure(painted(bones, grid_around(bones, spacing, np.eye(3))))


@cache
def plain() -> Measurements:
    return measured(lumbar(wedge_deg=8))


def number(row: MeasurementRow, column: str) -> float:
    value = row.value(column)
    assert isinstance(value, float), row.figures[column]
    return value


def vector(row: MeasurementRow, stem: str, unit: str = "") -> np.ndarray:
    return np.array([number(row, f"{stem}_{axis}{unit}") for axis in "ras"])


def degrees_apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


@pytest.mark.parametrize(("wedge", "lean"), [(8.0, 0.0), (25.0, 0.0), (0.0, 10.0)])
def test_body_of_known_size(wedge: float, lean: float) -> None:
    bones = lumbar(wedge_deg=wedge, lean_deg=lean)
    result = measured(bones)
    for bone, row in zip(bones, result.vertebrae, strict=True):
        assert row.quality == "good"
        assert number(row, "height_anterior_mm") == pytest.approx(bone.edge_height(1), abs=0.5)
        assert number(row, "height_middle_mm") == pytest.approx(bone.height, abs=0.5)
        assert number(row, "height_posterior_mm") == pytest.approx(bone.edge_height(-1), abs=0.5)
        assert number(row, "wedge_sagittal_deg") == pytest.approx(wedge, abs=0.5)
        assert number(row, "wedge_coronal_deg") == pytest.approx(lean, abs=0.5)
        assert number(row, "body_width_mm") == pytest.approx(bone.width, abs=0.5)
        assert number(row, "body_depth_mm") == pytest.approx(bone.depth, abs=0.5)
        assert number(row, "body_volume_ml") == pytest.approx(bone.volume_ml(), rel=0.01)
        assert degrees_apart(vector(row, "axis_up"), np.array(bone.axes)[2]) < 0.5
        assert degrees_apart(vector(row, "axis_anterior"), np.array(bone.axes)[1]) < 1.0
        for side, sign in (("superior", 1), ("inferior", -1)):
            assert degrees_apart(vector(row, f"{side}_normal"), bone.normal(sign)) < 0.5
            off = vector(row, f"{side}_centre", "_mm") - bone.place(0, sign)
            assert abs(off @ bone.normal(sign)) < 0.5


def test_an_endplate_parallel_to_the_grid_has_no_good_angle() -> None:
    """2 degrees off the grid, an endplate of 34 mm steps once: its tilt is wrong by more than a degree, and says so."""
    bones = [moved(bone, turned((1, 0.4, 0.3), 2)) for bone in stacked([Vertebra("L3", **LUMBAR)], 9.0)]
    row = measured(bones).vertebrae[0]
    assert row.figures["wedge_sagittal_deg"].quality == "check"
    assert (
        "is parallel to the voxel grid: its tilt is known to about 2 degrees"
        in row.figures["wedge_sagittal_deg"].reason
    )
    assert row.figures["body_depth_mm"].quality == "good"


def test_disc_angle_and_slip() -> None:
    result = measured(lumbar(wedge_deg=8, disc_deg=6, slip_mm=3))
    open_mm = np.tan(np.deg2rad(3)) * 34
    assert [row.name for row in result.gaps] == ["L2-L3", "L3-L4"]
    for row in result.gaps:
        assert number(row, "disc_height_anterior_mm") == pytest.approx(9 + open_mm, abs=0.5)
        assert number(row, "disc_height_middle_mm") == pytest.approx(9, abs=0.5)
        assert number(row, "disc_height_posterior_mm") == pytest.approx(9 - open_mm, abs=0.5)
        assert number(row, "angle_sagittal_deg") == pytest.approx(6, abs=0.5)
        assert number(row, "angle_coronal_deg") == pytest.approx(0, abs=0.5)
        assert number(row, "listhesis_mm") == pytest.approx(3, abs=0.5)
        assert number(row, "listhesis_right_mm") == pytest.approx(0, abs=0.7)


def test_lordosis_is_the_sum_of_wedges_and_discs() -> None:
    bones = [Vertebra(f"L{n}", wedge_deg=-4, **LUMBAR) for n in range(1, 6)]
    result = measured([moved(bone, OBLIQUE) for bone in stacked(bones, 9.0, 7.0)], (1.5, 1.5, 1.5))
    rows = {row.name: row for row in result.regions}
    # Five wedges of 4 and four discs of 7 degrees, all open to the front.
    assert number(rows["lumbar_lordosis_L1_L5"], "angle_deg") == pytest.approx(48, abs=1.0)
    assert number(rows["longest_stretch"], "length_mm") == pytest.approx(5 * 27 + 4 * 9, abs=1.5)
    assert rows["lumbar_lordosis_L1_S1"].figures["angle_deg"].reason == "the superior endplate of S1 was not measured"


def test_thoracic_kyphosis_and_cervical_lordosis_have_their_signs() -> None:
    thoracic = [Vertebra(f"T{n}", wedge_deg=4, **THORACIC) for n in range(4, 13)]
    rows = {
        row.name: row
        for row in measured([moved(bone, OBLIQUE) for bone in stacked(thoracic, 5.0)], (1.5, 1.5, 1.5)).regions
    }
    assert number(rows["thoracic_kyphosis_T4_T12"], "angle_deg") == pytest.approx(36, abs=2)


def test_volume_of_the_whole_vertebra() -> None:
    bone = moved(Vertebra("L3"), OBLIQUE)
    fine = painted([bone], grid_around([bone], (0.6, 0.6, 0.6), np.eye(3)))
    truth_ml = np.count_nonzero(fine.array) * 0.6**3 / 1000
    row = measured([bone]).vertebrae[0]
    assert number(row, "volume_ml") == pytest.approx(truth_ml, rel=0.01)


@pytest.mark.parametrize("region", ["thoracic", "cervical"])
def test_smaller_vertebrae_at_one_millimetre(region: str) -> None:
    wedge = 8.0
    sizes, names = {"thoracic": (THORACIC, ("T7", "T8", "T9")), "cervical": (CERVICAL, ("C4", "C5", "C6"))}[region]
    bones = stacked([Vertebra(name, wedge_deg=wedge, **sizes) for name in names], 5.0)
    bones = [moved(bone, OBLIQUE) for bone in bones]
    # Across 16 mm, half a voxel is 1.8 degrees.
    allowed_mm, allowed_deg = (0.5, 0.75) if region == "thoracic" else (0.7, 2.5)
    for bone, row in zip(bones, measured(bones).vertebrae, strict=True):
        assert number(row, "height_anterior_mm") == pytest.approx(bone.edge_height(1), abs=allowed_mm)
        assert number(row, "height_middle_mm") == pytest.approx(bone.height, abs=allowed_mm)
        assert number(row, "height_posterior_mm") == pytest.approx(bone.edge_height(-1), abs=allowed_mm)
        assert number(row, "wedge_sagittal_deg") == pytest.approx(wedge, abs=allowed_deg)


SAME = ("height_anterior_mm", "height_posterior_mm", "wedge_sagittal_deg", "body_width_mm", "body_depth_mm")


@settings(max_examples=2, deadline=None)
@given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.3), st.floats(10, 70))
def test_rotating_the_patient_changes_no_length(axis: tuple[float, float, float], angle_deg: float) -> None:
    rotation = turned(axis, angle_deg)
    turned_round = measured([moved(bone, rotation) for bone in lumbar(wedge_deg=8)])
    for before, after in zip(plain().vertebrae, turned_round.vertebrae, strict=True):
        for column in SAME:
            assert number(after, column) == pytest.approx(number(before, column), abs=1.2), column


def test_rotating_the_grid_changes_nothing() -> None:
    bones = lumbar(wedge_deg=8)
    other = measure(painted(bones, grid_around(bones, (1, 1, 1), turned((0.3, 1, 0.5), 25))))
    for before, after in zip(plain().vertebrae, other.vertebrae, strict=True):
        for column in (*SAME, "body_centre_r_mm", "body_centre_a_mm", "body_centre_s_mm", "tilt_sagittal_deg"):
            assert number(after, column) == pytest.approx(number(before, column), abs=1.0), column


@pytest.mark.parametrize("axcodes", ["LPS", "SRA"])
def test_flips_and_swapped_axes_change_nothing(axcodes: str) -> None:
    bones = lumbar(wedge_deg=8)
    labels = painted(bones, grid_around(bones, (1, 1, 1), np.eye(3)))
    for before, after in zip(plain().vertebrae, measure(labels.reoriented(axcodes)).vertebrae, strict=True):
        for column in (*SAME, "centroid_r_mm", "surface_area_cm2"):
            assert number(after, column) == pytest.approx(number(before, column), abs=0.1), column
        assert number(after, "rotation_axial_deg") == pytest.approx(number(before, "rotation_axial_deg"), abs=1.0)


@pytest.mark.parametrize(
    ("spacing", "allowed_mm", "allowed_deg", "caveat"),
    [
        ((1.5, 1.5, 1.5), 0.5, 0.7, ""),
        ((3, 1, 1), 0.5, 0.5, ""),
        ((1, 1, 3), 1.2, 2.0, "voxels of 3.0 mm along the body"),
    ],
)
def test_other_spacings(
    spacing: tuple[float, float, float], allowed_mm: float, allowed_deg: float, caveat: str
) -> None:
    bones = lumbar(wedge_deg=8)
    rows = measured(bones, spacing).vertebrae
    reasons = [row.figures["wedge_sagittal_deg"].reason for row in rows]
    assert any(caveat in reason for reason in reasons) if caveat else not any(reasons)
    for bone, row in zip(bones, rows, strict=True):
        assert number(row, "height_anterior_mm") == pytest.approx(bone.edge_height(1), abs=allowed_mm)
        assert number(row, "height_posterior_mm") == pytest.approx(bone.edge_height(-1), abs=allowed_mm)
        assert number(row, "wedge_sagittal_deg") == pytest.approx(8, abs=allowed_deg)


def test_a_body_that_the_border_cuts_is_not_measured() -> None:
    labels = painted(lumbar(), grid_around(lumbar(), (1, 1, 1), np.eye(3)))
    ends = np.flatnonzero((labels.array == 23).any(axis=(0, 1)))
    middle = int(ends.mean())
    cut = labels.cropped(
        (slice(0, labels.array.shape[0]), slice(0, labels.array.shape[1]), slice(middle, labels.array.shape[2]))
    )
    last = measure(cut).vertebrae[-1]
    assert last.name == "L4"
    assert last.quality == "none"
    assert last.figures["volume_ml"].reason == "cut by the border of the scan"
    assert last.figures["height_middle_mm"].value is None
    assert "cut by the border" in last.figures["height_middle_mm"].reason


def test_cut_processes_leave_the_body_measurable() -> None:
    bones = lumbar()
    grid = grid_around(bones, (1, 1, 1), np.eye(3))
    labels = painted(bones, grid)
    wide = slice(grid.shape[0] // 2 - 26, grid.shape[0] // 2 + 26)
    row = measure(labels.cropped((wide, slice(0, grid.shape[1]), slice(0, grid.shape[2])))).vertebrae[1]
    assert row.figures["volume_ml"].value is None
    assert number(row, "height_middle_mm") == pytest.approx(27, abs=0.5)


def test_bad_masks_are_flagged() -> None:
    bones = lumbar()
    labels = painted(bones, grid_around(bones, (1, 1, 1), np.eye(3)))
    array = labels.array.copy()
    body = np.argwhere(array == 22).mean(axis=0).astype(int)
    centre = labels.grid.to_voxel(np.array(bones[1].origin)).astype(int)
    i, j, k = np.indices(array.shape)
    # A hole in the body that is open towards the disc above.
    array[(np.hypot(i - centre[0], j - centre[1]) < 9) & (k > centre[2] + 3) & (k < centre[2] + 10) & (array == 22)] = 0
    array[(abs(i - centre[0]) < 2) & (abs(j - centre[1]) < 2) & (k > centre[2] + 3) & (array == 22)] = 0
    # A stray piece of L2, far away from it.
    array[2:16, 2:16, 2:30] = 21
    rows = {row.name: row for row in measure(Volume(array, labels.affine)).vertebrae}
    assert body.all()
    assert rows["L3"].figures["height_middle_mm"].value is None
    assert rows["L3"].figures["height_middle_mm"].reason.startswith("the mask is hollow beneath the endplate")
    assert rows["L2"].figures["height_middle_mm"].quality in ("check", "none")
    assert rows["L4"].figures["height_middle_mm"].quality == "good"


def test_swapped_levels_are_flagged() -> None:
    bones = lumbar()
    swapped = [replace(bones[0], level="L3"), replace(bones[1], level="L2"), replace(bones[2], level="L4")]
    more = [
        moved(replace(bone, level=f"T{n}"), np.eye(3), (0, 0, 36.0 * (14 - n)))
        for n, bone in ((12, bones[0]), (11, bones[0]))
    ]
    result = measured([*more, *swapped])
    rows = {row.name: row for row in result.vertebrae}
    assert "is below the next level" in rows["L2"].figures["body_depth_mm"].reason


def test_missing_levels_and_unknown_labels_are_named() -> None:
    bones = lumbar()
    bones = [bones[0], bones[2]]
    labels = painted(bones, grid_around(bones, (1.5, 1.5, 1.5), np.eye(3)))
    labels.array[0, 0, 0] = 77
    result = measure(labels)
    assert result.gaps[0].figures["disc_height_middle_mm"].reason == "a level is missing between L2 and L4"
    assert result.warnings == (
        "a level is missing between L2 and L4",
        "labels that are not VerSe ids were ignored: 77",
    )
    assert result.curves[0].figures["angle_deg"].reason == "fewer than 3 bodies were measured"


def test_a_lone_speck_gives_reasons_and_no_numbers() -> None:
    array = np.zeros((20, 20, 20), np.uint8)
    array[10, 10, 10] = 20
    row = measure(Volume(array, np.eye(4))).vertebrae[0]
    assert row.figures["height_middle_mm"].value is None
    assert row.figures["height_middle_mm"].reason


def test_an_empty_map_gives_empty_tables() -> None:
    result = measure(Volume(np.zeros((5, 5, 5), np.uint8), np.eye(4)))
    assert result.vertebrae == ()
    assert result.warnings == ("the label map contains no vertebra",)
    assert all(row.quality == "none" for row in (*result.regions, *result.curves))


def test_every_missing_figure_has_a_reason() -> None:
    bones = [replace(bone, level=name) for bone, name in zip(lumbar(), ("C1", "C2", "C3"), strict=True)]
    result = measured(bones, (1.5, 1.5, 1.5))
    assert result.vertebrae[0].figures["height_middle_mm"].reason == "C1 has no body"
    assert "dens" in result.vertebrae[1].figures["height_middle_mm"].reason
    for rows in result.tables.values():
        for row in rows:
            for figure in row.figures.values():
                assert (figure.value is None) == (figure.quality == "none")
                assert figure.reason or figure.quality == "good"


def test_a_ct_of_another_place_is_refused() -> None:
    labels = Volume(np.full((9, 9, 9), 20, np.uint8), np.eye(4))
    far = np.eye(4)
    far[:3, 3] = 500
    with pytest.raises(GeometryError, match="is outside the CT"):
        measure(labels, Volume(np.zeros((9, 9, 9), np.int16), far))


def test_s1_is_found_below_l5() -> None:
    bones = [Vertebra(name, wedge_deg=-6, **LUMBAR) for name in ("L3", "L4", "L5", "L6")]
    placed = [moved(bone, OBLIQUE) for bone in stacked(bones, 9.0, 6.0)]
    sacrum = replace(placed[-1], level="sacrum")
    result = measured([*placed[:-1], sacrum])
    gap = result.gaps[-1]
    assert gap.name == "L5-sacrum"
    assert number(gap, "disc_height_middle_mm") == pytest.approx(9, abs=0.7)
    assert number(gap, "angle_sagittal_deg") == pytest.approx(6, abs=0.7)
    assert gap.figures["listhesis_mm"].reason == "the sacrum's posterior wall is not measured"
    assert degrees_apart(vector(result.vertebrae[-1], "superior_normal"), placed[-1].normal(1)) < 0.7


def test_grids_are_kept_apart_from_values() -> None:
    grid = Grid((4, 4, 4), np.eye(4))
    assert measure(Volume(np.zeros(grid.shape, np.uint16), grid.affine)).gaps == ()


def test_every_column_is_defined_in_the_documentation() -> None:
    page = Path(__file__).parents[3] / "docs" / "measurements.md"
    if not page.exists():
        pytest.skip("the documentation is not beside the tests")
    text = page.read_text(encoding="utf-8")
    columns = {column for rows in plain().tables.values() for row in rows for column in row.figures}
    assert [column for column in sorted(columns) if f"`{column}`" not in text] == []


def test_what_is_known_to_be_uncertain_is_never_good() -> None:
    neck = [Vertebra(name, width=19, depth=16, height=13) for name in ("C4", "C5", "C6")]
    turn = turned((1, 0.4, 0.3), 9)
    for row in measured([moved(bone, turn) for bone in stacked(neck, 5.0)]).vertebrae:
        assert "transverse processes" in row.figures["body_width_mm"].reason
        assert row.figures["body_depth_mm"].quality == "good"
        assert row.figures["wedge_coronal_deg"].quality == "check"
    sagittal = measured(lumbar(), (3, 1, 1)).vertebrae[1]
    assert sagittal.figures["body_width_mm"].quality == "check"
    assert sagittal.figures["height_middle_mm"].quality == "good"


def test_endplates_between_one_and_a_half_millimetre_voxels() -> None:
    bones = [moved(bone, turned((1, 0.4, 0.3), 9)) for bone in lumbar(wedge_deg=8, disc_deg=6)]
    found = measured(bones, (1.5, 1.5, 1.5))
    for row in found.vertebrae:
        assert number(row, "wedge_sagittal_deg") == pytest.approx(8, abs=0.5)
        assert number(row, "height_middle_mm") == pytest.approx(27, abs=0.3)
    for row in found.gaps:
        assert number(row, "angle_sagittal_deg") == pytest.approx(6, abs=0.5)


def test_a_sliver_of_a_cervical_vertebra_has_no_width() -> None:
    labels = painted([Vertebra("C6", **CERVICAL)], grid_around([Vertebra("C6", **CERVICAL)], (1, 1, 1), np.eye(3)))
    middle = int(np.flatnonzero((labels.array == 6).any(axis=(0, 2))).mean())
    sliver = np.zeros_like(labels.array)
    sliver[:, middle] = labels.array[:, middle]
    (row,) = measure(Volume(sliver, labels.affine)).vertebrae
    assert row.figures["body_width_mm"].value is None or row.figures["body_width_mm"].quality == "check"
