import numpy as np
import pytest

from vertebral.core.volume import Volume
from vertebral.stages.preview.curved_slices import coronal_slice, framed, largest_scale, sagittal_slice, trace_course

SHAPE = (40, 30, 50)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def leaning_spine() -> Volume:
    """Three blocks (L1, T12, T13 from below) whose x grows by 8 voxels from one to the next."""
    labels = np.zeros(SHAPE, np.uint8)
    for n, verse_id in enumerate((20, 28, 19)):
        labels[8 + 8 * n : 13 + 8 * n, 10:15, 5 + 15 * n : 15 + 15 * n] = verse_id
    return Volume(labels, AFFINE)


def test_the_course_follows_a_leaning_spine() -> None:
    course = trace_course(leaning_spine())
    assert course.x[[10, 25, 40]] == pytest.approx([10, 18, 26], abs=1)
    assert (np.diff(course.x) >= 0).all()
    assert set(course.y.tolist()) == {13}  # the front half of 10..14, from the mean on: 12, 13, 14
    assert (course.low, course.high) == ((8, 10, 5), (28, 14, 44))
    assert [level.name for level in course.levels] == ["T12", "T13", "L1"]


def test_without_labels_the_course_is_the_middle() -> None:
    course = trace_course(Volume(np.zeros(SHAPE, np.uint8), AFFINE))
    assert set(course.x.tolist()) == {20}
    assert set(course.y.tolist()) == {15}
    assert course.levels == ()


def test_ids_of_no_level_are_passed_over() -> None:
    labels = leaning_spine()
    labels.array[0, 0, 0] = 99
    assert trace_course(labels).low == (8, 10, 5)


def test_slices_show_the_patient_the_right_way_round() -> None:
    labels = leaning_spine()
    hu = np.zeros(SHAPE, np.int16)
    hu[39, :, :] = 100  # the patient's right
    hu[:, 29, :] += 200  # anterior
    hu[:, :, 49] += 400  # superior
    course = trace_course(labels)
    side, front = (cut(Volume(hu, AFFINE), labels, course) for cut in (sagittal_slice, coronal_slice))
    assert side.hu.shape == (50, 30)
    assert (side.hu[5, 0], side.hu[0, 5], side.hu[0, 0]) == (200, 400, 600)
    assert front.hu.shape == (50, 40)
    assert (front.hu[5, 0], front.hu[0, 5], front.hu[5, 39]) == (100, 400, 0)
    assert side.spacing_mm == (3.0, 2.0)
    assert front.spacing_mm == (3.0, 1.0)
    assert set(np.unique(side.label)) == {0, 19, 20, 28}
    assert (side.low, side.high) == ((5, 15), (44, 19))


def test_framing_keeps_the_aspect_ratio_and_the_labels() -> None:
    labels = leaning_spine()
    piece = coronal_slice(Volume(np.zeros(SHAPE, np.int16), AFFINE), labels, trace_course(labels))
    scale = largest_scale(piece, (200, 400))
    assert scale == pytest.approx(400 / 150)  # all 50 rows of 3 mm are context of the labels
    frame = framed(piece, (200, 400), scale)
    assert frame.grey.shape == frame.label.shape == (400, 200)
    rows, columns = np.nonzero(frame.label == 28)
    assert np.ptp(rows) + 1 == pytest.approx(10 * 3 * scale, abs=2)
    assert np.ptp(columns) + 1 == pytest.approx(5 * 1 * scale, abs=2)
    assert np.median(frame.grey) == round(200 / 1200 * 255 - 0.5)  # 0 HU in a window of -200 to 1000 HU


def test_blocks_give_the_same_course(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trace_course(leaning_spine())
    monkeypatch.setattr("vertebral.stages.preview.curved_slices._BLOCK_VOXELS", 5000)
    for order in ("C", "F"):
        labels = Volume(np.asarray(leaning_spine().array, order=order), AFFINE)
        course = trace_course(labels)
        assert (course.x == whole.x).all()
        assert (course.low, course.high, course.levels) == (whole.low, whole.high, whole.levels)
