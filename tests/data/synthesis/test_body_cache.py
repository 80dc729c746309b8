import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vertebral.core.errors import ConfigError, ReadError
from vertebral.core.volume import Volume
from vertebral.data.synthesis import body_cache
from vertebral.data.synthesis.body_cache import UNKNOWN_HU, CachedBody, cache_bodies, find_recipes
from vertebral.data.synthesis.body_map import BodyMap
from vertebral.data.synthesis.config import SourceConfig
from vertebral.data.synthesis.tissues import TISSUE_ID
from vertebral.io.write import write_image, write_labels

MM = 4.0
AFFINE = np.diag([MM, MM, MM, 1.0])


def silent(done: int, name: str) -> None:
    del done, name


def touch(data: Path, *names: str) -> None:
    for name in names:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(name.encode())


def block_labels() -> NDArray[np.uint8]:
    """L1 and L2 as cubes of 3 voxels, 5 apart, in fat (id 90)."""
    labels = np.zeros((9, 9, 12), np.uint8)
    labels[1:8, 1:8] = 90
    labels[3:6, 3:6, 7:10] = 20
    labels[3:6, 3:6, 2:5] = 21
    return labels


def write_body(data: Path, name: str = "b") -> None:
    data.mkdir(exist_ok=True)
    write_labels(Volume(block_labels(), AFFINE), data / f"{name}_organs.nii.gz")
    names = {"20": "vertebrae_L1", "21": "vertebrae_L2", "90": "fat"}
    (data / f"{name}_organs.json").write_text(json.dumps(names))


def write_scan(data: Path, hu: float, name: str = "s") -> None:
    """A CT of bone at `hu` in fat at -100, 0 (not known) in the first axial slices, with its vertebrae's labels."""
    labels = np.where(block_labels() < 90, block_labels(), 0).astype(np.uint8)
    image = np.where(labels > 0, hu, -100.0)
    image[:, :, :3] = 0
    write_image(Volume(image, AFFINE), data / f"{name}_ct.nii.gz")
    write_labels(Volume(labels, AFFINE), data / f"{name}_seg-vert_msk.nii.gz")


def built(data: Path, tmp_path: Path, *sources: SourceConfig) -> list[CachedBody]:
    return cache_bodies(find_recipes(data, sources), MM, tmp_path / "cache", silent)


def test_a_body_source_gives_one_recipe_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "organs/b_organs.nii.gz", "organs/a_organs.nii.gz", "organs/a_organs.json")
    source = SourceConfig(kind="body", bodies="organs/*_organs.nii.gz", weight=3)
    recipes = find_recipes(tmp_path, (source,))
    assert [(r.name, r.kind, r.weight, r.labels, r.ct) for r in recipes] == [
        ("a", "body", 3, None, None),
        ("b", "body", 3, None, None),
    ]


def test_vertebrae_are_placed_in_bodies_by_turns(tmp_path: Path) -> None:
    touch(tmp_path, "b/0.nii.gz", "b/1.nii.gz", *[f"v/{name}_seg-vert_msk.nii.gz" for name in "xyz"])
    source = {"kind": "vertebrae", "bodies": "b/*.nii.gz", "labels": "v/*.nii.gz"}
    once = find_recipes(tmp_path, (SourceConfig.model_validate(source),))
    assert [r.name for r in once] == ["x-in-0", "y-in-1", "z-in-0"]
    twice = find_recipes(tmp_path, (SourceConfig.model_validate({**source, "placements": 2}),))
    assert [r.name for r in twice] == ["x-in-0", "x-in-1", "y-in-1", "y-in-0", "z-in-0", "z-in-1"]
    # More placements than bodies give no body twice.
    assert len(find_recipes(tmp_path, (SourceConfig.model_validate({**source, "placements": 5}),))) == 6


def test_scans_meet_their_labels_by_case_name(tmp_path: Path) -> None:
    cases = ("sub-1_dir-ax", "sub-1_dir-sag")
    touch(tmp_path, *[f"raw/{c}_ct.nii.gz" for c in cases], *[f"der/{c}_seg-vert_msk.nii.gz" for c in cases])
    source = SourceConfig(kind="scan", ct="raw/*_ct.nii.gz", labels="der/*_msk.nii.gz")
    for case, recipe in zip(cases, find_recipes(tmp_path, (source,)), strict=True):
        assert recipe.labels is not None and recipe.ct is not None
        assert (recipe.name, recipe.ct.name, recipe.labels.name) == (
            case,
            f"{case}_ct.nii.gz",
            f"{case}_seg-vert_msk.nii.gz",
        )


