"""Layouts, what is found wrong in them, and the catalogue's file; the images are a few voxels."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vertebral.core.errors import ConfigError, OutputExistsError, ReadError, VertebralError
from vertebral.core.volume import Volume
from vertebral.data.verse import index as index_module
from vertebral.data.verse.catalogue import Catalogue, CatalogueCase, load_catalogue, summary, write_catalogue
from vertebral.data.verse.index import index_dataset
from vertebral.data.verse.layouts import find_scans
from vertebral.io.ct.read import read_geometry
from vertebral.io.write import write_centroids, write_image, write_labels

T11, T12, L1, L2 = 18, 19, 20, 21
SPINE_OF_ANY_LEVEL = 100


def ct(shape: tuple[int, int, int] = (6, 7, 8), fill: int = 0) -> Volume:
    return Volume(np.full(shape, fill, np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))


def mask(ids: Sequence[int] = (L1,), shape: tuple[int, int, int] = (6, 7, 8), border: int | None = None) -> Volume:
    array = np.zeros(shape, np.uint8)
    array.flat[np.ravel_multi_index((2, 3, 1), shape)] = 0
    for place, value in enumerate(ids):
        array[1 + place, 3, 4] = value
    if border is not None:
        array[3, 3, -1] = border
    return Volume(array, np.diag([1.0, 2.0, 3.0, 1.0]))


def put(folder: Path, name: str, volume: Volume) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write = write_labels if volume.array.dtype == np.uint8 else write_image
    write(volume, folder / name)
    return folder / name


def verse(root: Path, stem: str = "sub-verse004", dataset: str = "dataset-01training", fill: int = 0) -> Path:
    """A CT and a mask of T12 and L1 with their centroids; returns the folder of the data set."""
    subject = stem.split("_")[0]
    put(root / dataset / "rawdata" / subject, f"{stem}_ct.nii.gz", ct(fill=fill))
    put(root / dataset / "derivatives" / subject, f"{stem}_seg-vert_msk.nii.gz", mask([T12, L1]))
    centroids(root / dataset / "derivatives" / subject / f"{stem}_seg-subreg_ctd.json", [T12, L1])
    return root / dataset


def centroids(path: Path, ids: Sequence[int], at_mm: tuple[float, float, float] = (2, 6, 12)) -> None:
    write_centroids([(value, at_mm) for value in ids], ct().grid, path)


def index(root: Path, **options: Any) -> Catalogue:
    return index_dataset(root, root / "catalog.json", jobs=1, overwrite=True, **options)


def only(root: Path) -> CatalogueCase:
    (case,) = index(root).cases
    return case


def test_verse_2020(verse_root: Path, tmp_path: Path) -> None:
    catalogue = index_dataset(verse_root, tmp_path / "catalog.json", jobs=1)
    assert [case.case for case in catalogue.cases[:5]] == [
        "sub-gl004_dir-iso",
        "sub-verse501_split-verse201",
        "sub-verse501_split-verse251",
        "sub-verse502_dir-ax",
        "sub-verse503_dir-sag",
    ]
    assert len(catalogue.cases) == len(catalogue.usable) == 11
    assert catalogue.unmatched == ()
    assert [case.warnings for case in catalogue.cases if case.warnings] == []
    sagittal = catalogue.cases[4]
    assert (sagittal.subject, sagittal.dataset, sagittal.subset) == ("sub-verse503", "dataset-01training", "training")
    stem = "sub-verse503/sub-verse503_dir-sag"
    assert sagittal.ct == f"dataset-01training/rawdata/{stem}_ct.nii.gz"
    assert sagittal.labels == f"dataset-01training/derivatives/{stem}_seg-vert_msk.nii.gz"
    assert sagittal.centroids == f"dataset-01training/derivatives/{stem}_seg-subreg_ctd.json"
    assert (sagittal.orientation, sagittal.spacing_mm) == ("PIR", (4, 4, 4))
    assert sagittal.levels == ("T11", "T12", "L1", "L2", "L3")
    assert sagittal.cut == ()
    lower = catalogue.cases[1]
    assert lower.levels[-1] == "L3" and lower.cut[0] == lower.levels[0]
    assert {case.subset for case in catalogue.cases} == {"training", "validation", "test"}
    assert catalogue.path(sagittal.ct).is_file()


def test_verse_2019_beside_2020(make_verse: Callable[..., Path], tmp_path: Path) -> None:
    make_verse(tmp_path / "deeper" / "dataset-verse19validation", 2, 2019, subset="validation", levels="L1-L2")
    verse(tmp_path)
    cases = index(tmp_path).cases
    assert [(case.case, case.dataset, case.subset) for case in cases] == [
        ("sub-verse004", "dataset-01training", "training"),
        ("sub-verse431_split-verse201", "dataset-verse19validation", "validation"),
        ("sub-verse431_split-verse251", "dataset-verse19validation", "validation"),
        ("sub-verse432", "dataset-verse19validation", "validation"),
    ]
    assert all(case.usable and str(case.centroids).endswith("_ctd.json") for case in cases)
    assert str(cases[3].centroids).endswith("sub-verse432_seg-vb_ctd.json")


def test_a_dataset_itself_may_be_given(tmp_path: Path) -> None:
    case = only(verse(tmp_path, dataset="dataset-03test"))
    assert (case.dataset, case.subset, case.ct) == (
        "dataset-03test",
        "test",
        "rawdata/sub-verse004/sub-verse004_ct.nii.gz",
    )


def test_plain_folders(tmp_path: Path) -> None:
    names = {"a_ct": "a_seg-vert_msk", "b": "b_msk", "c": "c_ct_seg", "d_ct": "d", "sub-7_x": "sub-7_x"}
    for value, (image, label) in enumerate(names.items()):
        put(tmp_path / "own" / "images", f"{image}.nii.gz", ct(fill=value))
        put(tmp_path / "own" / "labels", f"{label}.nii", mask())
    centroids(tmp_path / "own" / "labels" / "a_ctd.json", [L1])
    catalogue = index(tmp_path)
    assert [(case.case, case.subject) for case in catalogue.usable] == [
        ("a", "a"),
        ("b", "b"),
        ("c", "c"),
        ("d", "d"),
        ("sub-7_x", "sub-7"),
    ]
    assert {(case.dataset, case.subset) for case in catalogue.cases} == {("own", None)}
    assert catalogue.cases[0].centroids == "own/labels/a_ctd.json"
    assert [case.warnings for case in catalogue.cases] == [()] * 5


def test_nnunet(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset101_Spine"
    for place, kind in enumerate(("Tr", "Ts")):
        put(folder / f"images{kind}", f"case_{place}_0000.nii.gz", ct(fill=place))
        put(folder / f"images{kind}", f"case_{place}_0001.nii.gz", ct(fill=place))
        put(folder / f"labels{kind}", f"case_{place}.nii.gz", mask())
    catalogue = index(tmp_path)
    assert [(case.case, case.subset, case.dataset) for case in catalogue.usable] == [
        ("case_0", "training", "Dataset101_Spine"),
        ("case_1", "test", "Dataset101_Spine"),
    ]
    assert catalogue.unmatched == (
        "Dataset101_Spine/imagesTr/case_0_0001.nii.gz",
        "Dataset101_Spine/imagesTs/case_1_0001.nii.gz",
    )


@pytest.mark.parametrize(
    ("folder", "subset"),
    [
        ("train", "training"),
        ("01_training", "training"),
        ("dataset-verse19training_1mmiso", "training"),
        ("my-val-set", "validation"),
        ("Valid", "validation"),
        ("testing", "test"),
        ("latest", None),
        ("interval", None),
        ("test/training", "training"),
    ],
)
def test_subset_of_folder_names(tmp_path: Path, folder: str, subset: str | None) -> None:
    root = tmp_path / "data"
    put(root / folder / "images", "a.nii.gz", ct())
    assert find_scans(root)[0][0].subset == subset
    assert find_scans(root / folder)[0][0].subset == subset


def test_the_name_of_what_holds_data_sets_is_no_subset(tmp_path: Path) -> None:
    put(tmp_path / "test" / "own" / "images", "a.nii.gz", ct())
    assert find_scans(tmp_path / "test")[0][0].subset is None
    assert find_scans(tmp_path)[0][0].subset == "test"


def test_hidden_folders_and_strangers_are_passed_over(tmp_path: Path) -> None:
    verse(tmp_path)
    shutil.copytree(tmp_path / "dataset-01training", tmp_path / ".dataset.unpacking")
    shutil.copytree(tmp_path / "dataset-01training", tmp_path / "__MACOSX")
    put(tmp_path / "elsewhere", "x.nii.gz", ct())
    put(tmp_path / "images", "._a.nii.gz", ct())
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "notes.json").write_text("{}")
    catalogue = index(tmp_path)
    assert [case.case for case in catalogue.cases] == ["sub-verse004"]
    assert catalogue.unmatched == ("elsewhere/x.nii.gz",)


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    dataset = verse(tmp_path / "store")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset-02validation").symlink_to(dataset)
    assert only(tmp_path / "data").subset == "validation"


def test_the_subject_can_be_told_by_a_pattern(tmp_path: Path) -> None:
    for value, name in enumerate(("p1_ct1", "p1_ct2", "p2_ct1")):
        put(tmp_path / "images", f"{name}.nii.gz", ct(fill=value))
        put(tmp_path / "labels", f"{name}.nii.gz", mask())
    assert [case.subject for case in index(tmp_path).cases] == ["p1_ct1", "p1_ct2", "p2_ct1"]
    assert [case.subject for case in index(tmp_path, subject=r"^(p\d+)_").cases] == ["p1", "p1", "p2"]
    assert [case.subject for case in index(tmp_path, subject="p.").cases] == ["p1", "p1", "p2"]
    with pytest.raises(ConfigError, match=r"--subject '\('.*not a valid regular expression"):
        index(tmp_path, subject="(")
    with pytest.raises(ConfigError, match="no match in 'p2_ct1'"):
        index(tmp_path, subject="p1")


def test_levels_and_cut_ones_are_in_order(tmp_path: Path) -> None:
    put(tmp_path / "images", "a.nii.gz", ct())
    put(tmp_path / "labels", "a.nii.gz", mask([28, L1, T12, 26], border=26))
    case = only(tmp_path)
    assert (case.levels, case.cut, case.usable) == (("T12", "T13", "L1", "sacrum"), ("sacrum",), True)
    assert (case.shape, case.spacing_mm, case.orientation) == ((6, 7, 8), (1, 2, 3), "RAS")


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (None, "no label map was found"),
        (mask([]), "the label map is empty"),
        (mask([L1, 29, SPINE_OF_ANY_LEVEL]), "unknown ids in the label map: 29, 100"),
        (mask(shape=(6, 7, 9)), "the label map has 6 x 7 x 9 voxels, the CT 6 x 7 x 8"),
        (
            Volume(mask().array, np.diag([1.0, 2.0, 3.5, 1.0])),
            "the affines of label map and CT differ: a corner is off by 3.50 mm",
        ),
    ],
)
def test_problems(tmp_path: Path, labels: Volume | None, problem: str) -> None:
    put(tmp_path / "images", "a.nii.gz", ct())
    if labels is not None:
        put(tmp_path / "labels", "a.nii.gz", labels)
    case = only(tmp_path)
    assert case.problems == (problem,)
    assert index(tmp_path).usable == ()


def test_unreadable_files_are_problems_without_this_machines_paths(tmp_path: Path) -> None:
    put(tmp_path / "images", "a.nii.gz", ct())
    put(tmp_path / "labels", "a.nii.gz", mask())
    whole = (tmp_path / "labels" / "a.nii.gz").read_bytes()
    (tmp_path / "labels" / "a.nii.gz").write_bytes(whole[:-20])
    (problem,) = only(tmp_path).problems
    assert problem.startswith("labels/a.nii.gz: truncated or damaged")
    assert str(tmp_path) not in problem
    (tmp_path / "labels" / "a.nii.gz").write_bytes(whole)
    (tmp_path / "images" / "a.nii.gz").write_bytes(b"no image")
    case = only(tmp_path)
    assert case.problems[0].startswith("images/a.nii.gz: damaged")
    assert (case.shape, case.spacing_mm, case.orientation, case.levels) == (None, None, None, ("L1",))
    (tmp_path / "images" / "a.nii.gz").unlink()
    (tmp_path / "images" / "a.nii.gz").symlink_to(tmp_path / "gone")
    case = only(tmp_path)
    assert case.problems == ("images/a.nii.gz: no such file or folder: check the path",)
    assert case.sha256_ct is None


def test_two_label_maps_for_one_scan(tmp_path: Path) -> None:
    put(tmp_path / "images", "a.nii.gz", ct())
    for name in ("a_msk.nii.gz", "a_seg.nii.gz"):
        put(tmp_path / "labels", name, mask())
    catalogue = index(tmp_path)
    assert catalogue.cases[0].problems == ("2 label maps match: labels/a_msk.nii.gz, labels/a_seg.nii.gz",)
    assert catalogue.unmatched == ("labels/a_msk.nii.gz", "labels/a_seg.nii.gz")


@pytest.mark.parametrize(
    ("ids", "at_mm", "warning"),
    [
        ([T12], (2, 6, 12), "no centroids of L1"),
        ([T12, L1, T11, 99], (2, 6, 12), "centroids of levels missing in the label map: T11, 99"),
        ([T12, L1], (2, 6, 23), "centroids outside the image: T12, L1"),
        ([T12, L1], (-0.6, 6, 12), "centroids outside the image: T12, L1"),
    ],
)
def test_centroids_that_do_not_fit_are_warnings(
    tmp_path: Path, ids: list[int], at_mm: tuple[float, float, float], warning: str
) -> None:
    dataset = verse(tmp_path)
    centroids(next(dataset.rglob("*_ctd.json")), ids, at_mm)
    case = only(tmp_path)
    assert case.warnings == (warning,)
    assert case.usable


def test_centroids_that_are_missing_or_none(tmp_path: Path) -> None:
    dataset = verse(tmp_path)
    path = next(dataset.rglob("*_ctd.json"))
    path.write_text("[]")
    assert "not a centroid file in VerSe's" in only(tmp_path).warnings[0]
    path.unlink()
    assert only(tmp_path).warnings == ("no centroids were found",)
    for ending in ("_seg-subreg_ctd", "_seg-vb_ctd"):
        centroids(path.with_name(f"sub-verse004{ending}.json"), [T12, L1])
    assert only(tmp_path).warnings[0].startswith("2 centroid files match: dataset-01training/")


def test_one_id_twice_leaves_the_one_for_the_test(tmp_path: Path) -> None:
    verse(tmp_path, dataset="dataset-01training")
    verse(tmp_path, dataset="dataset-03test", fill=5)
    first, second = index(tmp_path).cases
    assert first.problems == (f"another scan has the id sub-verse004: {second.ct}",)
    assert second.usable


def test_one_ct_twice_leaves_the_first(tmp_path: Path) -> None:
    verse(tmp_path, "sub-verse090")
    verse(tmp_path, "sub-verse400_split-verse090")
    first, second = index(tmp_path).cases
    if first.sha256_ct != second.sha256_ct:  # the time in the gzip header differs
        shutil.copy(tmp_path / first.ct, tmp_path / second.ct)
        first, second = index(tmp_path).cases
    assert first.usable
    assert second.problems == (f"the same CT exists as {first.ct}",)


def test_a_scan_with_a_problem_takes_no_id(tmp_path: Path) -> None:
    broken = verse(tmp_path, dataset="dataset-03test")
    verse(tmp_path, dataset="dataset-01training", fill=5)
    next(broken.rglob("*_msk.nii.gz")).unlink()
    assert [case.usable for case in index(tmp_path).cases] == [True, False]


def test_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match=r"empty: no scan found: arrange the files as rawdata/ and derivatives/"):
        index(tmp_path / "empty")
    with pytest.raises(ReadError, match="none: is not a folder"):
        index(tmp_path / "none")


def test_the_catalogue_is_not_overwritten_unasked(tmp_path: Path) -> None:
    verse(tmp_path)
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"out.json: already exists; add --overwrite"):
        index_dataset(tmp_path, tmp_path / "out.json", jobs=1)
    assert (tmp_path / "out.json").read_text() == "mine"


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cases that were opened."""
    names: list[str] = []
    inspect = index_module.inspect

    def note(root: Path, found: Any) -> CatalogueCase:
        names.append(found.case)
        return inspect(root, found)

    monkeypatch.setattr(index_module, "inspect", note)
    return names


