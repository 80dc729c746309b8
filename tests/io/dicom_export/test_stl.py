"""Surfaces inside DICOM, taken out again with trimesh."""

import io

import numpy as np
import pydicom
import pytest
import trimesh
from numpy.testing import assert_allclose

from dicom_series import POSES, Series
from vertebral.core.anatomy import BY_NAME
from vertebral.core.records import Surface
from vertebral.io.dicom_export.identity import Maker, save
from vertebral.io.dicom_export.source import read_source
from vertebral.io.dicom_export.stl import make_stls

LOW, HIGH = np.array([24.0, -18.0, -402.0]), np.array([26.0, -15.0, -396.0])  # RAS+ mm


def box(level):
    mesh = trimesh.creation.box(bounds=[LOW, HIGH])
    return Surface(BY_NAME[level], np.asarray(mesh.vertices, float), np.asarray(mesh.faces, np.int64))


def written(folder, tmp_path, *levels):
    made = make_stls([box(level) for level in levels], read_source(folder), Maker())
    for n, dataset in enumerate(made):
        save(dataset, tmp_path / f"{n}.dcm")
    return [pydicom.dcmread(tmp_path / f"{n}.dcm") for n in range(len(made))]


def test_the_surface_comes_back_in_lps(tmp_path):
    (ds,) = written(Series().write(tmp_path / "ct"), tmp_path, "L1")
    content = ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength]
    mesh = trimesh.load_mesh(io.BytesIO(content), file_type="stl")
    assert mesh.is_watertight
    assert_allclose(mesh.bounds, [[-26, 15, -402], [-24, 18, -396]], atol=1e-4)
    assert mesh.volume == pytest.approx(2 * 3 * 6)  # positive: faces look outwards still
    assert b"L1 mm SPACE=LPS" in content[:80]


def test_what_the_header_says(tmp_path):
    series = Series()
    first, second = written(series.write(tmp_path / "ct"), tmp_path, "L1", "L2")
    assert first.SOPClassUID.name == "Encapsulated STL Storage"
    assert (first.Modality, first.MIMETypeOfEncapsulatedDocument) == ("M3D", "model/stl")
    assert first.FrameOfReferenceUID == series.frame
    assert first.MeasurementUnitsCodeSequence[0].CodeValue == "mm"
    assert first.ConceptNameCodeSequence[0].CodeMeaning == "CT 3D CAM model"
    assert (first.DocumentTitle, second.DocumentTitle) == ("Surface of L1", "Surface of L2")
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.ModelGroupUID == second.ModelGroupUID
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_it_names_the_slices_that_it_passes_through(tmp_path):
    """From -402 to -396 mm: the slices at -402.5 (2), -400 (3), -397.5 (4) and -395 (5), the nearest of both ends."""
    folder = Series().write(tmp_path / "ct")
    (ds,) = written(folder, tmp_path, "L1")
    uids = [header.SOPInstanceUID for header in read_source(folder).headers]
    assert [item.ReferencedSOPInstanceUID for item in ds.SourceInstanceSequence] == uids[2:6]


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_all_poses_have_sources(tmp_path, pose):
    (ds,) = written(Series(pose).write(tmp_path / "ct"), tmp_path, "L1")
    assert 1 <= len(ds.SourceInstanceSequence) <= 9
