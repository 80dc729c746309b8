import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import ConfigError, OutputExistsError, ReadError
from vertebral.core.volume import Volume
from vertebral.data.synthesis.body_cache import CachedBody
from vertebral.data.synthesis.config import SynthesisConfig
from vertebral.data.synthesis.plain_trunk import plain_trunk
from vertebral.data.synthesis.synthetic_ct import box_around, synthesise
from vertebral.data.synthesis.synthetic_set import NOTES, find_sources, make_set, plan_pairs
from vertebral.data.synthesis.tissues import TISSUE_ID
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.write import write_labels

MM = 4.0
L1, L2 = BY_NAME["L1"].verse_id, BY_NAME["L2"].verse_id
STILL = SynthesisConfig(
    cache_spacing_mm=MM,
    scale=(1, 1),
    anisotropy=0,
    rotation_deg=0,
    elastic_mm=0,
    mirror_probability=0,
    crop_probability=0,
    slice_mm=(1, 1),
    noise_hu=(0, 0),
)


def vertebrae() -> Volume:
    """L1 above L2, cubes of 32 mm, 36 mm apart, with a process behind each."""
    labels = np.zeros((20, 24, 26), np.uint8)
    for value, low in ((L1, 15), (L2, 4)):
        labels[6:14, 10:18, low : low + 8] = value
        labels[9:11, 2:10, low : low + 4] = value
    return Volume(labels, np.diag([MM, MM, MM, 1.0]))


