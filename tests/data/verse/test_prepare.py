"""Scans of a few voxels, prepared, found again and left out."""

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vertebral.core.anatomy import BY_NAME
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ConfigError, InputError
from vertebral.core.volume import Volume
from vertebral.data.verse import prepare
from vertebral.data.verse.catalogue import Catalogue
from vertebral.data.verse.index import index_dataset
from vertebral.data.verse.prepare import draw_bone, prepare_dataset
from vertebral.data.verse.prepared_set import PreparedSet, open_prepared
from vertebral.data.verse.split import Fold, Split, make_split
from vertebral.io.write import write_image, write_labels

L1, L2, T12, T13, SACRUM = (BY_NAME[name].verse_id for name in ("L1", "L2", "T12", "T13", "sacrum"))
SHAPE = (6, 5, 8)
MM = PreprocessConfig(spacing_mm=1.0)
CASES = tuple(f"sub-verse00{n}" for n in range(3))


def scan_of(number: int) -> tuple[Volume, Volume]:
    """A cube of L1 of 200 HU in fat below air, 1 mm; one voxel has the scan's own value."""
    hu, labels = np.full(SHAPE, -90, np.int16), np.zeros(SHAPE, np.uint8)
    hu[:, :, 6:] = -1000
    hu[2:4, 1:3, 2:5], labels[2:4, 1:3, 2:5] = 200, L1
    hu[0, 0, 0] = 10 + number
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -5, 7, 30
    return Volume(hu, affine), Volume(labels, affine)


def write_case(root: Path, case: str, ct: Volume, labels: Volume) -> None:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    write_image(ct, root / "images" / f"{case}.nii.gz")
    write_labels(labels, root / "labels" / f"{case}.nii.gz")


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    for number, case in enumerate(CASES):
        write_case(tmp_path / "data", case, *scan_of(number))
    return index_dataset(tmp_path / "data", tmp_path / "data" / "catalog.json", jobs=1)


def prepared(catalogue: Catalogue, preprocess: PreprocessConfig = MM, **options: Any) -> PreparedSet:
    split = make_split(catalogue, validation=0.3)
    return prepare_dataset(catalogue, split, preprocess, catalogue.root.parent / "out", **{"jobs": 1, **options})


def times(made: PreparedSet) -> dict[str, int]:
    return {scan.case: (scan.folder / "case.json").stat().st_mtime_ns for scan in made.cases}


def only(root: Path, ct: Volume, labels: Volume, preprocess: PreprocessConfig) -> PreparedSet:
    """Prepare one scan; a second one is there for the split."""
    write_case(root / "data", "sub-a", ct, labels)
    write_case(root / "data", "sub-b", *scan_of(0))
    catalogue = index_dataset(root / "data", root / "data" / "catalog.json", jobs=1)
    split = Split(
        mode="random",
        seed=0,
        catalog_sha256=catalogue.sha256,
        folds=(Fold(train=("sub-a",), validation=()),),
        test=("sub-b",),
    )
    return prepare_dataset(catalogue, split, preprocess, root / "out", jobs=1)


def test_hu_are_clipped_to_the_window_and_kept_as_whole_numbers(catalogue: Catalogue) -> None:
    scan = prepared(catalogue, PreprocessConfig(window_hu=(-80, 150))).scans[CASES[2]]
    assert scan.ct.dtype == np.int16 and scan.labels.dtype == np.uint8 and scan.bone.dtype == np.int32
    expected = np.full(SHAPE, -80)
    expected[2:4, 1:3, 2:5] = 150
    expected[0, 0, 0] = 12
    assert np.array_equal(scan.ct, expected)
    assert np.array_equal(scan.labels, scan_of(2)[1].array)
    assert np.array_equal(scan.affine, scan_of(2)[0].affine)
    assert (scan.case, scan.subject, scan.shape, scan.spacing_mm) == (CASES[2], CASES[2], SHAPE, 1.0)
    assert scan.levels == ("L1",)


def test_scaling_is_left_to_the_patch(catalogue: Catalogue) -> None:
    scan = prepared(catalogue, PreprocessConfig(scaling="zscore", mean_hu=100, std_hu=50)).scans[CASES[0]]
    assert set(np.unique(scan.ct)) == {-100, -90, 10, 200}