def test_a_glob_that_finds_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'organs/*.nii.gz'}: no file matches; check --data")):
        find_recipes(tmp_path, (SourceConfig(kind="body", bodies="organs/*.nii.gz"),))


@pytest.mark.parametrize("pattern", ["/abs/*.nii.gz", ""])
def test_a_glob_that_is_no_relative_pattern_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match="relative to the data folder"):
        find_recipes(tmp_path, (SourceConfig(kind="body", bodies=pattern),))


def test_labels_without_a_ct_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a_ct.nii.gz", "b_seg-vert_msk.nii.gz")
    with pytest.raises(ConfigError, match=r"b_seg-vert_msk.*no CT with the case name 'b' matches \*_ct\.nii\.gz"):
        find_recipes(tmp_path, (SourceConfig(kind="scan", ct="*_ct.nii.gz", labels="*_msk.nii.gz"),))


def test_one_body_map_cannot_serve_two_scans(tmp_path: Path) -> None:
    touch(tmp_path, "b_organs.nii.gz", *[f"{c}{s}.nii.gz" for c in "xy" for s in ("_ct", "_seg-vert_msk")])
    source = SourceConfig(kind="scan", ct="*_ct.nii.gz", labels="*_msk.nii.gz", bodies="*_organs.nii.gz")
    with pytest.raises(ConfigError, match="2 label maps and 1 body maps"):
        find_recipes(tmp_path, (source,))