def block() -> CachedBody:
    labels = np.pad(vertebrae().array, 20)
    tissue = np.where(labels > 0, TISSUE_ID["vertebra_interior"], TISSUE_ID["fat"]).astype(np.uint8)
    return CachedBody("block", 1.0, tissue, labels, None)


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """A folder with two label maps and a CT, which is none."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for name in ("a_seg-vert_msk", "b_seg-vert_msk", "a_ct"):
        write_labels(vertebrae(), folder / f"{name}.nii.gz")
    return folder


def made(maps: Path, out: Path, count: int = 3, seed: int = 0) -> int:
    pairs = plan_pairs(find_sources(maps, None), count, seed)
    return make_set(pairs, out, STILL, MM, None, lambda done, total, text: None)


def test_a_still_pose_gives_the_bodys_own_labels() -> None:
    ct, labels = synthesise(block(), STILL, 0, MM)
    assert ct.array.dtype == np.int16 and labels.array.dtype == np.uint8
    assert ct.grid.matches(labels.grid) and ct.spacing_mm == (MM, MM, MM)
    for value in (L1, L2):
        assert (labels.array == value).sum() == (vertebrae().array == value).sum()
    # Bone is brighter than fat.
    assert ct.array[labels.array > 0].mean() > ct.array[labels.array == 0].mean() + 100


def test_a_seed_is_a_ct() -> None:
    config = SynthesisConfig(cache_spacing_mm=MM, findings={}, artefacts={})
    one, same, other = (synthesise(block(), config, seed, MM) for seed in (1, 1, 2))
    assert np.array_equal(one[0].array, same[0].array) and np.array_equal(one[1].array, same[1].array)
    assert one[0].array.shape != other[0].array.shape or not np.array_equal(one[0].array, other[0].array)


def test_the_spacing_is_what_was_asked_for() -> None:
    ct, labels = synthesise(block(), STILL, 0, 2.0)
    assert ct.spacing_mm == (2.0, 2.0, 2.0)
    assert (labels.array == L1).sum() == pytest.approx(8 * (vertebrae().array == L1).sum(), rel=0.25)


def test_levels_aim_the_field_of_view() -> None:
    whole, one = (synthesise(block(), STILL, 0, MM, levels)[1] for levels in (None, [L1]))
    assert one.array.shape[2] < whole.array.shape[2]
    assert (one.array == L1).sum() == (vertebrae().array == L1).sum()
    with pytest.raises(ConfigError, match="block: contains none of the requested levels"):
        synthesise(block(), STILL, 0, MM, [1])


def test_the_field_of_view_is_cut_off_not_filled() -> None:
    config = STILL.model_copy(update={"crop_probability": 1.0})
    whole, cut = (synthesise(block(), settings, 3, MM)[0] for settings in (STILL, config))
    assert cut.array.size < whole.array.size
    assert cut.array.min() > -500, "no air where there was none"


def test_a_box_has_two_voxels_even_beside_the_body() -> None:
    far = torch.full((2, 2, 2, 3), 90.0)
    assert box_around(far, (10, 10, 10)) == (slice(8, 10),) * 3
    near = torch.tensor([[[[3.2, 4.0, 5.9]]]])
    assert box_around(near, (10, 10, 10)) == (slice(2, 6), slice(3, 6), slice(4, 8))


def test_a_plain_body_surrounds_the_vertebrae() -> None:
    body = plain_trunk(vertebrae(), MM)
    names = ("air", "skin", "fat", "muscle", "canal", "disc", "artery", "vertebra_interior")
    for name in names:
        assert (body.tissue == TISSUE_ID[name]).any(), name
    assert ((body.labels > 0) == (body.tissue == TISSUE_ID["vertebra_interior"])).all()
    for value in (L1, L2):
        assert (body.labels == value).sum() == pytest.approx((vertebrae().array == value).sum(), rel=0.1)
    rim = np.concatenate([body.tissue[[0, -1]].ravel(), body.tissue[:, [0, -1]].ravel()])
    assert (rim == TISSUE_ID["air"]).all()
    with pytest.raises(ReadError, match=r"label ids \[200\]"):
        plain_trunk(Volume(np.full((4, 4, 4), 200, np.uint8), np.eye(4)), MM)


def test_a_thoracic_body_has_lungs() -> None:
    labels = np.where(vertebrae().array == L1, BY_NAME["T5"].verse_id, 0)
    labels[vertebrae().array == L2] = BY_NAME["T6"].verse_id
    body = plain_trunk(Volume(labels.astype(np.uint8), vertebrae().affine), MM)
    assert (body.tissue == TISSUE_ID["lung"]).mean() > 0.1


def test_sources_are_label_maps_by_turns_and_body_maps(maps: Path) -> None:
    assert [(s.stem, s.kind, s.body) for s in find_sources(maps, None)] == [
        ("a", "vertebrae", None),
        ("b", "vertebrae", None),
    ]
    names = maps / "b_seg-vert_msk.json"
    names.write_text(json.dumps({"20": "vertebrae_L1", "21": "vertebrae_L2"}))
    assert [s.kind for s in find_sources(maps, None)] == ["vertebrae", "body"]
    (source,) = find_sources(maps / "a_seg-vert_msk.nii.gz", str(maps / "b*"))
    assert source.body == maps / "b_seg-vert_msk.nii.gz"
    assert find_sources(maps / "a_seg-vert_msk.nii.gz", str(maps)) == [source]


def test_bad_sources_are_named(maps: Path, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="nowhere: no label map found"):
        find_sources(tmp_path / "nowhere", None)
    with pytest.raises(ConfigError, match="no label map with a JSON file of names"):
        find_sources(maps, str(maps))


def test_a_set_is_pairs_and_notes(maps: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert made(maps, out) == 3
    assert sorted(p.name for p in (out / "images").iterdir()) == [
        "a-0001_ct.nii.gz",
        "a-0003_ct.nii.gz",
        "b-0002_ct.nii.gz",
    ]
    ct = read_scan(out / "images" / "a-0001_ct.nii.gz").volume
    labels = read_labels(out / "labels" / "a-0001_seg-vert_msk.nii.gz")
    assert ct.grid.matches(labels.grid)
    assert set(np.unique(labels.array)) == {0, L1, L2}
    notes = json.loads((out / NOTES).read_text())
    assert [pair["made_from"] for pair in notes["pairs"]] == [f"{n}_seg-vert_msk.nii.gz" for n in "aba"]
    assert len({pair["seed"] for pair in notes["pairs"]}) == 3
    assert "licences" in notes["licence"] and notes["spacing_mm"] == MM


def test_a_set_goes_on_where_it_stopped(maps: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "set", tmp_path / "whole"
    assert made(maps, out, 2) == 2
    assert made(maps, out, 2) == 0
    (out / "labels" / "b-0002_seg-vert_msk.nii.gz").unlink()
    assert made(maps, out, 3) == 2
    made(maps, whole, 3)
    for path in sorted(whole.rglob("*.nii.gz")):
        assert np.array_equal(read_labels_or_ct(path), read_labels_or_ct(out / path.relative_to(whole))), path


def read_labels_or_ct(path: Path) -> np.ndarray:
    return read_scan(path).volume.array if path.name.endswith("_ct.nii.gz") else read_labels(path).array


def test_two_sets_are_not_mixed(maps: Path, tmp_path: Path) -> None:
    made(maps, tmp_path / "set", 1)
    with pytest.raises(OutputExistsError, match="other settings, seed or sources"):
        made(maps, tmp_path / "set", 1, seed=1)
    (tmp_path / "set" / NOTES).write_text("{}")
    with pytest.raises(ReadError, match="not written by vertebral synth"):
        made(maps, tmp_path / "set", 1)


def test_a_bad_label_map_is_named(maps: Path, tmp_path: Path) -> None:
    write_labels(Volume(np.full((4, 4, 4), 200, np.uint8), np.eye(4)), maps / "b_seg-vert_msk.nii.gz")
    with pytest.raises(ReadError, match=r"b_seg-vert_msk.nii.gz: label ids \[200\]"):
        made(maps, tmp_path / "set")
