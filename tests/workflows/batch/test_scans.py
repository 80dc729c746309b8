from pathlib import Path

import pytest

from vertebral.core.errors import ConfigError, ReadError
from vertebral.workflows.batch.scans import find_scans, names_of

DICOM = b"\0" * 128 + b"DICM"


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DICOM if name.endswith(".dcm") else b"x")


def test_a_folder_of_all_kinds(tmp_path: Path) -> None:
    put(tmp_path, "b_ct.nii.gz", "a.nrrd", "c.zip", "notes.txt", ".hidden.nii", "b_seg-vert_msk.nii.gz", "b_seg.nii")
    put(tmp_path, "patient/series1/1.dcm", "patient/series1/2.dcm", "patient/series2/1.dcm", "__MACOSX/b_ct.nii.gz")
    put(tmp_path, "out/b/b_ct.nii.gz")
    found = find_scans(tmp_path, tmp_path / "out")
    expected = {"a": "a.nrrd", "b": "b_ct.nii.gz", "c": "c.zip"}
    expected |= {"series1": "patient/series1", "series2": "patient/series2"}
    assert {source.name: source.path for source in found} == {
        name: tmp_path / place for name, place in expected.items()
    }
    assert found == find_scans(tmp_path, tmp_path / "out")


def test_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("all.txt").write_text("# mine\n\nx/b_ct.nii.gz\n  /data/a.nrrd  \nx/b_ct.nii.gz\n", encoding="utf-8")
    found = find_scans(Path("all.txt"), Path("out"))
    assert [(source.name, str(source.path)) for source in found] == [("b", "x/b_ct.nii.gz"), ("a", "/data/a.nrrd")]


def test_what_holds_no_scan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "ct.nii").write_bytes(b"x")
    with pytest.raises(ConfigError, match="empty: contains no CT"):
        find_scans(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ConfigError, match="lists no scan"):
        find_scans(tmp_path / "empty.txt", tmp_path / "out")
    with pytest.raises(ReadError, match="not a readable list"):
        find_scans(tmp_path / "binary.txt", tmp_path / "out")
    for name in ("ct.nii", "none", "none.txt"):
        with pytest.raises(ConfigError, match=r"give a folder of scans, or a \.txt file"):
            find_scans(tmp_path / name, tmp_path / "out")


def test_names_are_told_apart_by_folders() -> None:
    paths = [Path("/d/sub-1/ses-1/ct.nii.gz"), Path("/d/sub-1/ses-2/ct.nii.gz"), Path("/d/other_ct.nii.gz")]
    assert names_of(paths) == ["ses-1_ct", "ses-2_ct", "other"]
    paths.append(Path("/d/sub-2/ses-1/ct.nii.gz"))
    assert names_of(paths) == ["sub-1_ses-1_ct", "ses-2_ct", "other", "sub-2_ses-1_ct"]


def test_names_in_one_folder_are_told_apart_by_their_path() -> None:
    first, second = names_of([Path("/d/a.nii.gz"), Path("/d/a.nrrd")])
    assert first != second and first.startswith("d_a-") and second.startswith("d_a-")
    upper, lower = names_of([Path("/d/A.nii.gz"), Path("/d/a.nii.gz")])
    assert upper.casefold() != lower.casefold()


def test_many_names_are_all_different() -> None:
    paths = [Path(f"/r/{a}/{b}/{c}.nii.gz") for a in "xy" for b in ("x", "x_x") for c in ("x", "x_x", "x_x_x")]
    assert len({name.casefold() for name in names_of(paths)}) == len(paths)
