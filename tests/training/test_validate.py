from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vertebral.core.config import PreprocessConfig
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.networks import UNetConfig
from vertebral.training.validate import ValidationScore, class_dice, gather_objects, means, score_scan


def test_dice_of_classes_by_hand() -> None:
    """Class 1: 2 of 3 and 2 voxels meet; class 2: 1 and 2, one meets; class 3 is in the prediction alone."""
    predicted = np.array([[[1, 1, 1, 2, 3, 0]]], np.uint8)
    expected = np.array([[[1, 1, 0, 2, 2, 0]]], np.uint8)
    dice = class_dice(predicted, expected, 4)
    assert dice == {0: pytest.approx(2 * 4 / (5 + 4)), 1: pytest.approx(4 / 5), 2: pytest.approx(2 / 3)}


def test_dice_of_nothing() -> None:
    empty = np.zeros((2, 2, 2), np.uint8)
    assert np.isnan(class_dice(empty, empty, 3)[0])
    assert class_dice(empty, np.ones_like(empty), 3) == {0: 0.0, 1: 0.0}


@given(st.integers(0, 2**32 - 1))
def test_a_map_equals_itself(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (3, 4, 5), dtype=np.uint8)
    assert all(value == 1 for value in class_dice(labels, labels, 4).values())


def test_means_leave_out_what_is_unknown() -> None:
    scores = [ValidationScore("a", "a", 0.5, 0.2, {}), ValidationScore("b", "b", 0.7, float("nan"), {})]
    assert means(scores) == (pytest.approx(0.6), pytest.approx(0.2))
    assert means([]) == (None, None)


def test_alone_there_is_one_to_gather() -> None:
    assert gather_objects({"a": 1}) == [{"a": 1}]


class Threshold(torch.nn.Module):
    """Class 1 between 300 and 600 HU, class 2 above, in a window of -100 to 1000 HU."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hu = image * 1100 - 100
        return 50 * torch.cat([(hu < 300), (hu >= 300) & (hu < 600), (hu >= 600)], dim=1).float()


def test_a_scan_is_scored_under_the_names_of_its_levels() -> None:
    """L1 is found, of L2 the lower half; both are 64 voxels."""
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[4:8, 4:8, 8:12] = 20
    labels[4:8, 4:8, 2:6] = 21
    ct = np.where(labels == 20, 400, np.where(labels == 21, 800, 0)).astype(np.int16)
    ct[4:8, 4:8, 4:6] = 0
    scan = SimpleNamespace(case="c", subject="s", ct=ct, labels=labels, affine=np.eye(4))
    network = UNetConfig(kind="unet", levels=("L1", "L2"), channels=(2, 4), strides=(2,), residual_units=0)
    model = ModelConfig(
        name="m",
        network=network,
        preprocess=PreprocessConfig(spacing_mm=1),
        inference=InferenceConfig(window=(16, 16, 16)),
    )
    score = score_scan(scan, Threshold(), model, torch.device("cpu"), "float32")  # type: ignore[arg-type]
    assert score.levels == {"L1": 1.0, "L2": pytest.approx(2 * 32 / 96)}
    assert score.dice_levels == pytest.approx((1 + 2 / 3) / 2)
    assert score.dice_spine == pytest.approx(2 * 96 / (96 + 128))