def test_axes_become_r_a_s_and_voxels_cubes(tmp_path: Path) -> None:
    """Stored as LPS with slices 2 mm apart: 8 of them become 15, and the first voxel is the last one of both axes."""
    ct, labels = scan_of(0)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    ct, labels = (Volume(v.array, affine).reoriented("LPS") for v in (ct, labels))
    (scan,) = only(tmp_path, ct, labels, MM).cases
    assert scan.shape == (6, 5, 15)
    assert scan.ct[0, 0, 0] == 10 and scan.ct.max() >= 200
    assert np.array_equal(scan.affine, np.eye(4))
    # L1 had slices 2, 3 and 4, so slices 4, 6 and 8 are its own; of two equally near, the upper one counts.
    assert np.flatnonzero(scan.labels[2, 1] == L1).tolist() == [3, 4, 5, 6, 7, 8]


def test_bone_lies_in_vertebrae(catalogue: Catalogue) -> None:
    scan = prepared(catalogue).scans[CASES[0]]
    assert sorted(map(tuple, scan.bone.tolist())) == sorted(map(tuple, np.argwhere(scan.labels == L1).tolist()))


def test_bone_is_drawn_evenly_over_levels_from_head_to_tail() -> None:
    """Of 20,000 voxels each of four levels may give 5,000; one of them has 300 only, and the sacrum is none."""
    labels = np.zeros((40, 40, 60), np.uint8)
    for place, level in enumerate((L2, L1, T13, T12, SACRUM)):
        labels[:, :, 10 * place : 10 * place + 8] = level
    labels[labels == T13] = 0
    labels[:10, :5, 22:28] = T13
    bone, levels = draw_bone(labels)
    assert levels == ("T12", "T13", "L1", "L2")
    ids = labels[tuple(bone.T)].tolist()
    assert ids == [T12] * 5000 + [T13] * 300 + [L1] * 5000 + [L2] * 5000
    assert len(np.unique(bone, axis=0)) == len(bone)
    assert np.array_equal(draw_bone(labels)[0], bone)


def test_a_map_without_vertebrae_has_no_bone() -> None:
    bone, levels = draw_bone(np.full((3, 3, 3), SACRUM, np.uint8))
    assert bone.shape == (0, 3) and levels == ()


def test_a_second_run_keeps_what_is_done(catalogue: Catalogue) -> None:
    first = prepared(catalogue)
    seen: list[tuple[int, int, str]] = []
    again = prepared(catalogue, progress=lambda *said: seen.append(said))
    assert seen == [(3, 3, "")]
    assert times(again) == times(first) and again == first


def test_progress_counts_scans(catalogue: Catalogue) -> None:
    seen: list[tuple[int, int, str]] = []
    prepared(catalogue, progress=lambda *said: seen.append(said))
    assert seen == [(0, 3, ""), *((n, 3, case) for n, case in enumerate(CASES, start=1))]


def test_a_folder_that_was_not_finished_is_made_again(catalogue: Catalogue) -> None:
    first = prepared(catalogue)
    before, half = times(first), first.scans[CASES[1]].folder
    expected = np.array(first.scans[CASES[1]].ct)
    (half / "case.json").unlink()
    (half / "ct.npy").write_bytes(b"half")
    (half / ".vertebral-123.npy").write_bytes(b"rest of a killed process")
    with pytest.raises(ConfigError, match=f"{half}: is missing or incomplete"):
        open_prepared(first.root)
    after = prepared(catalogue)
    assert {case for case, time in times(after).items() if time != before[case]} == {CASES[1]}
    assert np.array_equal(after.scans[CASES[1]].ct, expected)
    assert sorted(path.name for path in half.iterdir()) == ["bone.npy", "case.json", "ct.npy", "labels.npy"]


def test_a_damaged_record_is_made_again(catalogue: Catalogue) -> None:
    record = prepared(catalogue).scans[CASES[0]].folder / "case.json"
    record.write_text("[1")
    prepared(catalogue)
    assert json.loads(record.read_text())["case"] == CASES[0]