def test_what_is_known_is_not_opened_again(tmp_path: Path, inspected: list[str]) -> None:
    dataset = verse(tmp_path)
    first = index(tmp_path)
    verse(tmp_path, "sub-verse005", fill=5)
    counts: list[tuple[int, int]] = []
    second = index(tmp_path, progress=lambda done, total: counts.append((done, total)))
    assert inspected == ["sub-verse004", "sub-verse005"]
    assert counts == [(1, 2), (2, 2)]
    assert second.cases[0] == first.cases[0]
    path = next(dataset.rglob("sub-verse004_seg-vert_msk.nii.gz"))
    write_labels(mask([L2]), path)
    os.utime(path, ns=(1, 1))
    assert index(tmp_path).cases[0].levels == ("L2",)
    assert inspected[2:] == ["sub-verse004"]


def test_an_interrupted_run_goes_on(tmp_path: Path, inspected: list[str]) -> None:
    for number in range(3):
        verse(tmp_path, f"sub-verse00{number}", fill=number)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(tmp_path, progress=interrupt)
    assert not (tmp_path / "catalog.json").exists()
    with (tmp_path / ".catalog.json.notes").open("a") as stream:
        stream.write('{"version": 1, "unfini')
    assert len(index(tmp_path).usable) == 3
    assert inspected == ["sub-verse000", "sub-verse001", "sub-verse002"]


