from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebral.core.errors import ConfigError
from vertebral.training.config import TrainConfig
from vertebral.training.datasets import BatchSampler, open_datasets


@given(first=st.integers(0, 50), count=st.integers(0, 20), batch=st.integers(1, 5), world=st.integers(1, 4))
def test_devices_share_the_series_without_repeats(first: int, count: int, batch: int, world: int) -> None:
    """Batch by batch, all devices together see what one device with a larger batch sees."""
    shares = [list(BatchSampler(first, first + count, batch, rank, world)) for rank in range(world)]
    together = [[n for part in parts for n in part] for parts in zip(*shares, strict=True)]
    assert together == list(BatchSampler(first, first + count, batch * world))
    seen = [n for part in together for n in part]
    assert seen == list(range(first * batch * world, (first + count) * batch * world))


def test_a_sampler_by_hand() -> None:
    """Second of two devices, batches 3 and 4 of two patches each: of patches 12 to 19 it has the second halves."""
    sampler = BatchSampler(3, 5, 2, rank=1, world=2)
    assert list(sampler) == [[14, 15], [18, 19]] and len(sampler) == 2


def scans_config(**changes: object) -> TrainConfig:
    network = {"kind": "resunet", "levels": ["L1", "L2"], "channels": [4, 8], "strides": [2]}
    model = {"name": "m", "network": network, "preprocess": {"spacing_mm": 4.0}}
    data = {"kind": "scans", "patches_per_scan": 3, **changes}
    return TrainConfig.model_validate({"model": model, "data": data, "patch": [16, 16, 16]})


def test_scans_of_a_fold(scans: Path, tmp_path: Path) -> None:
    found = open_datasets(scans_config(), scans, tmp_path, lambda *_: None)
    assert found.per_pass == 4 * 3 and len(found.validation) == 2 and found.fixed_count == 2 * 3
    assert found.catalog_sha256 and len(found.catalog_sha256) == 64


@pytest.mark.parametrize("changes", [{"fold": 1}])
def test_a_fold_that_is_not_there_is_refused(scans: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="fold 1"):
        open_datasets(scans_config(**changes), scans, tmp_path, lambda *_: None)


def test_scans_prepared_otherwise_are_refused(scans: Path, tmp_path: Path) -> None:
    config = scans_config()
    preprocess = config.model.preprocess.model_copy(update={"spacing_mm": 1.0})
    other = config.model_copy(update={"model": config.model.model_copy(update={"preprocess": preprocess})})
    with pytest.raises(ConfigError, match="spacing_mm"):
        open_datasets(other, scans, tmp_path, lambda *_: None)


def test_vertebrae_are_cut_from_bodies(bodies: Path, tmp_path: Path) -> None:
    network = {"kind": "resunet", "levels": ["spine"], "guided": True, "channels": [4, 8], "strides": [2]}
    data = {
        "kind": "vertebrae",
        "sources": [{"kind": "body", "bodies": "*_organs.nii.gz"}],
        "synthesis": {"cache_spacing_mm": 4.0},
        "crop_margin_mm": 16.0,
    }
    model = {"name": "m", "network": network, "preprocess": {"spacing_mm": 4.0}, "inference": {"window": [16, 16, 16]}}
    values = {"model": model, "data": data, "patch": [16, 16, 16], "steps_per_epoch": 2}
    found = open_datasets(TrainConfig.model_validate(values), bodies, tmp_path / "cache", lambda *_: None)
    image, classes = found.patches[0]
    assert found.per_pass is None and not found.validation
    assert image.shape == (2, 16, 16, 16) and classes.shape == (16, 16, 16)