def test_processes_build_the_same_bodies(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_body(tmp_path / "data", name)
    source = SourceConfig(kind="body", bodies="*_organs.nii.gz")
    recipes = find_recipes(tmp_path / "data", (source,))
    told: list[str] = []
    alone = cache_bodies(recipes, MM, tmp_path / "one", lambda *_: None, jobs=1)
    shared = cache_bodies(recipes, MM, tmp_path / "two", lambda _, name: told.append(name), jobs=2)
    assert told == ["a", "b"]
    for one, two in zip(alone, shared, strict=True):
        assert np.array_equal(one.tissue, two.tissue) and np.array_equal(one.labels, two.labels)


def test_a_body_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_body(tmp_path / "data")
    source = SourceConfig(kind="body", bodies="*_organs.nii.gz", weight=2)
    (first,) = built(tmp_path / "data", tmp_path, source)
    assert (first.name, first.weight, first.hu) == ("b", 2, None)
    labels = block_labels()
    assert np.array_equal(first.labels, np.where(labels < 90, labels, 0))
    assert (first.tissue[labels == 90] == TISSUE_ID["fat"]).all()
    assert np.count_nonzero(first.tissue == TISSUE_ID["vertebra_cortex"]) == 2 * 26

    monkeypatch.setattr(body_cache, "_build", lambda *_: pytest.fail("built again"))
    (again,) = built(tmp_path / "data", tmp_path, source)
    assert np.array_equal(again.tissue, first.tissue) and np.array_equal(again.labels, first.labels)


def test_another_spacing_or_content_is_another_body(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_body(data)
    source = SourceConfig(kind="body", bodies="*_organs.nii.gz")
    built(data, tmp_path, source)
    cache_bodies(find_recipes(data, (source,)), 2 * MM, tmp_path / "cache", silent)
    changed = block_labels()
    changed[3, 3, 7] = 90
    write_labels(Volume(changed, AFFINE), data / "b_organs.nii.gz")
    (body,) = built(data, tmp_path, source)
    assert np.count_nonzero(body.labels == 20) == 26
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_what_was_interrupted_is_built_again(tmp_path: Path) -> None:
    write_body(tmp_path / "data")
    source = SourceConfig(kind="body", bodies="*_organs.nii.gz")
    built(tmp_path / "data", tmp_path, source)
    (done,) = (tmp_path / "cache").glob("*/done.json")
    done.unlink()
    (done.parent / "labels.npy").write_bytes(b"half")
    (body,) = built(tmp_path / "data", tmp_path, source)
    assert body.labels.max() == 21


def test_progress_names_each_body_before_it_is_built(tmp_path: Path) -> None:
    write_body(tmp_path / "data", "one")
    write_body(tmp_path / "data", "two")
    seen: list[tuple[int, str]] = []
    recipes = find_recipes(tmp_path / "data", (SourceConfig(kind="body", bodies="*_organs.nii.gz"),))
    cache_bodies(recipes, MM, tmp_path / "cache", lambda done, name: seen.append((done, name)))
    assert seen == [(0, "one"), (1, "two")]


def test_vertebrae_are_placed_in_the_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    write_body(data)
    write_labels(Volume(np.where(block_labels() < 90, block_labels(), 0), AFFINE), data / "s_seg-vert_msk.nii.gz")
    placed = BodyMap(block_labels() // 90, block_labels() % 90, MM, AFFINE)
    seen: list[tuple[float, float]] = []

    def place(subject: Volume, body: BodyMap) -> BodyMap:
        seen.append((float(subject.array.max()), body.spacing_mm))
        return placed

    monkeypatch.setattr(body_cache, "place_in_body", place)
    source = SourceConfig(kind="vertebrae", bodies="*_organs.nii.gz", labels="*_msk.nii.gz")
    (body,) = built(data, tmp_path, source)
    assert seen == [(21, MM)]
    assert np.array_equal(body.labels, placed.labels)


def test_a_real_scan_keeps_its_hu_and_labels(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_scan(tmp_path / "data", 400)
    source = SourceConfig(kind="scan", ct="*_ct.nii.gz", labels="*_msk.nii.gz")
    (body,) = built(tmp_path / "data", tmp_path, source)
    assert body.hu is not None and body.hu.dtype == np.int16
    assert np.unique(body.hu[:, :, 3:]).tolist() == [-100, 400]
    assert (body.hu[body.labels == 20] == 400).all()


def test_beside_a_body_map_only_known_bone_is_real(tmp_path: Path) -> None:
    write_body(tmp_path / "data")
    write_scan(tmp_path / "data", 400)
    source = SourceConfig(kind="scan", ct="*_ct.nii.gz", labels="*_msk.nii.gz", bodies="*_organs.nii.gz")
    (body,) = built(tmp_path / "data", tmp_path, source)
    assert body.hu is not None
    known = (body.labels > 0) & (np.arange(12) >= 3)
    assert (body.hu[known] == 400).all()
    assert (body.hu[~known] == UNKNOWN_HU).all()


@pytest.mark.parametrize("fault", ["labels", "body"])
def test_grids_that_differ_are_refused(tmp_path: Path, fault: str) -> None:
    data = tmp_path / "data"
    write_body(data)
    write_scan(data, 400)
    moved = AFFINE.copy()
    moved[0, 3] = 8
    if fault == "labels":
        write_labels(Volume(block_labels(), moved), data / "s_seg-vert_msk.nii.gz")
    else:
        write_labels(Volume(block_labels(), moved), data / "b_organs.nii.gz")
    source = SourceConfig(kind="scan", ct="*_ct.nii.gz", labels="*_msk.nii.gz", bodies="*_organs.nii.gz")
    with pytest.raises(ReadError, match=r"its grid differs from that of .*s_ct\.nii\.gz"):
        built(data, tmp_path, source)


def test_bodies_are_cut_to_their_vertebrae(tmp_path: Path) -> None:
    """Vertebrae are voxels 3-5, 3-5 and 2-9; 4 mm more is a voxel on every side. Cut ones are entries of their own."""
    data = tmp_path / "data"
    write_body(data)
    write_scan(data, 300)
    sources = (
        SourceConfig(kind="body", bodies="b_organs.nii.gz"),
        SourceConfig(kind="scan", ct="*_ct*", labels="s_seg*"),
    )
    recipes = find_recipes(data, sources)
    whole = cache_bodies(recipes, MM, tmp_path / "cache", silent)
    cut = cache_bodies(recipes, MM, tmp_path / "cache", silent, crop_margin_mm=4.0)
    for one, other in zip(whole, cut, strict=True):
        assert np.array_equal(one.labels[2:7, 2:7, 1:11], other.labels)
        assert np.array_equal(one.tissue[2:7, 2:7, 1:11], other.tissue)
    assert whole[1].hu is not None and cut[1].hu is not None
    assert np.array_equal(whole[1].hu[2:7, 2:7, 1:11], cut[1].hu)


def test_placed_vertebrae_are_what_a_body_is_cut_to(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_body(data)
    labels = np.where(block_labels() < 90, block_labels(), 0).astype(np.uint8)
    write_labels(Volume(np.pad(labels, 20), AFFINE), data / "v_seg-vert_msk.nii.gz")
    recipes = find_recipes(data, (SourceConfig(kind="vertebrae", labels="v_seg*", bodies="b_organs.nii.gz"),))
    (cut,) = cache_bodies(recipes, MM, tmp_path / "cache", silent, crop_margin_mm=4.0)
    inside = np.argwhere(cut.labels > 0)
    assert max(cut.labels.shape) <= 12 and (inside.min(0) <= 1).all()
    assert set(np.unique(cut.labels)) == {0, 20, 21}