def test_several_processes_give_the_same(verse_root: Path, tmp_path: Path) -> None:
    one = index_dataset(verse_root, tmp_path / "one.json", jobs=1)
    two = index_dataset(verse_root, tmp_path / "two.json", jobs=2)
    assert one == two
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_a_killed_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        verse(tmp_path, f"sub-verse00{number}", fill=number)
    monkeypatch.setattr(index_module, "inspect", _EndsWhoeverUnpicklesIt())
    with pytest.raises(VertebralError, match=r"its process was killed.*fewer --jobs; scans already read are kept"):
        index_dataset(tmp_path, tmp_path / "catalog.json", jobs=2)


class _EndsWhoeverUnpicklesIt:
    def __call__(self, *_: object) -> None:
        raise AssertionError("not in this process")

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_the_file_can_move_with_its_data(tmp_path: Path) -> None:
    verse(tmp_path / "old" / "data")
    made = index_dataset(tmp_path / "old" / "data", tmp_path / "old" / "catalog.json", jobs=1)
    assert load_catalogue(tmp_path / "old" / "catalog.json") == made
    stored = (tmp_path / "old" / "catalog.json").read_text()
    assert str(tmp_path) not in stored
    assert json.loads(stored)["root"] == "data"
    (tmp_path / "old").rename(tmp_path / "new")
    moved = load_catalogue(tmp_path / "new" / "catalog.json")
    assert moved.path(moved.cases[0].ct).is_file()
    assert (moved.cases, moved.sha256) == (made.cases, made.sha256)
    assert load_catalogue(tmp_path / "new" / "catalog.json", tmp_path).root == tmp_path


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "Expecting"),
        ('{"version": 2, "root": ".", "cases": []}', "version"),
        ('{"root": ".", "cases": [{"case": "a"}]}', r"cases\.0\.subject"),
        ("[]", "dictionary"),
    ],
)
def test_another_json_is_no_catalogue(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ReadError, match=rf"c\.json: not a catalogue \(.*{part}.*data index"):
        load_catalogue(tmp_path / "c.json")


