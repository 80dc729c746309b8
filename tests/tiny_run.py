"""A run in which a network without fault sees a phantom, so that it takes a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vertebral.core.anatomy import Level
from vertebral.core.config import PreprocessConfig
from vertebral.core.records import Evidence, Prepared
from vertebral.core.volume import Volume
from vertebral.data.patches.network_input import class_of_verse_id
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.networks import UNetConfig
from vertebral.stages.preprocess import prepare_labels

SPACING_MM = 4.0
LEVELS = ("T11", "T12", "L1", "L2", "L3")
CONFIG = ModelConfig(
    name="tiny",
    network=UNetConfig(kind="unet", levels=LEVELS, channels=(2, 4), strides=(2,), residual_units=0),
    preprocess=PreprocessConfig(spacing_mm=SPACING_MM),
    inference=InferenceConfig(window=(32, 32, 32)),
)


def perfect_inference(labels: Volume) -> Callable[..., Evidence]:
    """What a network without fault would say of the scan that `labels` belongs to."""

    def infer(
        prepared: Prepared,
        network: object,
        config: object,
        levels: tuple[Level, ...],
        device: object,
        progress: Any,
        offsets: bool,
        follow: bool,
        rules: object,
    ) -> Evidence:
        truth = prepare_labels(labels, prepared.config.spacing_mm)
        assert truth.grid.matches(prepared.volume.grid)
        classes = class_of_verse_id(tuple(level.name for level in levels)).numpy()
        first, rest = classes[truth.array], np.zeros(truth.array.shape, np.uint8)
        progress(0.5)
        return Evidence(first, rest, np.full_like(first, 255), rest, levels, prepared.volume.grid)

    return infer


def stub_preview(scan: Volume, labels: Volume, surfaces: object, path: Path, title: str) -> None:
    assert scan.grid.matches(labels.grid)
    path.write_bytes(title.encode())
