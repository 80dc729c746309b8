import json
from pathlib import Path

import pytest

from blocks import save_blocks
from vertebral.core.errors import ConfigError, InputError
from vertebral.evaluation.case import RunRecord
from vertebral.evaluation.pairing import find_cases, read_run
from vertebral.io.names import case_of, subject_of


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("a.nii.gz", "a"),
        ("a_ct.nii.gz", "a"),
        ("sub-1_split-2_seg-vert_msk.nii.gz", "sub-1_split-2"),
        ("a_seg.NRRD", "a"),
        ("a.b_msk.mha", "a.b"),
        ("no_suffix", "no_suffix"),
    ],
)
def test_the_case_that_a_name_tells(name: str, case: str) -> None:
    assert case_of(Path(name)) == case


def test_the_subject() -> None:
    assert (subject_of("sub-a1_x"), subject_of("scan7")) == ("sub-a1", "scan7")
    assert subject_of("p12_s3", r"p(\d+)") == "12"
    with pytest.raises(ConfigError, match="no match in"):
        subject_of("a", "b")
    with pytest.raises(ConfigError, match="not a valid regular expression"):
        subject_of("a", "(")


def test_folders_of_any_shape(tmp_path: Path) -> None:
    """Predictions in a folder each, as `vertebral run` leaves them; references and CTs as VerSe has them."""
    for case in ("sub-1_a", "sub-1_b", "sub-9"):
        touch(tmp_path / "pred" / case / f"{case}_seg-vert_msk.nii.gz")
        touch(tmp_path / "pred" / case / f"{case}_other.nii.gz")
    touch(tmp_path / "pred" / ".partial-1" / "sub-1_a_seg-vert_msk.nii.gz")
    for case in ("sub-1_a", "sub-1_b", "sub-2"):
        touch(tmp_path / "ref" / "derivatives" / "sub" / f"{case}_seg-vert_msk.nii.gz")
        touch(tmp_path / "ref" / "rawdata" / "sub" / f"{case}_ct.nii.gz")
    cases, spare = find_cases(tmp_path / "pred", tmp_path / "ref")
    assert [(row.case, row.subject) for row in cases] == [
        ("sub-1_a", "sub-1"),
        ("sub-1_b", "sub-1"),
        ("sub-2", "sub-2"),
    ]
    assert [row.prediction is None for row in cases] == [False, False, True]
    assert all(row.ct is not None and row.ct.name == f"{row.case}_ct.nii.gz" for row in cases)
    assert "sub-9_seg-vert_msk.nii.gz" in {path.name for path in spare}
    assert find_cases(tmp_path / "pred", tmp_path / "ref", subject=r"_(\w)|2")[0][0].subject == "a"


def test_ct_and_labels_in_one_folder_or_elsewhere(tmp_path: Path) -> None:
    for name in ("a_ct.nii.gz", "a_seg-vert_msk.nii.gz"):
        touch(tmp_path / "ref" / name)
    touch(tmp_path / "imagesTr" / "a_0000.nii.gz")
    (case,), _ = find_cases(tmp_path / "ref", tmp_path / "ref")
    assert case.ct == tmp_path / "ref" / "a_ct.nii.gz"
    (case,), _ = find_cases(tmp_path / "ref", tmp_path / "ref", tmp_path)
    assert case.ct is not None
    (case,), _ = find_cases(
        tmp_path / "ref" / "a_seg-vert_msk.nii.gz", tmp_path / "ref" / "a_seg-vert_msk.nii.gz", tmp_path / "x.nii.gz"
    )
    assert case.ct is None  # a CT that is not there is no reason to stop: pictures do without


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    one, other = touch(tmp_path / "mine.nii.gz"), touch(tmp_path / "truth.nrrd")
    (case,), spare = find_cases(one, other)
    assert (case.case, case.prediction, case.reference, spare) == ("truth", one, other, [])


def test_what_cannot_be_paired(tmp_path: Path) -> None:
    reference = touch(tmp_path / "ref" / "a.nii.gz")
    with pytest.raises(InputError, match=r"none: no such file or folder"):
        find_cases(tmp_path / "none", reference.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: contains no label maps"):
        find_cases(tmp_path / "empty", reference.parent)
    for folder in ("x", "y"):
        touch(tmp_path / "pred" / folder / "a.nii.gz")
    with pytest.raises(InputError, match="2 label maps belong to case a"):
        find_cases(tmp_path / "pred", reference.parent)


def test_what_a_manifest_tells(tmp_path: Path) -> None:
    path = save_blocks(tmp_path / "a_seg-vert_msk.nii.gz", L1=(3, 6))
    assert read_run(path) == RunRecord()
    manifest = {
        "outputs": [{"file": path.name}],
        "model": {"name": "m"},
        "seconds": {"read": 1.0, "infer": 2.5},
        "peak_memory_gb": 1.2,
        "levels": [{"level": "L1", "confidence": 0.75}, {"level": "L2", "confidence": None}],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert read_run(path) == RunRecord("m", 3.5, 1.2, (("L1", 0.75),))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"outputs": []}))
    assert read_run(path) == RunRecord()
    for text in ("{", "[]", '{"outputs": 3}'):
        (tmp_path / "manifest.json").write_text(text)
        assert read_run(path) == RunRecord()
