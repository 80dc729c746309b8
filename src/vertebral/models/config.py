"""The config of a model: its network, its input and its sliding window; and which models a run loads."""

from typing import Literal

from pydantic import Field, model_validator

from vertebral.core.config import Config, PreprocessConfig
from vertebral.models.networks import AnyNetwork

OFFSET_UNIT_MM = 20.0


class InferenceConfig(Config):
    """Sliding window: `window` in voxels of the prepared grid, `overlap` as a fraction of the window."""

    window: tuple[int, int, int] = (160, 160, 160)
    overlap: float = Field(0.25, ge=0, lt=1)


class ModelConfig(Config):
    """Everything that inference needs to know about a model; kept with its weights.

    `refiner` names the model that refines this one's results: a folder next to this model's, or any name that
    `vertebral run --model` accepts. The window of a refiner is the box around one vertebra.
    """

    name: str
    network: AnyNetwork
    preprocess: PreprocessConfig = PreprocessConfig()
    inference: InferenceConfig = InferenceConfig()
    refiner: str | None = None

    @model_validator(mode="after")
    def _refiner_has_none(self) -> "ModelConfig":
        if self.refiner is not None and self.network.guided:
            raise ValueError(f"refiner {self.refiner}: a guided network is a refiner and has none itself")
        return self


class ModelsConfig(Config):
    """Which networks a run loads, and what runs them.

    `model` is the name of a shipped or imported model, or a folder. `refine` False leaves out the model's refiner:
    faster and coarser. `backend` runs the networks; auto is OpenVINO on a CPU if it is installed, else PyTorch. With
    `mirror` the networks also see everything mirrored, left for right, and their outputs are averaged.
    """

    model: str = "default"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "torch", "openvino"] = "auto"
    refine: bool = True
    mirror: bool = False
