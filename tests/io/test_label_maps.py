"""What other tools get: ids, names, colours."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from vertebral.core.errors import ConfigError
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_labels
from vertebral.io.label_maps import WRITERS, bids_name, in_scheme, names_of, require_consecutive


def labels(*ids):
    array = np.zeros((3, 4, 5), np.uint8)
    for n, value in enumerate(ids):
        array[1, 2, n] = value
    return Volume(array, np.diag((1.0, 1.0, 2.0, 1.0)))


@pytest.mark.parametrize(("scheme", "l1", "t12"), [("verse", 20, 19), ("totalsegmentator", 31, 32), ("plain", 20, 19)])
def test_ids_of_the_scheme(tmp_path, scheme, l1, t12):
    WRITERS["nifti"](in_scheme(labels(19, 20), scheme), "a", tmp_path)
    again = read_labels(tmp_path / f"a_labels-{scheme}.nii.gz")
    assert again.array[1, 2, :2].tolist() == [t12, l1]
    assert_allclose(again.affine, np.diag((1.0, 1.0, 2.0, 1.0)))


def test_a_level_without_an_id_is_refused():
    with pytest.raises(ConfigError, match="scheme totalsegmentator has no id for T13"):
        in_scheme(labels(28), "totalsegmentator")


def test_itksnap_reads_its_own_form(tmp_path):
    WRITERS["itksnap"](in_scheme(labels(19), "verse"), "a", tmp_path)
    lines = (tmp_path / "a_itksnap.txt").read_text().splitlines()
    assert lines[0].split() == ["0", "0", "0", "0", "0", "0", "0", '"Clear', 'Label"']
    assert [line.split() for line in lines if '"T12"' in line] == [
        ["19", "230", "159", "0", "1", "1", "1", '"T12"'],
    ]
    assert len(lines) == 1 + 28


def test_nnunet(tmp_path):
    WRITERS["nnunet"](in_scheme(labels(19), "plain"), "a", tmp_path)
    description = json.loads((tmp_path / "a_nnunet-dataset.json").read_text())
    assert description["labels"]["background"] == 0
    assert description["labels"]["L6"] == 25
    assert sorted(description["labels"].values()) == list(range(26))
    assert description["file_ending"] == ".nii.gz"
    assert read_labels(tmp_path / "a_nnunet.nii.gz").array.max() == 19


def test_nnunet_refuses_gaps():
    require_consecutive("verse")
    with pytest.raises(ConfigError, match=r"--scheme totalsegmentator: nnU-Net needs ids 1, 2, 3, .* verse"):
        require_consecutive("totalsegmentator")


def test_bids(tmp_path):
    WRITERS["bids"](in_scheme(labels(19), "verse"), "sub-01_dir-ax", tmp_path)
    lines = (tmp_path / "sub-01_dir-ax_desc-vertebrae_dseg.tsv").read_text().splitlines()
    assert lines[0] == "index\tname\tabbreviation\tcolor"
    assert "19\tT12 vertebra\tT12\t#e69f00" in lines
    assert "26\tsacrum\tsacrum" in "\n".join(lines)


@pytest.mark.parametrize(
    ("stem", "name"), [("sub-7_ses-1", "sub-7_ses-1"), ("LIDC-IDRI-0001", "sub-LIDCIDRI0001"), ("___", "sub-ct")]
)
def test_bids_names(stem, name):
    assert bids_name(stem) == name


@pytest.mark.parametrize("kind", WRITERS)
def test_names_are_known_before(tmp_path, kind):
    WRITERS[kind](in_scheme(labels(19, 20), "verse"), "a", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names_of(kind, "a", "verse"))
