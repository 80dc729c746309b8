"""Contours, filled again slice by slice, give the labels back."""

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose
from PIL import Image, ImageDraw

from dicom_series import PATIENT, POSES, Series, labels_on
from vertebral.io.ct.read import read_scan
from vertebral.io.dicom_export.identity import Maker, save
from vertebral.io.dicom_export.rtstruct import make_rtstruct
from vertebral.io.dicom_export.source import read_source

FINE = 8  # pixels of the drawing for one of the scan


def written(folder, tmp_path):
    labels = labels_on(read_scan(folder).volume)
    save(make_rtstruct(labels, read_source(folder), Maker()), tmp_path / "rtstruct.dcm")
    return pydicom.dcmread(tmp_path / "rtstruct.dcm"), labels


def rasterised(structures, grid):
    """Draw each contour with Pillow on the slice that its points lie in; holes by their channel."""
    ids = {
        region.ROINumber: {"T12": 19, "L1": 20, "L2": 21}[region.ROIName]
        for region in structures.StructureSetROISequence
    }
    found = np.zeros(grid.shape, np.uint8)
    for region in structures.ROIContourSequence:
        for contour in region.ContourSequence:
            points_lps = np.asarray(contour.ContourData, float).reshape(-1, 3)
            voxels = grid.to_voxel(points_lps * (-1, -1, 1))
            assert np.ptp(voxels[:, 2]) < 1e-3  # planar, and in a slice
            k = round(float(voxels[0, 2]))
            assert abs(voxels[0, 2] - k) < 1e-3
            drawing = Image.new("1", (grid.shape[0] * FINE, grid.shape[1] * FINE))
            corners = [tuple(p) for p in np.rint((voxels[:, :2] + 0.5) * FINE).astype(int).tolist()]
            ImageDraw.Draw(drawing).polygon(corners, fill=1)
            middle = np.asarray(drawing)[FINE // 2 :: FINE, FINE // 2 :: FINE].T
            found[:, :, k][middle] = ids[region.ReferencedROINumber]
    return found


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_contours_give_the_labels_back(tmp_path, pose):
    folder = Series(pose).write(tmp_path / "ct")
    structures, labels = written(folder, tmp_path)
    assert np.array_equal(rasterised(structures, labels.grid), labels.array)


def test_contours_refer_to_the_slice_that_they_lie_in(tmp_path):
    folder = Series(POSES["oblique, downwards"]).write(tmp_path / "ct")
    structures, _ = written(folder, tmp_path)
    places = {header.SOPInstanceUID: header for header in read_source(folder).headers}
    normal = np.cross(*np.asarray(next(iter(places.values())).ImageOrientationPatient, float).reshape(2, 3))
    contours = [c for region in structures.ROIContourSequence for c in region.ContourSequence]
    assert len(contours) == 8  # T12: two slices and a corner of its own; L1: two; L2: slice 6 in two parts, slice 7
    for contour in contours:
        header = places[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        points = np.asarray(contour.ContourData, float).reshape(-1, 3)
        assert_allclose((points - np.asarray(header.ImagePositionPatient, float)) @ normal, 0, atol=2e-4)
        assert contour.NumberOfContourPoints == len(points)


def test_what_the_header_says(tmp_path):
    series = Series()
    structures, _ = written(series.write(tmp_path / "ct"), tmp_path)
    assert str(structures.PatientName) == PATIENT
    assert structures.file_meta.TransferSyntaxUID.is_implicit_VR
    frame = structures.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == series.frame
    listed = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert listed.SeriesInstanceUID == series.series
    assert len(listed.ContourImageSequence) == 9
    regions = structures.StructureSetROISequence
    assert [(r.ROINumber, r.ROIName, r.ROIGenerationAlgorithm) for r in regions] == [
        (1, "T12", "AUTOMATIC"),
        (2, "L1", "AUTOMATIC"),
        (3, "L2", "AUTOMATIC"),
    ]
    assert {r.ReferencedFrameOfReferenceUID for r in regions} == {series.frame}
    assert list(structures.ROIContourSequence[0].ROIDisplayColor) == [230, 159, 0]
    assert {c.ContourGeometricType for r in structures.ROIContourSequence for c in r.ContourSequence} == {
        "CLOSED_PLANAR"
    }
    codes = [o.RTROIIdentificationCodeSequence[0].CodeValue for o in structures.RTROIObservationsSequence]
    assert codes == ["23215003", "66794005", "14293000"]


def test_enhanced_source_names_its_frames(tmp_path):
    structures, labels = written(Series().write_enhanced(tmp_path / "ct"), tmp_path)
    assert np.array_equal(rasterised(structures, labels.grid), labels.array)
    first = structures.ROIContourSequence[0].ContourSequence[0].ContourImageSequence[0]
    assert first.ReferencedFrameNumber == 3  # slice 1 of the stack
