"""What results refer to: the slices in the order of the label map, and what keeps them from it."""

import shutil
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dicom_series import PATIENT, POSES, SHAPE, Pose, Series, labels_on
from vertebral.core.errors import GeometryError, InputError, ReadError
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_scan
from vertebral.io.dicom_export.source import aligned, read_source
from vertebral.io.write import write_image


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_slices_and_headers_are_in_the_order_of_the_scan(tmp_path, pose):
    folder = Series(pose).write(tmp_path / "ct")
    source, scan = read_source(folder), read_scan(folder)
    assert source.grid.shape == SHAPE
    assert_allclose(source.grid.affine, scan.volume.affine)
    for k, header in enumerate(source.headers):
        corner_lps = np.asarray(header.ImagePositionPatient, float)
        assert_allclose(source.grid.to_world(np.array([0, 0, k])), corner_lps * (-1, -1, 1), atol=1e-5)
        assert source.reference(k).ReferencedSOPInstanceUID == header.SOPInstanceUID
        assert "ReferencedFrameNumber" not in source.reference(k)


def test_enhanced_file_has_one_header_and_frames(tmp_path):
    source = read_source(Series().write_enhanced(tmp_path / "ct"))
    assert len(source.headers) == 1
    assert [source.reference(k).ReferencedFrameNumber for k in range(9)] == [1, 3, 5, 7, 9, 2, 4, 6, 8]


def test_text_is_utf8_and_what_may_be_empty_is_there(tmp_path):
    def edit(_, ds):
        del ds.AccessionNumber
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds.PatientSex, ds.PatientBirthDate, ds.StudyTime = "U", "unknown", "25:99"

    header = read_source(Series().write(tmp_path / "ct", edit)).first
    assert header.SpecificCharacterSet == "ISO_IR 192"
    assert str(header.PatientName) == PATIENT
    assert header.AccessionNumber in (None, "")
    assert header.PatientSex in (None, "")
    assert header.PatientBirthDate in (None, "")
    assert header.StudyTime in (None, "")
    assert header.StudyDate == "20240229"


def test_a_zip_and_one_file_are_as_good_as_the_folder(tmp_path):
    folder = Series().write(tmp_path / "ct")
    shutil.make_archive(str(tmp_path / "ct"), "zip", folder)
    uids = [header.SOPInstanceUID for header in read_source(folder).headers]
    for path in (tmp_path / "ct.zip", folder / "3.dcm"):
        assert [header.SOPInstanceUID for header in read_source(path).headers] == uids


def test_no_dicom(tmp_path):
    write_image(Volume(Series().hu, np.diag((1.0, 1, 2, 1))), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"a\.nii\.gz: not DICOM: give the DICOM series"):
        read_source(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "SOPInstanceUID", "StudyInstanceUID"])
def test_empty_uids_are_refused(tmp_path, keyword):
    folder = Series().write(tmp_path / "ct", lambda n, ds: setattr(ds, keyword, ""))
    with pytest.raises(ReadError, match=f"has no {keyword}, which a DICOM result must reference"):
        read_source(folder)


def test_two_frames_of_reference_are_refused(tmp_path):
    folder = Series().write(tmp_path / "ct", lambda n, ds: setattr(ds, "FrameOfReferenceUID", f"1.2.{n // 5}"))
    with pytest.raises(GeometryError, match="2 frames of reference"):
        read_source(folder)


def test_tilted_gantry_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="tilted gantry"):
        read_source(Series(Pose(step=(0.0, 0.6, 2.5))).write(tmp_path / "ct"))


def test_labels_are_turned_to_the_axes_of_the_series(tmp_path):
    folder = Series(POSES["feet first"]).write(tmp_path / "ct")
    labels = labels_on(read_scan(folder).volume)
    source = read_source(folder)
    turned = aligned(labels.reoriented("IRA"), source)
    assert np.array_equal(turned.array, labels.array)
    assert_allclose(turned.affine, source.grid.affine, atol=1e-6)


@pytest.mark.parametrize(
    ("shift_mm", "shape", "words"),
    [(0.2, SHAPE, r"from \(31\.0, -12\.0, -407\.5\) mm, but .* from \(31\.2,"), (0, (12, 11, 8), "12 x 11 x 8 voxels")],
)
def test_another_scan_is_refused_with_both_geometries(tmp_path, shift_mm, shape, words):
    source = read_source(Series().write(tmp_path / "ct"))
    affine = source.grid.affine.copy()
    affine[0, 3] += shift_mm
    with pytest.raises(GeometryError, match=words) as caught:
        aligned(Volume(np.ones(shape, np.uint8), affine), source)
    assert "12 x 11 x 9 voxels (LPS) of 0.8 x 0.9 x 2.5 mm" in str(caught.value)