@pytest.mark.parametrize("change", [{"window_hu": (-100.0, 900.0)}, {"spacing_mm": 1.25}])
def test_other_settings_are_prepared_beside(catalogue: Catalogue, change: dict[str, Any]) -> None:
    first = prepared(catalogue)
    other = prepared(catalogue, MM.model_copy(update=change))
    assert not {scan.folder for scan in first.cases} & {scan.folder for scan in other.cases}
    assert other.unused == sorted(scan.folder for scan in first.cases)
    other.check(MM.model_copy(update=change))
    with pytest.raises(ConfigError, match=next(iter(change))):
        other.check(MM)


def test_what_is_applied_to_a_patch_needs_no_other_scans(catalogue: Catalogue) -> None:
    first = prepared(catalogue)
    assert first.unused == []
    scaled = PreprocessConfig(scaling="zscore", mean_hu=3, std_hu=4)
    first.check(scaled)
    assert times(prepared(catalogue, scaled)) == times(first)


def test_another_content_is_another_folder(catalogue: Catalogue) -> None:
    before = prepared(catalogue).scans[CASES[0]]
    write_case(catalogue.root, CASES[0], *scan_of(7))
    renewed = index_dataset(catalogue.root, catalogue.root / "catalog.json", jobs=1, overwrite=True)
    after = prepared(renewed).scans[CASES[0]]
    assert after.folder != before.folder and after.ct[0, 0, 0] == 17


def broken(catalogue: Catalogue, break_it: Callable[[Path, Path], None]) -> str:
    """What is said of the second scan after `break_it(ct, labels)`; its catalogue is that of before."""
    case = catalogue.cases[1]
    break_it(catalogue.path(case.ct), catalogue.path(case.labels or ""))
    made = prepared(catalogue)
    assert set(made.scans) == {CASES[0], CASES[2]} and list(made.left_out) == [CASES[1]]
    assert open_prepared(made.root) == made
    train, validation = made.fold(0)
    assert {scan.case for scan in (*train, *validation)} == {CASES[0], CASES[2]}
    return made.left_out[CASES[1]]


def test_a_file_that_changed_is_left_out(catalogue: Catalogue) -> None:
    said = broken(catalogue, lambda ct, labels: ct.write_bytes(b"no longer a scan"))
    assert said.endswith(
        f"images/{CASES[1]}.nii.gz: has changed since the catalogue was made: run vertebral data index again"
    )


def test_a_missing_file_is_left_out(catalogue: Catalogue) -> None:
    assert "No such file" in broken(catalogue, lambda ct, labels: labels.unlink())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (Volume(np.full((6, 5, 9), L1, np.uint8), scan_of(0)[1].affine), "its grid differs from that of"),
        (Volume(np.full(SHAPE, SACRUM, np.uint8), scan_of(0)[1].affine), "contains no vertebra"),
    ],
)
def test_labels_that_do_not_fit_are_left_out(tmp_path: Path, labels: Volume, said: str) -> None:
    """Also where the catalogue says nothing of it."""
    write_case(tmp_path / "data", CASES[0], *scan_of(0))
    write_case(tmp_path / "data", CASES[1], scan_of(1)[0], labels)
    write_case(tmp_path / "data", CASES[2], *scan_of(2))
    found = index_dataset(tmp_path / "data", tmp_path / "data" / "catalog.json", jobs=1)
    trusting = found.model_copy(
        update={"cases": tuple(case.model_copy(update={"problems": ()}) for case in found.cases)}
    )
    assert said in broken(trusting, lambda ct, labels: None)


