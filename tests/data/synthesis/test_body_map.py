"""Bodies of blocks at 2 mm: every centre can be worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vertebral.core.errors import ReadError
from vertebral.core.volume import Volume
from vertebral.data.synthesis.body_map import BodyMap, load_body, with_cortex
from vertebral.data.synthesis.tissues import TISSUE_ID
from vertebral.io.write import write_labels

MM = 2.0
FAT, MUSCLE, BONE = TISSUE_ID["fat"], TISSUE_ID["muscle"], TISSUE_ID["vertebra_interior"]


def test_cortex_is_one_voxel_thick_and_per_vertebra() -> None:
    """Two touching 5-voxel cubes: each keeps 27 inner voxels, the rest of its 125 is cortex."""
    labels = np.zeros((9, 9, 14), np.uint8)
    labels[2:7, 2:7, 2:7] = 20
    labels[2:7, 2:7, 7:12] = 21
    tissue = np.where(labels > 0, BONE, FAT).astype(np.uint8)
    made = with_cortex(BodyMap(tissue, labels, MM, np.eye(4)))
    for value in (20, 21):
        assert np.count_nonzero(made.tissue[labels == value] == TISSUE_ID["vertebra_cortex"]) == 98
    inner = np.zeros(labels.shape, bool)
    inner[3:6, 3:6, 3:6] = inner[3:6, 3:6, 8:11] = True
    assert np.array_equal(made.tissue == BONE, inner)
    assert (made.tissue[labels == 0] == FAT).all()
    assert (tissue[labels > 0] == BONE).all(), "the input was changed"


def test_other_bones_get_their_own_cortex() -> None:
    tissue = np.zeros((5, 5, 5), np.uint8)
    tissue[1:4, 1:4, 1:4] = TISSUE_ID["bone_interior"]
    made = with_cortex(BodyMap(tissue, np.zeros_like(tissue), MM, np.eye(4)))
    assert made.tissue[2, 2, 2] == TISSUE_ID["bone_interior"]
    assert np.count_nonzero(made.tissue == TISSUE_ID["bone_cortex"]) == 26


NAMES = {"0": "background", "5": "vertebrae_L1", "6": "vertebrae_S1", "7": "subcutaneous_fat", "8": "liver"}


def write_map(folder: Path, labels: NDArray[np.uint8], names: object, axcodes: str = "RAS") -> Path:
    path = folder / "a_labelmap.nii.gz"
    write_labels(Volume(labels, np.diag([MM, MM, MM, 1.0])).reoriented(axcodes), path)
    (folder / "a_labelmap.json").write_text(json.dumps(names))
    return path


def fat_box() -> NDArray[np.uint8]:
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[1:11, 1:11] = 7
    labels[4:8, 4:8, 6:10] = 5
    labels[4:8, 4:8, 1:4] = 6
    labels[2:4, 2:4, 2:4] = 8
    return labels


@pytest.mark.parametrize("names", [NAMES, {"labels": NAMES, "source": "here"}])
def test_a_body_is_read_by_its_names(tmp_path: Path, names: object) -> None:
    body = load_body(write_map(tmp_path, fat_box(), names, "LPI"), MM)
    assert body.labels.shape == (12, 12, 12)
    assert np.array_equal(body.affine[:3, :3], np.diag([MM] * 3))
    assert np.unique(body.labels[fat_box() == 5]).tolist() == [20]
    assert np.unique(body.labels[fat_box() == 6]).tolist() == [26]
    assert (body.tissue[fat_box() == 8] == TISSUE_ID["liver"]).all()
    assert (body.tissue[fat_box() == 7] == FAT).all()
    assert (body.tissue[fat_box() == 0] == TISSUE_ID["air"]).all(), "id 0 is air whatever its name"


def test_a_coarser_body_keeps_the_first_voxel_centre(tmp_path: Path) -> None:
    body = load_body(write_map(tmp_path, fat_box(), NAMES), 2 * MM)
    assert body.labels.shape == (7, 7, 7)
    assert np.array_equal(body.labels[:6, :6, :6] > 0, np.isin(fat_box()[::2, ::2, ::2], (5, 6)))
    assert body.affine[:3, 3].tolist() == [0, 0, 0]


def test_arms_beside_the_trunk_become_air(tmp_path: Path) -> None:
    labels = np.pad(fat_box(), ((0, 6), (0, 0), (0, 0)))
    labels[14:17, 4:8] = 7
    body = load_body(write_map(tmp_path, labels, NAMES), MM)
    spine = (labels == 5).any((0, 1)) | (labels == 6).any((0, 1))
    assert body.tissue[14:17, :, spine].max() == 0
    assert (body.tissue[14:17, 4:8][:, :, ~spine] == FAT).all()


def test_a_map_of_organs_alone_is_clothed_in_muscle_and_fat(tmp_path: Path) -> None:
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[15:25, 15:45, 15:45] = 8
    labels[35:45, 15:45, 15:45] = 8
    labels[28:32, 10:13, 18:42] = 5
    body = load_body(write_map(tmp_path, labels, NAMES), MM)
    assert (body.tissue[labels == 8] == TISSUE_ID["liver"]).all()
    row = body.tissue[:, 30, 30]
    order = [value for value, before in zip(row, [None, *row[:-1]], strict=True) if value != before]
    liver = TISSUE_ID["liver"]
    assert [int(v) for v in order] == [0, FAT, liver, MUSCLE, liver, FAT, 0]


def test_flesh_reaches_the_first_and_last_slice(tmp_path: Path) -> None:
    labels = np.zeros((60, 60, 30), np.uint8)
    labels[15:25, 15:45] = 8
    labels[35:45, 15:45] = 8
    labels[28:32, 10:13] = 5
    body = load_body(write_map(tmp_path, labels, NAMES), MM)
    assert (body.tissue[30, 30] == MUSCLE).all()
    assert (body.tissue[labels == 8] == TISSUE_ID["liver"]).all()


def test_a_body_map_without_names_is_refused(tmp_path: Path) -> None:
    path = write_map(tmp_path, fat_box(), NAMES)
    (tmp_path / "a_labelmap.json").unlink()
    with pytest.raises(ReadError, match=r"needs its names in a_labelmap\.json next to it"):
        load_body(path, MM)


@pytest.mark.parametrize("names", [["L1"], {"one": "L1"}, {"labels": ["L1"]}, "L1"])
def test_names_of_another_form_are_refused(tmp_path: Path, names: object) -> None:
    with pytest.raises(ReadError, match=r"needs its names in a_labelmap\.json"):
        load_body(write_map(tmp_path, fat_box(), names), MM)


def test_an_id_without_a_name_is_refused_not_taken_for_air(tmp_path: Path) -> None:
    names = {key: name for key, name in NAMES.items() if key != "8"}
    with pytest.raises(ReadError, match=r"ids \[8\] have no name"):
        load_body(write_map(tmp_path, fat_box(), names), MM)


def test_an_id_above_255_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"ids 300 .*exceed 255"):
        load_body(write_map(tmp_path, fat_box(), {**NAMES, "300": "spleen"}), MM)
