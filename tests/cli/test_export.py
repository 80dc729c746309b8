"""`vertebral export`, and what `vertebral run` writes for the PACS and sends to it."""

import io
import json
import logging

import numpy as np
import pydicom
import pytest
import torch
from typer.testing import CliRunner

from cli_result import assert_one_line
from dicom_series import Series, labels_on, series_of
from orthanc import PASSWORD, USER, orthanc
from vertebral.cli import app
from vertebral.core.anatomy import parse_levels
from vertebral.core.config import PreprocessConfig
from vertebral.core.records import Evidence
from vertebral.data.patches.network_input import class_of_verse_id
from vertebral.data.phantom import make_phantom
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.write import write_image, write_labels
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.networks import UNetConfig, build_network
from vertebral.models.weights import save_model
from vertebral.stages.preprocess import prepare_labels
from vertebral.workflows import run as workflow
from vertebral.workflows import write_result as writer

LEVELS = ("T12", "L1", "L2")
CONFIG = ModelConfig(
    name="tiny",
    network=UNetConfig(kind="unet", levels=LEVELS, channels=(2, 4), strides=(2,), residual_units=0),
    preprocess=PreprocessConfig(spacing_mm=4.0),
    inference=InferenceConfig(window=(32, 32, 32)),
)
FORMATS = "seg,rtstruct,stl-dicom,sr,seg.nrrd"


def invoke(*words, **environ):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", **environ})


@pytest.fixture
def labelled(tmp_path):
    """A DICOM series, and a label map on its grid."""
    ct = Series().write(tmp_path / "ct")
    write_labels(labels_on(read_scan(ct).volume), tmp_path / "case_seg-vert_msk.nii.gz")
    return ct, tmp_path / "case_seg-vert_msk.nii.gz"


def test_export_lists_its_files(labelled, tmp_path):
    ct, labels = labelled
    result = invoke("export", labels, "--source", ct, "--format", "seg, SR,itksnap", "--out", tmp_path / "out")
    assert result.exit_code == 0
    names = ["case_itksnap.txt", "case_labels-verse.nii.gz", "case_seg.dcm", "case_sr.dcm"]
    assert result.stdout.splitlines() == [
        "Research use only. Not for diagnosis.",
        *(str(tmp_path / "out" / name) for name in names),
    ]
    words = ["--format", "bids", "--json", "--out", tmp_path / "other"]
    document = json.loads(invoke("export", labels, *words).stdout)
    assert document["files"] == ["sub-case_desc-vertebrae_dseg.nii.gz", "sub-case_desc-vertebrae_dseg.tsv"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--format", "seg,abc"], ["formats.1", "'abc'", "'rtstruct'"]),
        (["--format", "seg"], ["--format seg: needs the DICOM series", "--source"]),
        (["--format", "nifti", "--scheme", "abc"], ["unknown scheme 'abc'", "totalsegmentator"]),
        (["--format", "seg", "--store"], ["--store: the CT is not on a PACS", "dicomwebs://"]),
        (["--format", "seg", "--source", "dicomweb://host/studies/1.2"], ["not the address of a series"]),
    ],
)
def test_export_refuses_in_one_line(labelled, tmp_path, words, parts):
    assert_one_line(invoke("export", labelled[1], "--out", tmp_path / "out", "-q", *words), *parts)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def phantom(monkeypatch):
    """A phantom whose vertebrae the network finds without fault."""
    made = make_phantom(parse_levels("T12,L1,L2"), 4.0)

    def infer(prepared, *_, **__):
        truth = prepare_labels(made.labels.reoriented("RAS"), prepared.config.spacing_mm)
        classes = class_of_verse_id(LEVELS).numpy()
        first = classes[truth.array]
        rest = np.zeros_like(first)
        return Evidence(first, rest, np.full_like(first, 255), rest, parse_levels("T12,L1,L2"), prepared.volume.grid)

    monkeypatch.setattr(workflow, "infer", infer)
    monkeypatch.setattr(writer, "preview", lambda *args: args[3].write_bytes(b"picture"))
    return made


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path / "tiny", CONFIG, build_network(CONFIG.network).state_dict(), {"licence": "CC0-1.0"})
    return tmp_path / "tiny"


