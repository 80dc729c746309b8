"""What a model's card says: its network, the input that it wants and the windows that it sees."""

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
    """Everything that inference must know of a model; travels with its weights.

    `refiner` names the model that refines what this one finds: a folder beside this model's, or any name that
    `vertebral run --model` takes. The window of a refiner is the box around one vertebra.
    """

    name: str
    network: AnyNetwork
    preprocess: PreprocessConfig = PreprocessConfig()
    inference: InferenceConfig = InferenceConfig()
    refiner: str | None = None

    @model_validator(mode="after")
    def _refiner_has_none(self) -> "ModelConfig":
        if self.refiner is not None and self.network.guided:
            raise ValueError(f"refiner {self.refiner}: a guided network refines and is not refined itself")
        return self


class ModelsConfig(Config):
    """Which networks a run loads, and what computes them.

    `model` is a shipped or imported model's name, or a folder. `refine` False leaves the model's refiner out: faster
    and coarser. `backend` computes the networks; auto is OpenVINO on a CPU where it is installed, and PyTorch else.
    With `mirror` the networks see everything mirrored too, left for right, and the mean of both counts.
    """

    model: str = "default"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "torch", "openvino"] = "auto"
    refine: bool = True
    mirror: bool = False
