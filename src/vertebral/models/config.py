"""What a model's card says: its network, the input that it wants and the windows that it sees."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vertebral.core.anatomy import SPINE, level_named
from vertebral.core.config import Config, PreprocessConfig

OFFSET_UNIT_MM = 20.0


class _NetworkConfig(Config):
    """What all networks share. Class 0 is background; class n is `levels[n - 1]`.

    `levels: [spine]` asks for one class, any vertebra. With `offsets` the network also says, in three further channels,
    where the centre of a voxel's vertebra lies. A `guided` network refines one vertebra at a time: it sees, in a second
    input channel, where a coarser network found it. `activation_checkpointing` saves memory in training, at the price
    of computing the forward pass twice.
    """

    levels: tuple[str, ...] = Field(min_length=1)
    offsets: bool = False
    guided: bool = False
    activation_checkpointing: bool = False

    @model_validator(mode="after")
    def _levels_are_known(self) -> "_NetworkConfig":
        if len(set(self.levels)) != len(self.levels):
            raise ValueError("levels: a level is named twice")
        if SPINE.name in self.levels and len(self.levels) > 1:
            raise ValueError(f"levels: {SPINE.name} means any vertebra and stands alone")
        for name in self.levels:
            level_named(name)
        if self.guided and (self.levels != (SPINE.name,) or self.offsets):
            raise ValueError(f"guided: a network that refines one vertebra has levels [{SPINE.name}] and no offsets")
        return self

    @property
    def input_count(self) -> int:
        """Number of input channels: the CT, then the guidance."""
        return 2 if self.guided else 1

    @property
    def class_count(self) -> int:
        """Number of classes, background included."""
        return len(self.levels) + 1

    @property
    def channel_count(self) -> int:
        """Number of output channels: the classes, then the offsets."""
        return self.class_count + (3 if self.offsets else 0)


class UNetConfig(_NetworkConfig):
    """MONAI U-Net, plain (`unet`) or with residual units (`resunet`), and a 1x1x1 head.

    `deep_supervision` is the number of coarser decoder stages that have a head of their own while training.
    """

    kind: Literal["unet", "resunet"] = "resunet"
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    residual_units: int = Field(2, ge=0)
    deep_supervision: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _is_consistent(self) -> "UNetConfig":
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError(f"{len(self.channels)} channels need {len(self.channels) - 1} strides")
        if (self.kind == "unet") != (self.residual_units == 0):
            raise ValueError(f"kind {self.kind} with residual_units {self.residual_units}: a unet has none of them")
        if self.deep_supervision > len(self.strides) - 1:
            raise ValueError(f"deep_supervision {self.deep_supervision}: there are {len(self.strides) - 1} such stages")
        return self

    @property
    def size_factor(self) -> int:
        """What the sizes of a patch must divide by."""
        return math.prod(self.strides)


class SwinUNETRConfig(_NetworkConfig):
    """MONAI Swin UNETR: `feature_size` channels, four stages of `depths` blocks with `heads` heads."""

    kind: Literal["swinunetr"]
    feature_size: int = Field(48, ge=12, multiple_of=12)
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    deep_supervision: Literal[0] = 0

    @property
    def size_factor(self) -> int:
        """What the sizes of a patch must divide by."""
        return 32


NetworkConfig = Annotated[UNetConfig | SwinUNETRConfig, Field(discriminator="kind")]


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
    network: NetworkConfig
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
