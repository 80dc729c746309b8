"""Files that are whole or absent, and centroids worked by hand."""

import json
import os
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from vertebral.core.errors import InputError, ReadError, VertebralError
from vertebral.core.volume import Grid, Volume
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.write import atomic_write, read_centroids, write_centroids, write_image, write_json, write_labels

LAS = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -10], [0, 0, 3, 100], [0, 0, 0, 1]])


def label_map() -> Volume:
    array = np.zeros((4, 5, 6), np.uint8)
    array[1:3, 2:4, 3:5] = 28
    return Volume(array, LAS)


def test_success_leaves_the_file_alone(tmp_path):
    with atomic_write(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


def test_failure_leaves_nothing_or_the_old_file(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    for name in ("old.txt", "none.txt"):
        with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / name) as temporary:
            temporary.write_text("half")
            _ = 1 / 0
    assert [file.name for file in tmp_path.iterdir()] == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


@pytest.mark.parametrize("write", [lambda path: None, lambda path: path.unlink()])
def test_a_writer_that_writes_nothing_fails(tmp_path, write):
    with pytest.raises(VertebralError, match="not written, or is empty"), atomic_write(tmp_path / "a.stl") as temporary:
        write(temporary)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.b_seg-vert_msk.nii.gz", ".nii.gz"), ("v1.2_spine.glb", ".glb"), ("a.tar.xz", ".xz"), ("LICENSE", "")],
)
def test_the_temporary_name_keeps_the_suffix(tmp_path, name, suffix):
    with atomic_write(tmp_path / name) as temporary:
        assert "".join(Path(temporary.name.lstrip(".")).suffixes) == suffix
        temporary.write_text("x")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_mode_follows_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="No such file or directory"), atomic_write(tmp_path / "no" / "a.txt"):
        pass
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError, match="Is a directory"), atomic_write(tmp_path / "folder.txt") as temporary:
        temporary.write_text("x")
    assert [file.name for file in tmp_path.iterdir()] == ["folder.txt"]


def test_labels_on_disk(tmp_path):
    path = tmp_path / "a_seg-vert_msk.nii.gz"
    write_labels(Volume(label_map().array.astype(np.int64), LAS), path)
    image = nib.load(path)
    assert image.get_data_dtype() == np.uint8
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    assert bytes(image.header["descrip"]).rstrip(b"\0") == b"vertebral"
    assert image.header.get_xyzt_units()[0] == "mm"
    assert_allclose(image.header.get_qform(), LAS, atol=1e-5)
    assert_array_equal(np.asarray(image.dataobj), label_map().array)
    again = read_labels(path)
    assert again.grid.matches(label_map().grid)
    assert again.array.dtype == np.uint8


def test_the_same_labels_give_the_same_bytes(tmp_path):
    write_labels(label_map(), tmp_path / "a.nii.gz")
    write_labels(label_map(), tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize(("value", "name"), [(256, "a.nii.gz"), (-1, "a.nii.gz"), (1.5, "a.nii.gz"), (1, "a.nrrd")])
def test_labels_that_do_not_fit(tmp_path, value, name):
    array = np.full((2, 2, 2), value)
    with pytest.raises(InputError, match=r"do not all fit uint8|use a name that ends in"):
        write_labels(Volume(array, LAS), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_image_round_trip(tmp_path, tiny_ct):
    write_image(Volume(tiny_ct.array + np.float32(0.4), tiny_ct.affine), tmp_path / "a_ct.nii.gz")
    scan = read_scan(tmp_path / "a_ct.nii.gz")
    assert scan.volume.array.dtype == np.int16
    assert_array_equal(scan.volume.array, tiny_ct.array)
    assert scan.volume.grid.matches(tiny_ct.grid, tolerance_mm=1e-4)
    assert scan.stem == "a"
    assert scan.notes == ()


@pytest.mark.parametrize("value", [40000, np.nan, np.inf])
def test_images_that_do_not_fit(tmp_path, value):
    with pytest.raises(InputError, match="do not all fit int16"):
        write_image(Volume(np.full((2, 2, 2), value), LAS), tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_json_takes_numpy_and_paths(tmp_path):
    value = {
        "a": np.float32(0.5),
        "b": np.arange(2),
        "c": (Path("x/y"), float("nan"), np.float64("nan")),
        1: None,
        "ü": True,
    }
    write_json(value, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": 0.5, "b": [0, 1], "c": ["x/y", None, None], "1": None, "ü": True}
    assert "ü" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("inf"), {"a": object()}, {1, 2}])
def test_json_refuses_what_it_cannot_hold(tmp_path, value):
    with pytest.raises(VertebralError, match="cannot be written as JSON"):
        write_json(value, tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_centroids_by_hand(tmp_path):
    """Voxel (x, y, z) lies at (30 - 2x, -10 + 2y, 100 + 3z)."""
    grid = label_map().grid
    write_centroids([(28, (27.0, -6.0, 110.5)), (20, (30.0, -10.0, 100.0))], grid, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == [
        {"direction": ["L", "A", "S"]},
        {"label": 28, "X": 1.5, "Y": 2.0, "Z": 3.5},
        {"label": 20, "X": 0.0, "Y": 0.0, "Z": 0.0},
    ]
    (first, point), (second, origin) = read_centroids(tmp_path / "a.json", grid)
    assert (first, second) == (28, 20)
    assert_allclose(point, (27, -6, 110.5))
    assert_allclose(origin, (30, -10, 100))


def test_centroids_of_another_direction(tmp_path):
    """In P I R the first axis runs backwards over 5 voxels, the second downwards over 6, the third to the right."""
    (tmp_path / "a.json").write_text(
        '[{"direction": ["P", "I", "R"]}, {"label": 1, "X": 1, "Y": 2, "Z": 0.5, "extra": 0}]'
    )
    ((_, point),) = read_centroids(tmp_path / "a.json", Grid((4, 5, 6), LAS))
    assert_allclose(point, (30 - 2 * (3 - 0.5), -10 + 2 * (4 - 1), 100 + 3 * (5 - 2)))


def test_no_centroids(tmp_path):
    write_centroids([], label_map().grid, tmp_path / "a.json")
    assert read_centroids(tmp_path / "a.json", label_map().grid) == []


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '[{"label": 1, "X": 1, "Y": 2, "Z": 3}]',
        '[{"direction": ["L", "A", "S"]}, {"label": 1, "X": 1}]',
        '[{"direction": ["L", "L", "S"]}]',
        "3",
    ],
)
def test_files_that_are_no_centroids(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ReadError, match="not a centroid file"):
        read_centroids(tmp_path / "a.json", label_map().grid)


def test_a_missing_centroid_file(tmp_path):
    with pytest.raises(ReadError, match="No such file"):
        read_centroids(tmp_path / "none.json", label_map().grid)
