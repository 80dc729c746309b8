"""SEG read back by hand from the standard's formulas (PS3.3 C.7.6.2.1.1), and by highdicom."""

import warnings

import highdicom as hd
import numpy as np
import pydicom
import pytest

from dicom_series import PATIENT, POSES, Series, labels_on
from vertebral.core.anatomy import BY_NAME, LEVELS
from vertebral.core.errors import GeometryError, InputError
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_scan
from vertebral.io.dicom_export.codes import level_code
from vertebral.io.dicom_export.identity import Maker, save
from vertebral.io.dicom_export.seg import make_seg
from vertebral.io.dicom_export.source import read_source

MAKER = Maker("default", "b2eb333ff1bc6b3073231daa4a4f1f06")


def written(folder, tmp_path, labels=None):
    """Write a SEG of lopsided labels; return it as pydicom reads it, and the labels."""
    if labels is None:
        labels = labels_on(read_scan(folder).volume)
    save(make_seg(labels, read_source(folder), MAKER), tmp_path / "seg.dcm")
    return pydicom.dcmread(tmp_path / "seg.dcm"), labels


def points_of(seg):
    """Return {(segment, LPS position of a voxel in 0.01 mm)} from frames, positions and orientation alone."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    along_row = np.asarray(shared.PlaneOrientationSequence[0].ImageOrientationPatient[:3], float)
    along_column = np.asarray(shared.PlaneOrientationSequence[0].ImageOrientationPatient[3:], float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found = set()
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[: seg.NumberOfFrames * seg.Rows * seg.Columns].reshape(-1, seg.Rows, seg.Columns)
    for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        corner = np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for row, column in np.argwhere(frame):
            place = corner + along_row * between_columns * column + along_column * between_rows * row
            found.add((number, *np.rint(place * 100).astype(int).tolist()))
    return found


def points_in(labels):
    """The same from a label map: T12 is segment 1, L1 segment 2, L2 segment 3."""
    voxels = np.argwhere(labels.array)
    places = labels.grid.to_world(voxels) * (-1, -1, 1)
    numbers = labels.array[tuple(voxels.T)].astype(int) - 18
    return {(int(n), *np.rint(p * 100).astype(int).tolist()) for n, p in zip(numbers, places, strict=True)}


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_every_voxel_is_where_the_label_map_has_it(tmp_path, pose):
    seg, labels = written(Series(pose).write(tmp_path / "ct"), tmp_path)
    assert points_of(seg) == points_in(labels)


def test_mirrored_labels_would_show(tmp_path):
    folder = Series().write(tmp_path / "ct")
    labels = labels_on(read_scan(folder).volume)
    for axis in range(3):
        seg, _ = written(folder, tmp_path, Volume(np.flip(labels.array, axis), labels.affine))
        assert points_of(seg) != points_in(labels)


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_frames_refer_to_their_own_images(tmp_path, pose):
    """highdicom finds the planes by the source images' UIDs."""
    folder = Series(pose).write(tmp_path / "ct")
    _, labels = written(folder, tmp_path)
    source = read_source(folder)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    planes = seg.get_pixels_by_source_instance(
        [header.SOPInstanceUID for header in source.headers],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    expected = np.where(labels.array > 0, labels.array - 18, 0).transpose(2, 1, 0)
    assert np.array_equal(planes, expected)


def test_enhanced_source(tmp_path):
    folder = Series(POSES["oblique"]).write_enhanced(tmp_path / "ct")
    seg, labels = written(folder, tmp_path)
    assert points_of(seg) == points_in(labels)
    image = read_source(folder).first.SOPInstanceUID
    planes = hd.seg.segread(tmp_path / "seg.dcm").get_pixels_by_source_frame(
        image, list(range(1, 10)), combine_segments=True, assert_missing_frames_are_empty=True
    )
    order = [(n * 5) % 9 for n in range(9)]
    assert np.array_equal(planes, np.where(labels.array > 0, labels.array - 18, 0).transpose(2, 1, 0)[order])


def test_what_the_header_says(tmp_path):
    series = Series()
    seg, _ = written(series.write(tmp_path / "ct"), tmp_path)
    assert (seg.SegmentationType, seg.BitsAllocated, seg.Modality) == ("BINARY", 1, "SEG")
    assert str(seg.PatientName) == PATIENT
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (series.study, series.frame)
    assert seg.SeriesInstanceUID != series.series
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series.series
    assert seg.NumberOfFrames == 2 + 2 + 2  # T12 in two slices, L1 in two, L2 in two: empty frames are left out
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["T12", "L1", "L2"]
    kinds = [item.SegmentedPropertyTypeCodeSequence[0] for item in seg.SegmentSequence]
    assert [(kind.CodingSchemeDesignator, kind.CodeValue) for kind in kinds] == [
        ("SCT", "23215003"),
        ("SCT", "66794005"),
        ("SCT", "14293000"),
    ]
    first = seg.SegmentSequence[0]
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert first.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "vertebral"
    colour = hd.color.CIELabColor.from_dicom_value(tuple(first.RecommendedDisplayCIELabValue)).to_rgb()
    assert np.abs(np.subtract(colour, BY_NAME["T12"].rgb)).max() <= 1
    assert seg.ContentQualification == "RESEARCH"
    assert seg.DeviceSerialNumber == "b2eb333ff1bc6b30"


def test_names_stay_off_the_screen(tmp_path, caplog):
    """A name without the standard's form is passed on, and not talked about."""
    folder = Series().write(tmp_path / "ct", lambda n, ds: setattr(ds, "PatientName", "Jane Doe"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seg, _ = written(folder, tmp_path)
    assert str(seg.PatientName) == "Jane Doe"
    assert "Jane" not in caplog.text


def test_levels_have_codes():
    codes = {level.name: level_code(level) for level in LEVELS}
    assert len({code.value for code in codes.values()}) == len(LEVELS) - 1  # T13 and L6 are a vertebra, no more
    assert codes["C1"].meaning == "C1 vertebra"
    assert codes["T13"] == codes["L6"]
    assert (codes["T13"].value, codes["sacrum"].value) == ("51282000", "54735007")


def test_supernumerary_levels_keep_their_names(tmp_path):
    folder = Series().write(tmp_path / "ct")
    scan = read_scan(folder).volume
    array = np.zeros(scan.grid.shape, np.uint8)
    array[2, 2, 2], array[2, 2, 4], array[2, 2, 6] = 19, 28, 25
    seg, _ = written(folder, tmp_path, Volume(array, scan.affine))
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["T12", "T13", "L6"]


@pytest.mark.parametrize(("value", "words"), [(0, "contains no vertebra"), (77, "contains 77, not VerSe ids")])
def test_bad_labels(tmp_path, value, words):
    folder = Series().write(tmp_path / "ct")
    scan = read_scan(folder).volume
    with pytest.raises(InputError, match=words):
        written(folder, tmp_path, Volume(np.full(scan.grid.shape, value, np.uint8), scan.affine))


def test_another_series_is_refused(tmp_path):
    folder = Series().write(tmp_path / "ct")
    other = Series(POSES["sagittal"]).write(tmp_path / "other")
    with pytest.raises(GeometryError, match="give the series that the labels were made from"):
        make_seg(labels_on(read_scan(folder).volume), read_source(other), MAKER)
