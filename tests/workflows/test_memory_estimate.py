from pathlib import Path

import numpy as np
import pytest

from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ReadError
from vertebral.core.volume import Grid, Volume
from vertebral.io.ct.read import read_scan
from vertebral.io.write import write_image
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.networks import UNetConfig
from vertebral.workflows.config import RunConfig
from vertebral.workflows.memory_estimate import estimate_gb, need_of

FINDER = ModelConfig(
    name="finder",
    network=UNetConfig(levels=("L1",)),
    preprocess=PreprocessConfig(spacing_mm=2.0),
    inference=InferenceConfig(window=(64, 64, 64)),
)
REFINER = FINDER.model_copy(update={"preprocess": PreprocessConfig(spacing_mm=1.0)})


def grid(*shape: int, spacing_mm: float = 1.0) -> Grid:
    return Grid((shape[0], shape[1], shape[2]), np.diag([spacing_mm] * 3 + [1.0]))


def test_by_hand() -> None:
    """200 x 200 x 400 mm at 1 mm; 100 x 100 x 200 voxels of 2 mm, a layer of 64 planes, three channels and a weight."""
    source, coarse, window = 16e6, 2.0e6, 64**3
    infer = coarse * 11 + 100 * 100 * 64 * 3 * 4 + window * (160 + 2 * 3) * 4
    assert estimate_gb(grid(200, 200, 400), FINDER, None) == pytest.approx(0.65 + (2 * source + infer) / 1e9, rel=0.02)


def test_it_grows_with_the_scan_and_with_what_is_asked_for() -> None:
    plain = estimate_gb(grid(300, 300, 400), FINDER, None)
    assert plain < estimate_gb(grid(300, 300, 800), FINDER, None)
    wide = grid(800, 300, 200)
    assert estimate_gb(wide, FINDER, None, exact=True) < estimate_gb(
        wide, FINDER, None
    )  # layers along the longest axis
    large = grid(600, 600, 1500)
    assert estimate_gb(large, FINDER, None) < estimate_gb(large, FINDER, REFINER)
    copies = estimate_gb(large, FINDER, REFINER, copies=True) - estimate_gb(large, FINDER, REFINER)
    assert copies == pytest.approx(0.25 + 0.54)  # 540 million labels of a byte


def test_a_scan_that_does_not_fit_is_refused_with_its_need(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii"
    write_image(Volume(np.arange(-256, 256, dtype=np.int16).reshape(8, 8, 8), np.eye(4)), path)
    with pytest.raises(ReadError, match=r"8 x 8 x 8 voxels need about 3 GB of memory, but only 2 GB are allowed"):
        read_scan(path, max_memory_gb=2, need_gb=lambda grid: 3.0)
    assert read_scan(path, max_memory_gb=4, need_gb=lambda grid: 3.0).stem == "ct"


def test_the_shipped_model_stays_below_four_gb_on_a_very_long_ct() -> None:
    need_gb = need_of(RunConfig(), processors=2)(Grid((512, 512, 1200), np.diag([0.7, 0.7, 1.0, 1.0])))
    assert 2 < need_gb < 4