def test_run_writes_the_formats(phantom, model, tmp_path):
    series = series_of(phantom.ct)
    ct, out = series.write(tmp_path / "case"), tmp_path / "out"
    result = invoke("run", ct, "--out", out, "--model", model, "--format", FORMATS, "--json")
    assert result.exit_code == 0, result.stderr
    manifest = json.loads(result.stdout)
    listed = {row["file"] for row in manifest["outputs"]}
    wanted = {"case_seg.dcm", "case_rtstruct.dcm", "case_sr.dcm", "case.seg.nrrd"}
    assert wanted | {f"case_{level}_stl.dcm" for level in LEVELS} <= listed
    assert manifest["seconds"]["export"] > 0
    seg = pydicom.dcmread(out / "case_seg.dcm")
    assert seg.StudyInstanceUID == series.study
    labels = read_labels(out / "case_seg-vert_msk.nii.gz").array
    assert np.unpackbits(np.frombuffer(seg.PixelData, np.uint8)).sum() == np.count_nonzero(labels)


def test_run_refuses_dicom_formats_for_other_images_at_once(model, phantom, tmp_path):
    write_image(phantom.ct, tmp_path / "a_ct.nii.gz")
    words = ["run", tmp_path / "a_ct.nii.gz", "--out", tmp_path / "out", "--model", model, "--format", "seg", "-q"]
    assert_one_line(invoke(*words), "a_ct.nii.gz: not DICOM", "omit the DICOM formats")
    assert not (tmp_path / "out").exists()


def test_run_leaves_foreign_exports_alone(model, phantom, tmp_path):
    ct, out = series_of(phantom.ct).write(tmp_path / "case"), tmp_path / "out"
    out.mkdir()
    (out / "case_seg.dcm").write_text("mine")
    words = ["run", ct, "--out", out, "--model", model, "--format", "seg", "-q"]
    assert_one_line(invoke(*words), "case_seg.dcm: already exists")
    assert (out / "case_seg.dcm").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["a.nii", "--store", "--format", "seg"], ["--store: the CT is not on a PACS"]),
        (["dicomweb://h/studies/1/series/2", "--store"], ["--store: nothing to send", "seg, rtstruct"]),
        (["dicomweb://u:secret@h/studies/1/series/2"], ["VERTEBRAL_PACS_PASSWORD"]),
        (["dicomweb://h/studies/1"], ["not the address of a series"]),
        (["dicomweb://127.0.0.1:9/studies/1/series/2"], ["cannot be reached"]),
    ],
)
def test_run_refuses_bad_addresses(tmp_path, words, parts):
    result = invoke("run", *words, "--out", tmp_path / "out", "-q")
    assert_one_line(result, *parts)
    assert "secret" not in result.stderr


def test_from_the_pacs_and_back(phantom, model, tmp_path, caplog, monkeypatch):
    """Fetch a series from a real Orthanc, run, store the results there, and fetch them."""
    series = series_of(phantom.ct)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "orthanc").mkdir()
    with orthanc(tmp_path / "orthanc") as server, caplog.at_level(logging.DEBUG):
        server.upload(series.write(tmp_path / "scan"))
        address, out = server.address(series.study, series.series), tmp_path / "out"
        words = ["run", address, "--out", out, "--model", model, "--format", FORMATS, "--store"]
        access = {"VERTEBRAL_PACS_USER": USER, "VERTEBRAL_PACS_PASSWORD": PASSWORD}
        result = invoke(*words, **access)
        assert result.exit_code == 0, result.stderr
        assert server.modalities() == ["CT", "M3D", "RTSTRUCT", "SEG", "SR"]
        (content,) = server.files("SEG")
        again = ["export", out, "--source", address, "--out", tmp_path / "again", "--store", "-q"]
        assert invoke(*again, **access).exit_code == 0
        assert server.modalities().count("SEG") == 2
    assert "fetch" in result.stderr and "store" in result.stderr
    (written,) = out.glob("ct_*_seg.dcm")
    assert pydicom.dcmread(io.BytesIO(content)).PixelData == pydicom.dcmread(written).PixelData
    assert list(tmp_path.glob("vertebral-*")) == []  # the fetched series is gone
    told = result.stdout + result.stderr + (out / "manifest.json").read_text()
    for secret in (PASSWORD, series.series, "Müller"):
        assert secret not in told
    for secret in (PASSWORD, "Müller"):
        assert secret not in caplog.text
