"""The modules of `measure`, one by one, with answers worked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from measure_solids import Vertebra, grid_around, moved, painted, turned
from rule_sets import undocumented
from vertebral.core.anatomy import BY_NAME
from vertebral.core.volume import Grid, Volume
from vertebral.stages.measure import MEASURE_RULES, MeasureRules, measure
from vertebral.stages.measure.canal import find_canal
from vertebral.stages.measure.crops import find_crops
from vertebral.stages.measure.density import contrast_ml
from vertebral.stages.measure.endplates import Cloud, cloud_along_rays, first_exits, fitted_plane, profile_heights
from vertebral.stages.measure.frames import Frame, coarse_points, frame_from, local_values
from vertebral.stages.measure.heights import Heights, genant_grade, height_loss_percent
from vertebral.stages.measure.spine_rows import are_neighbours
from vertebral.stages.measure.surface_area import surface_area_cm2


def test_crop_counts_and_places_what_is_there() -> None:
    array = np.zeros((10, 12, 14), np.uint8)
    array[2:4, 3:6, 4:8] = 20  # 2 x 3 x 4 voxels of 2 x 1 x 0.5 mm: 24 mm3, centre at (2.5, 4, 5.5)
    array[9, 11, 13] = 20  # a stray voxel at the border
    affine = np.diag([2.0, 1.0, 0.5, 1.0])
    crops, unknown = find_crops(Volume(array, affine), MEASURE_RULES)
    crop = crops[0]
    assert crop.volume_ml == pytest.approx(25 / 1000)
    centre = (24 * np.array([2.5, 4, 5.5]) + np.array([9, 11, 13])) / 25
    assert crop.centroid_mm == pytest.approx(centre * [2, 1, 0.5])
    assert crop.touches_border
    assert crop.fragment_share == pytest.approx(1 / 13)  # in blocks of 2 x 1 x 1 mm
    assert unknown == ()


def test_fine_voxels_are_averaged_in_place() -> None:
    array = np.zeros((40, 40, 40), np.uint8)
    array[10:31, 10:31, 10:31] = 20
    crop = find_crops(Volume(array, np.diag([0.3, 0.3, 0.3, 1])), MEASURE_RULES)[0][0]
    assert crop.grid.spacing_mm == pytest.approx((0.9, 0.9, 0.9))
    inside = np.argwhere(crop.occupancy > 0)
    weights = crop.occupancy[crop.occupancy > 0]
    mean = crop.grid.to_world(weights @ inside / weights.sum())
    assert mean == pytest.approx([6.0, 6.0, 6.0])
    assert weights.sum() * 0.9**3 == pytest.approx(21**3 * 0.3**3)


def test_distance_to_the_border_is_in_voxels_of_the_map() -> None:
    array = np.zeros((10, 10, 10), np.uint8)
    array[3:7, 3:7, 1:5] = 20
    crop = find_crops(Volume(array, np.eye(4)), MEASURE_RULES)[0][0]
    assert not crop.touches_border
    faces = np.array([[5.0, 5.0, 0.5], [5.0, 5.0, 4.5]])
    assert crop.near_border(faces, 1.0, 0.25).tolist() == [True, False]


def test_area_of_a_sphere() -> None:
    i, j, k = np.indices((50, 50, 50)) - 24.6
    ball = (i**2 + j**2 + k**2 <= 18**2).astype(np.uint8) * 20
    crop = find_crops(Volume(ball, np.eye(4)), MEASURE_RULES)[0][0]
    assert surface_area_cm2(crop, MEASURE_RULES) == pytest.approx(4 * np.pi * 18**2 / 100, rel=0.02)


def test_exits_are_found_between_samples() -> None:
    values = np.array([[1, 1, 1, 0.75, 0, 0], [0, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]], np.float32)[None]
    found = first_exits(values, 2, 1, 1)[0]
    assert found[0] == pytest.approx(2 + 1 / 3)  # from index 1: 0.5 lies a third of the way from 0.75 to 0
    assert np.isnan(found[1:]).all()  # never leaves; starts outside
    assert first_exits(values, 2, 2, -1)[0, 1] == pytest.approx(1.5)


def cloud_on(heights: np.ndarray, right: np.ndarray, ahead: np.ndarray, slack_mm: float = 0.3) -> Cloud:
    points = np.column_stack([right, ahead, heights])
    return cloud_along_rays(points, np.full((len(points), 2), slack_mm))


def grid_points() -> tuple[np.ndarray, np.ndarray]:
    right, ahead = np.meshgrid(np.arange(-15, 15.5), np.arange(-12, 12.5))
    return right.ravel(), ahead.ravel()


def test_a_plane_survives_outliers() -> None:
    right, ahead = grid_points()
    heights = 10 + 0.1 * right - 0.05 * ahead
    heights[ahead > 9] += 6  # a spur along the front rim
    plane = fitted_plane(cloud_on(heights, right, ahead), MEASURE_RULES)
    assert plane is not None
    assert plane.offset == pytest.approx(10, abs=0.25)
    assert plane.slope == pytest.approx((0.1, -0.05), abs=0.04)
    assert plane.inlier_share == pytest.approx(22 / 25, abs=0.01)


def test_thick_slices_still_show_the_tilt() -> None:
    right, ahead = grid_points()
    truth = 10 + 0.2 * ahead
    below = np.floor(truth / 3) * 3  # the last slice of 3 mm that is inside
    points = np.column_stack([right, ahead, below + 1.5])
    plane = fitted_plane(cloud_along_rays(points, np.full((len(right), 2), 1.5)), MEASURE_RULES)
    assert plane is not None
    assert plane.slope[1] == pytest.approx(0.2, abs=0.03)
    assert plane.rms_mm < 0.2


def test_too_few_points_make_no_plane() -> None:
    few = np.zeros(5)
    assert fitted_plane(cloud_on(few, few, few), MEASURE_RULES) is None
    assert profile_heights(cloud_on(few, few, few), (0.0,), MEASURE_RULES) is None


def test_hollow_endplates_keep_their_rim() -> None:
    right, ahead = grid_points()
    heights = 10 + 0.02 * ahead**2
    found = profile_heights(cloud_on(heights, right, ahead), (12.0, 0.0, -12.0), MEASURE_RULES)
    assert found == pytest.approx([10 + 0.02 * 144, 10, 10 + 0.02 * 144], abs=0.1)


def test_height_loss_and_grades() -> None:
    assert height_loss_percent(Heights(18, 20, 24), None, MEASURE_RULES) == pytest.approx(25)
    assert height_loss_percent(Heights(25, 25, 24), None, MEASURE_RULES) == 0
    assert height_loss_percent(Heights(18, 18, 18), 24.0, MEASURE_RULES) == pytest.approx(25)  # crushed as a whole
    assert height_loss_percent(Heights(22, 22, 22), 24.0, MEASURE_RULES) == 0  # within the 15 per cent
    assert height_loss_percent(Heights(None, 20, 20), None, MEASURE_RULES) is None
    assert [genant_grade(loss, MEASURE_RULES) for loss in (0, 19.9, 20, 24.9, 25, 39.9, 40, 80)] == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]


def test_neighbours() -> None:
    pairs = {
        ("T12", "L1"): True,
        ("L5", "sacrum"): True,
        ("T12", "T13"): True,
        ("T11", "L1"): False,
        ("L2", "L4"): False,
    }
    for (upper, lower), expected in pairs.items():
        assert are_neighbours(BY_NAME[upper], BY_NAME[lower]) is expected


def test_frames_map_there_and_back() -> None:
    frame = frame_from(np.array([1.0, 2, 3]), np.array([0.0, 0.2, 1]), np.array([0.1, 1, 0]))
    assert frame.axes @ frame.axes.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(frame.axes) == pytest.approx(1)
    points = np.array([[4.0, 5, 6], [7, 8, 9]])
    assert frame.to_world(frame.to_own(points)) == pytest.approx(points)


def test_local_values_follow_the_frame() -> None:
    i, j, k = np.indices((12, 12, 12)).astype(np.float32)
    grid = Grid((12, 12, 12), np.diag([1.0, 2.0, 0.5, 1.0]))
    frame = frame_from(np.array([5.0, 10, 3]), np.array([0.0, 0, 1]), np.array([1.0, 0, 0]))
    axes = (np.arange(-2, 3.0), np.arange(-2, 3.0), np.arange(-1, 2.0))
    values = local_values(i + 100 * j + 10000 * k, grid, frame, axes)
    # The frame's right is the world's -A, its front the world's R.
    assert values[3, 4, 2] == pytest.approx(7 + 100 * (10 - 1) / 2 + 10000 * 4 / 0.5)


def test_canal_of_known_section() -> None:
    bone = moved(Vertebra("L3"), turned((1, 0, 0), 8))
    crop = find_crops(painted([bone], grid_around([bone], (1, 1, 1), np.eye(3))), MEASURE_RULES)[0][0]
    rough = Frame(np.array(bone.origin), np.eye(3))
    canal = find_canal(coarse_points(crop, MEASURE_RULES), rough, MEASURE_RULES)
    assert canal is not None
    width, depth = bone.canal
    assert canal.area_mm2 == pytest.approx(width * depth, rel=0.3)
    middle = np.array(bone.origin) - (bone.depth + depth) / 2 * np.array(bone.axes)[1]
    off = (canal.frame.origin_mm - middle) @ np.array(bone.axes).T
    assert abs(off[:2]).max() < 2.5


def scanned(core_hu: float, shell_hu: float, spot_hu: float | None = None) -> tuple[Volume, Volume]:
    """L3 with a shell of 2 mm, in soft tissue of 50 HU."""
    bone = moved(Vertebra("L3"), turned((1, 0.4, 0.3), 9))
    grid = grid_around([bone], (1, 1, 1), np.eye(3))
    labels = painted([bone], grid)
    ct = np.full(grid.shape, 50.0)
    ct[labels.array > 0] = shell_hu
    small = Vertebra("L3", bone.width - 4, bone.depth - 4, bone.height - 4, origin=bone.origin, axes=bone.axes)
    inner = painted([small], grid).array > 0
    ct[inner & (labels.array > 0)] = core_hu
    if spot_hu is not None:
        centre = np.rint(grid.to_voxel(np.array(bone.origin))).astype(int)
        i, j, k = (slice(c - 2, c + 3) for c in centre)
        ct[i, j, k] = spot_hu
    return labels, Volume(ct.astype(np.int16), grid.affine)


def test_core_leaves_the_shell_out() -> None:
    row = measure(*scanned(150, 800)).vertebrae[0]
    assert row.value("core_mean_hu") == pytest.approx(150, abs=1)
    assert row.figures["core_mean_hu"].quality == "good"


def test_metal_and_cement_are_flagged() -> None:
    assert "metal" in measure(*scanned(150, 800, 2500)).vertebrae[0].figures["core_mean_hu"].reason
    assert "cement" in measure(*scanned(700, 800)).vertebrae[0].figures["core_mean_hu"].reason


def test_without_a_ct_there_is_no_density() -> None:
    labels, _ = scanned(150, 800)
    assert measure(labels).vertebrae[0].figures["core_mean_hu"].reason == "no CT was given"


def test_a_ct_on_a_grid_of_its_own() -> None:
    labels, ct = scanned(150, 800)
    assert measure(labels, ct.reoriented("LPS")).vertebrae[0].value("core_mean_hu") == pytest.approx(150, abs=1)
    part = ct.cropped((slice(0, ct.array.shape[0] // 2 + 3), slice(0, ct.array.shape[1]), slice(0, ct.array.shape[2])))
    assert measure(labels, part).vertebrae[0].figures["core_mean_hu"].reason == "the core extends beyond the CT"


def test_contrast_is_found_in_front_of_the_body() -> None:
    i, j, _ = np.indices((80, 80, 40))
    ct = np.full((80, 80, 40), 50.0)
    frame = Frame(np.array([40.0, 15, 20]), np.eye(3))
    assert contrast_ml(Volume(ct, np.eye(4)), frame, 16, MEASURE_RULES) == 0
    ct[np.hypot(i - 40, j - 50) < 11] = 250  # an enhanced aorta of 22 mm
    assert contrast_ml(Volume(ct, np.eye(4)), frame, 16, MEASURE_RULES) > 1


def test_every_rule_has_a_unit_and_a_source() -> None:
    assert undocumented(MeasureRules) == []


def test_a_rule_can_be_varied() -> None:
    labels, ct = scanned(150, 800)
    figure = measure(labels, ct, rules=replace(MEASURE_RULES, min_core_ml=100.0)).vertebrae[0].figures["core_mean_hu"]
    assert figure.reason == "no core remains 3 mm below the surface"
