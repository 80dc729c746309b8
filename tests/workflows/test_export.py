"""From results to files: what is checked first, what is written, what is refused."""

import json

import numpy as np
import pydicom
import pytest

from dicom_series import POSES, Series, labels_on
from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import ConfigError, GeometryError, InputError, OutputExistsError, ReadError, VertebralError
from vertebral.core.records import Surface
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_scan
from vertebral.io.meshes import read_stl, write_stl
from vertebral.io.write import write_labels
from vertebral.runtime.hashing import file_sha256
from vertebral.workflows.config import ExportConfig, ExportRunConfig
from vertebral.workflows.export import (
    Exportable,
    export,
    exported_names,
    source_for,
    write_exports,
    write_exports_in_run,
)

ALL = ("seg", "rtstruct", "stl-dicom", "sr", "seg.nrrd", "itksnap", "nifti", "nnunet", "bids")


@pytest.fixture
def ct(tmp_path):
    return Series(POSES["oblique"]).write(tmp_path / "ct")


@pytest.fixture
def result(tmp_path, ct):
    """A folder as `vertebral run` leaves it, of which `export` reads label map, surfaces and manifest."""
    folder = tmp_path / "result"
    folder.mkdir()
    labels = labels_on(read_scan(ct).volume)
    write_labels(labels, folder / "case_seg-vert_msk.nii.gz")
    rows = []
    for name in ("T12", "L1", "L2"):
        corners = labels.grid.to_world(np.argwhere(labels.array == BY_NAME[name].verse_id)[:3])
        write_stl(Surface(BY_NAME[name], corners, np.array([[0, 1, 2], [0, 2, 1]])), folder / f"case_{name}.stl")
        rows.append({"level": name, "mesh": {}})
    manifest = {
        "model": {"name": "default", "sha256": "ab" * 32},
        "levels": rows,
        "outputs": [{"file": path.name, "sha256": file_sha256(path)} for path in sorted(folder.iterdir())],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_all_formats_at_once(result, ct, tmp_path):
    config = ExportRunConfig(formats=ALL)
    files, notes = export(result, ct, tmp_path / "out", config)
    assert notes == ()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in files)
    names = {path.name for path in files}
    assert names <= set(exported_names("case", config))
    assert {"case_seg.dcm", "case_rtstruct.dcm", "case_sr.dcm", "case_L1_stl.dcm", "case.seg.nrrd"} <= names
    seg, report = (pydicom.dcmread(tmp_path / "out" / f"case_{kind}.dcm") for kind in ("seg", "sr"))
    assert seg.DeviceSerialNumber == "ab" * 8
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert seg.SOPInstanceUID in {i.ReferencedSOPInstanceUID for one in evidence for i in one.ReferencedSOPSequence}
    content = pydicom.dcmread(tmp_path / "out" / "case_L1_stl.dcm").EncapsulatedDocument
    points = np.frombuffer(content[84 : 84 + 50], "<f4", 12)[3:].reshape(3, 3)
    assert np.allclose(points * (-1, -1, 1), read_stl(result / "case_L1.stl", BY_NAME["L1"]).vertices_mm[:3])


def test_another_place_for_the_ids(result, tmp_path):
    files, _ = export(result, None, tmp_path / "out", ExportRunConfig(formats=("nifti",), scheme="totalsegmentator"))
    assert [path.name for path in files] == ["case_labels-totalsegmentator.nii.gz"]


def test_a_label_map_alone_is_meshed(ct, tmp_path):
    scan = read_scan(ct).volume
    array = np.zeros(scan.grid.shape, np.uint8)
    array[2:8, 2:8, 2:7] = 20
    write_labels(Volume(array, scan.affine), tmp_path / "x_seg-vert_msk.nii.gz")
    config = ExportRunConfig(formats=("stl-dicom",))
    files, _ = export(tmp_path / "x_seg-vert_msk.nii.gz", ct, tmp_path / "out", config)
    assert [path.name for path in files] == ["x_L1_stl.dcm"]


def test_edited_labels_are_exported_with_a_note(result, ct, tmp_path):
    labels = labels_on(read_scan(ct).volume)
    array = np.where(labels.array == 19, 0, labels.array)
    write_labels(Volume(array, labels.affine), result / "case_seg-vert_msk.nii.gz")
    files, notes = export(result, ct, tmp_path / "out", ExportRunConfig())
    assert [item.SegmentLabel for item in pydicom.dcmread(files[0]).SegmentSequence] == ["L1", "L2"]
    assert "was edited after the run" in notes[0]


def test_nothing_is_replaced_unasked(result, ct, tmp_path):
    out = tmp_path / "out"
    export(result, ct, out, ExportRunConfig())
    before = (out / "case_seg.dcm").read_bytes()
    with pytest.raises(OutputExistsError, match=r"case_seg\.dcm: already exists; add --overwrite"):
        export(result, ct, out, ExportRunConfig(formats=("nifti", "seg")))
    assert (out / "case_seg.dcm").read_bytes() == before
    assert [path.name for path in out.iterdir()] == ["case_seg.dcm"]
    export(result, ct, out, ExportRunConfig(overwrite=True))
    assert (out / "case_seg.dcm").read_bytes() != before