def test_an_error_that_nobody_expected_leaves_one_scan_out(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("two\nlines")

    prepared(catalogue)
    shutil.rmtree(prepared(catalogue).scans[CASES[1]].folder)
    monkeypatch.setattr(prepare, "prepare", fail)
    assert broken(catalogue, lambda ct, labels: None) == "RuntimeError: two lines"


def test_a_scan_that_was_left_out_gets_another_chance(catalogue: Catalogue) -> None:
    kept = catalogue.path(catalogue.cases[1].ct).read_bytes()
    broken(catalogue, lambda ct, labels: ct.write_bytes(b""))
    catalogue.path(catalogue.cases[1].ct).write_bytes(kept)
    assert prepared(catalogue).left_out == {}


def test_where_nothing_can_be_prepared_it_is_an_error(catalogue: Catalogue) -> None:
    for case in catalogue.cases:
        catalogue.path(case.ct).unlink()
    with pytest.raises(InputError, match=f"none of 3 scans could be prepared; {CASES[0]}: .*No such file"):
        prepared(catalogue)


def test_a_disk_too_small_is_told_before(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three scans of 6 x 5 x 8 voxels at 3 bytes: 2,160 bytes."""
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 2159))
    with pytest.raises(InputError, match=r"needs about 2.16e-06 GB, but only 2.16e-06 GB are free"):
        prepared(catalogue)


def test_a_disk_that_fills_up_ends_the_work(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([2160, 2160, 10])
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, next(free)))
    with pytest.raises(OSError) as raised:
        prepared(catalogue)
    assert raised.value.errno == errno.ENOSPC and CASES[1] in raised.value.filename


def test_several_at_a_time_give_the_same(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is broken; threads of the processes are limited, and this process's setting stays."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    catalogue.path(catalogue.cases[2].ct).write_bytes(b"")
    alone = prepared(catalogue)
    expected = {case: np.array(scan.ct) for case, scan in alone.scans.items()}
    shutil.rmtree(alone.root)
    together = prepared(catalogue, jobs=2)
    assert together == alone and list(together.left_out) == [CASES[2]]
    for case, hu in expected.items():
        assert np.array_equal(together.scans[case].ct, hu)
    assert os.environ["OMP_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ


def test_a_split_of_another_catalogue_is_refused(catalogue: Catalogue) -> None:
    split = make_split(catalogue).model_copy(update={"catalog_sha256": "0"})
    with pytest.raises(ConfigError, match="another catalogue"):
        prepare_dataset(catalogue, split, MM, catalogue.root.parent / "out", jobs=1)


def test_only_what_a_fold_names_is_prepared(tmp_path: Path) -> None:
    made = only(tmp_path, *scan_of(5), MM)
    assert list(made.scans) == ["sub-a"] and made.left_out == {}
    assert [[scan.case for scan in side] for side in made.fold(0)] == [["sub-a"], []]


def test_a_fold_that_is_not_there_is_refused(catalogue: Catalogue) -> None:
    made = prepared(catalogue)
    train, validation = made.fold(0)
    assert sorted(scan.case for scan in (*train, *validation)) == list(CASES) and len(validation) == 1
    for number in (1, -1):
        with pytest.raises(ConfigError, match=f"fold {number}: its split has folds 0 to 0"):
            made.fold(number)


def test_a_scan_is_sent_to_another_process_by_its_path(catalogue: Catalogue) -> None:
    scan = prepared(catalogue).scans[CASES[0]]
    scan.ct[0, 0, 0]
    sent = pickle.dumps(scan)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent).ct, scan.ct)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted as Linux shows them")
def test_a_scan_keeps_no_file_open_and_cannot_be_changed(catalogue: Catalogue) -> None:
    scan = prepared(catalogue).scans[CASES[0]]
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(50):
        scan.labels.sum()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    with pytest.raises(ValueError, match="read-only"):
        scan.ct[0, 0, 0] = 1


def test_prepared_scans_can_move(catalogue: Catalogue, tmp_path: Path) -> None:
    made = prepared(catalogue)
    expected = np.array(made.scans[CASES[0]].ct)
    moved = open_prepared(made.root.rename(tmp_path / "elsewhere"))
    assert np.array_equal(moved.scans[CASES[0]].ct, expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("{", "not a list of prepared scans"),
        ("[]", "not a list of prepared scans"),
        ('{"version": 2}', "version"),
    ],
)
def test_another_folder_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "prepared.json").write_text(text)
    with pytest.raises(ConfigError, match=f"prepared.json: .*{said}.*data prepare"):
        open_prepared(tmp_path)