def test_a_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"c\.json: no such file: make it with vertebral data index"):
        load_catalogue(tmp_path / "c.json")


def test_the_hash_means_the_data(tmp_path: Path) -> None:
    verse(tmp_path)
    verse(tmp_path, "sub-verse005", fill=5)
    catalogue = index(tmp_path)
    first, second = catalogue.cases

    def changed(**values: object) -> str:
        return Catalogue(root=tmp_path, cases=(first.model_copy(update=values), second)).sha256

    assert Catalogue(root=Path("elsewhere"), cases=(second, first)).sha256 == catalogue.sha256
    assert changed(warnings=("look at it",)) == catalogue.sha256
    assert len({catalogue.sha256, changed(problems=("bad",)), changed(sha256_ct="0"), changed(subset="test")}) == 4
    write_catalogue(catalogue, tmp_path / "again.json")
    assert load_catalogue(tmp_path / "again.json").sha256 == catalogue.sha256


def test_summary(tmp_path: Path) -> None:
    verse(tmp_path)
    broken = verse(tmp_path, "sub-verse005", dataset="dataset-02validation", fill=5)
    next(broken.rglob("*_msk.nii.gz")).unlink()
    put(tmp_path / "own" / "images", "a.nii.gz", ct(fill=6))
    put(tmp_path / "own" / "labels", "a.nii.gz", mask([L1], border=L1))
    found = summary(index(tmp_path))
    assert (found["scans"], found["usable"], found["subjects"]) == (3, 2, 3)
    assert found["subsets"] == {"none": 1, "training": 1, "validation": 1}
    assert found["datasets"] == {"dataset-01training": 1, "dataset-02validation": 1, "own": 1}
    assert found["levels"] == {"T12": {"scans": 1, "cut": 0}, "L1": {"scans": 2, "cut": 1}}
    raw = "dataset-02validation/rawdata/sub-verse005/sub-verse005_ct.nii.gz"
    assert found["problems"] == [{"ct": raw, "problems": ["no label map was found"]}]
    assert found["warnings"] == []


def test_geometry_without_values(tmp_path: Path) -> None:
    path = put(tmp_path, "a.nii.gz", ct())
    assert read_geometry(path).matches(ct().grid)
    path.write_bytes(path.read_bytes()[:-10])
    assert read_geometry(path).matches(ct().grid)
    with pytest.raises(ReadError, match=r"b\.nii: no such file"):
        read_geometry(tmp_path / "b.nii")
