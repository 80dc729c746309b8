import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.testing import assert_allclose

from dicom_series import POSES, Series, labels_on
from vertebral.core.anatomy import BY_NAME
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.slicer import write_seg_nrrd

IDS = {BY_NAME["T12"]: 19, BY_NAME["L1"]: 20, BY_NAME["L2"]: 21}


@pytest.mark.parametrize("pose", ["axial", "feet first", "oblique, downwards"])
def test_labels_come_back_where_they_were(tmp_path, pose):
    labels = labels_on(read_scan(Series(POSES[pose]).write(tmp_path / "ct")).volume)
    write_seg_nrrd(labels, IDS, tmp_path / "a.seg.nrrd")
    again = read_labels(tmp_path / "a.seg.nrrd")
    assert np.array_equal(again.array, labels.array)
    assert_allclose(again.affine, labels.affine, atol=1e-4)


def test_the_header_names_and_colours_each_segment(tmp_path):
    array = np.zeros((6, 7, 8), np.uint8)
    array[1:3, 2:6, 3], array[4, 4, 4], array[5, 5, 5] = 19, 20, 21
    write_seg_nrrd(Volume(array, np.eye(4)), IDS, tmp_path / "a.seg.nrrd")
    image = sitk.ReadImage(str(tmp_path / "a.seg.nrrd"))
    header = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert header["Segment0_Name"] == "T12"
    assert header["Segment0_LabelValue"] == "19"
    assert header["Segment0_Extent"] == "1 2 2 5 3 3"
    assert header["Segment1_Name"] == "L1"
    assert header["Segment0_Color"] == "0.901961 0.623529 0.000000"
    assert "SCT^23215003^T12 vertebra" in header["Segment0_Tags"]
    assert header["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert "Segment3_Name" not in header