def test_another_scan_is_refused_and_nothing_is_left(result, tmp_path):
    other = Series(POSES["axial"]).write(tmp_path / "other")
    with pytest.raises(GeometryError, match="give the series that the labels were made from"):
        export(result, other, tmp_path / "out", ExportRunConfig(formats=("nifti", "seg")))
    assert not (tmp_path / "out").exists()


def test_dicom_needs_a_source(result, tmp_path):
    with pytest.raises(ConfigError, match="--format seg,sr: needs the DICOM series of the CT; give it as --source"):
        export(result, None, tmp_path / "out", ExportRunConfig(formats=("seg", "nifti", "sr")))


def test_what_is_no_result(tmp_path):
    with pytest.raises(InputError, match=r"contains no manifest\.json"):
        export(tmp_path, None, tmp_path / "out", ExportRunConfig(formats=("nifti",)))


def test_a_missing_surface_is_named(result, ct, tmp_path):
    (result / "case_L1.stl").unlink()
    with pytest.raises(ReadError, match=r"case_L1\.stl: missing from the result"):
        export(result, ct, tmp_path / "out", ExportRunConfig(formats=("stl-dicom",)))


def test_a_foreign_surface_is_refused(result, ct, tmp_path):
    (result / "case_L1.stl").write_bytes(b"solid nothing\nendsolid\n" * 10)
    with pytest.raises(ReadError, match="not an STL file of `vertebral run`"):
        export(result, ct, tmp_path / "out", ExportRunConfig(formats=("stl-dicom",)))


def test_settings_are_checked_before_any_work(ct):
    with pytest.raises(ConfigError, match="unknown scheme 'abc'"):
        source_for(ExportConfig(formats=("nifti",), scheme="abc"), ct)
    with pytest.raises(ConfigError, match="nnU-Net needs ids 1, 2, 3"):
        source_for(ExportConfig(formats=("nnunet",), scheme="totalsegmentator"), ct)
    with pytest.raises(InputError, match="not DICOM"):
        write_labels(Volume(np.zeros((9, 9, 9), np.uint8), np.eye(4)), ct / "a.nii.gz")
        source_for(ExportConfig(formats=("seg",)), ct / "a.nii.gz")
    assert source_for(ExportConfig(formats=("nifti",)), ct) is None


def test_in_a_run_what_fails_is_said_and_the_rest_is_written(ct, tmp_path):
    scan = read_scan(ct).volume
    array = np.zeros(scan.grid.shape, np.uint8)
    array[2, 2, 2:4] = 28
    result = Exportable("case", Volume(array, scan.affine), (), scan)
    config = ExportConfig(formats=("nifti", "seg.nrrd", "seg"), scheme="totalsegmentator")
    notes = write_exports_in_run(result, config, source_for(config, ct), tmp_path)
    assert [note.partition(":")[0] for note in notes] == ["could not write nifti", "could not write seg.nrrd"]
    assert "has no id for T13" in notes[0]
    assert [path.name for path in tmp_path.glob("case*")] == ["case_seg.dcm"]


def test_in_a_run_paths_stay_out_of_what_is_said(ct, tmp_path):
    config = ExportConfig(formats=("nifti", "seg"))
    elsewhere = Volume(np.full((4, 4, 4), 20, np.uint8), np.eye(4))
    folder = tmp_path / "missing"
    notes = write_exports_in_run(Exportable("case", elsewhere, (), None), config, source_for(config, ct), folder)
    assert [note[:30].partition(":")[0] for note in notes] == ["could not write nifti", "could not write seg"]
    assert "the DICOM series: this series has" in notes[1]
    assert str(tmp_path) not in " ".join(notes)


def test_a_header_that_cannot_be_carried_on_is_an_error_without_its_values(ct, tmp_path):
    scan = read_scan(ct).volume
    config = ExportConfig(formats=("seg",))
    source = source_for(config, ct)
    source.first.PatientSex = "SECRET"
    result = Exportable("case", labels_on(scan), (), scan)
    with pytest.raises(VertebralError, match=r"a value in its header .* \(ValueError\)") as caught:
        write_exports(result, config, source, tmp_path)
    assert "SECRET" not in str(caught.value)


def test_no_level_gives_no_dicom_but_a_note(ct, tmp_path):
    scan = read_scan(ct).volume
    nothing = Exportable("case", Volume(np.zeros(scan.grid.shape, np.uint8), scan.affine), (), scan)
    config = ExportConfig(formats=("seg", "sr", "nifti"))
    notes = write_exports(nothing, config, source_for(config, ct), tmp_path)
    assert notes == ["the label map contains no vertebra: seg, sr not written"]
    assert [path.name for path in tmp_path.glob("case*")] == ["case_labels-verse.nii.gz"]
