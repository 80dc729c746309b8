"""Micro datasets for the real engine: two bodies of blocks to paint, and six prepared scans of blocks."""

import json
from pathlib import Path

import numpy as np
import pytest

from vertebral.core.config import PreprocessConfig
from vertebral.core.volume import Volume
from vertebral.data.verse.catalogue import Catalogue
from vertebral.data.verse.index import index_dataset
from vertebral.data.verse.prepare import prepare_dataset
from vertebral.data.verse.split import make_split
from vertebral.io.write import write_image, write_labels

MM = 4.0
AFFINE = np.diag([MM, MM, MM, 1.0])


@pytest.fixture(scope="session")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bodies of 4 mm: L1 and L2 as blocks in fat, one wider than the other."""
    folder = tmp_path_factory.mktemp("bodies")
    for name, width in (("a", 12), ("b", 16)):
        labels = np.zeros((24, 24, 30), np.uint8)
        labels[2:22, 2:22] = 90
        low = 12 - width // 2
        labels[low : low + width, 8:16, 17:23] = 20
        labels[low : low + width, 8:16, 8:14] = 21
        write_labels(Volume(labels, AFFINE), folder / f"{name}_organs.nii.gz")
        (folder / f"{name}_organs.json").write_text('{"20": "L1", "21": "L2", "90": "fat"}')
    return folder


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scans of 4 mm, prepared: L1 at 500 HU and L2 at 800 HU in soft tissue and air. Two are for validation."""
    source, out = tmp_path_factory.mktemp("scans"), tmp_path_factory.mktemp("prepared")
    for folder in ("images", "labels"):
        (source / folder).mkdir()
    noise = np.random.default_rng(0)
    for number in range(6):
        labels = np.zeros((24, 24, 30), np.uint8)
        left = 4 + number
        labels[left : left + 10, 8:16, 17:23] = 20
        labels[left : left + 10, 8:16, 8:14] = 21
        hu = np.select([labels == 20, labels == 21], [500, 800], 40) + noise.integers(-20, 20, labels.shape)
        hu[:, :4] = -1000
        write_image(Volume(hu.astype(np.int16), AFFINE), source / "images" / f"s{number}_ct.nii.gz")
        write_labels(Volume(labels, AFFINE), source / "labels" / f"s{number}_seg-vert_msk.nii.gz")
    catalogue: Catalogue = index_dataset(source, source / "catalog.json", jobs=1)
    split = make_split(catalogue, mode="random", validation=0.34, seed=0)
    prepare_dataset(catalogue, split, PreprocessConfig(spacing_mm=MM), out, jobs=1)
    assert json.loads((out / "prepared.json").read_text())
    return out
