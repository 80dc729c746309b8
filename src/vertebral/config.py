"""Frozen configurations. An unknown key is an error, and every config round-trips through YAML and JSON."""

import math
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from vertebral.anatomy import level_named
from vertebral.errors import ConfigError

OFFSET_UNIT_MM = 20.0
_LONGEST_SHOWN_VALUE = 60


class Config(BaseModel):
    """Base of all configs: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PreprocessConfig(Config):
    """How a CT becomes the network's input.

    `unit` maps the window linearly to [0, 1]. `zscore` clips to the window, then subtracts `mean_hu` and divides by
    `std_hu`; its values are not confined to [0, 1].
    """

    spacing_mm: float = Field(1.0, gt=0)
    window_hu: tuple[float, float] = (-100.0, 1000.0)
    scaling: Literal["unit", "zscore"] = "unit"
    mean_hu: float = 0.0
    std_hu: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _window_is_ordered(self) -> "PreprocessConfig":
        if self.window_hu[0] >= self.window_hu[1]:
            raise ValueError(f"window_hu {self.window_hu}: the lower bound must be below the upper one")
        return self


class NetworkConfig(Config):
    """MONAI residual U-Net. Class 0 is background; class n is `levels[n - 1]`.

    With `offsets` the network also says, in three further channels, where the centre of a voxel's vertebra lies.
    """

    kind: Literal["resunet"] = "resunet"
    levels: tuple[str, ...]
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    residual_units: int = Field(2, ge=0)
    offsets: bool = False

    @model_validator(mode="after")
    def _is_consistent(self) -> "NetworkConfig":
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError(f"{len(self.channels)} channels need {len(self.channels) - 1} strides")
        if len(set(self.levels)) != len(self.levels):
            raise ValueError("levels: a level is named twice")
        for name in self.levels:
            level_named(name)
        return self

    @property
    def class_count(self) -> int:
        """Number of classes, background included."""
        return len(self.levels) + 1

    @property
    def channel_count(self) -> int:
        """Number of output channels: the classes, then the offsets."""
        return self.class_count + (3 if self.offsets else 0)


class InferenceConfig(Config):
    """Sliding window: `window` in voxels of the prepared grid, `overlap` as a fraction of the window."""

    window: tuple[int, int, int] = (160, 160, 160)
    overlap: float = Field(0.25, ge=0, lt=1)


class ModelConfig(Config):
    """Everything that inference must know of a model; travels with its weights."""

    name: str
    network: NetworkConfig
    preprocess: PreprocessConfig = PreprocessConfig()
    inference: InferenceConfig = InferenceConfig()


class SourceConfig(Config):
    """One kind of training material; globs are relative to the data folder.

    `body`: whole-body label maps (`bodies`, each with a json of names). `vertebrae`: vertebra-only label maps
    (`labels`), each placed in `placements` of the `bodies`. `scan`: real CTs (`ct`) with label maps (`labels`); where
    `bodies` is given too, the HU of bone is real and the rest is painted from the body map.
    """

    kind: Literal["body", "vertebrae", "scan"]
    weight: float = Field(1.0, gt=0)
    bodies: str | None = None
    labels: str | None = None
    ct: str | None = None
    placements: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _has_its_globs(self) -> "SourceConfig":
        needed = {"body": ("bodies",), "vertebrae": ("bodies", "labels"), "scan": ("ct", "labels")}[self.kind]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"kind {self.kind} needs {' and '.join(missing)}")
        return self


class SynthesisConfig(Config):
    """Ranges from which each training patch draws its patient and scanner."""

    cache_spacing_mm: float = Field(2.0, gt=0)
    scale: tuple[float, float] = (0.8, 1.2)
    anisotropy: float = Field(0.08, ge=0)
    rotation_deg: float = Field(15.0, ge=0)
    elastic_mm: float = Field(5.0, ge=0)
    elastic_step_mm: float = Field(45.0, gt=0)
    mirror_probability: float = Field(0.3, ge=0, le=1)
    contrast_probability: float = Field(0.5, ge=0, le=1)
    slice_mm: tuple[float, float] = (0.6, 6.0)
    noise_hu: tuple[float, float] = (3.0, 45.0)
    breathing_mm: tuple[float, float] = (0.0, 0.0)
    crop_probability: float = Field(0.25, ge=0, le=1)
    spine_centred: float = Field(0.85, ge=0, le=1)


class OptimizerConfig(Config):
    """AdamW with a polynomial decay after a linear warm-up, and an exponential moving average of the weights."""

    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    warmup_steps: int = Field(0, ge=0)
    poly_power: float = Field(0.9, ge=0)
    clip_norm: float = Field(12.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)


class LossConfig(Config):
    """Weights of the loss: lambda of DiceCE, mu of the split into spine and level, and that of the offsets.

    See `training.losses`; the last counts only where the network has offsets.
    """

    cross_entropy_weight: float = Field(1.0, ge=0)
    hierarchy_weight: float = Field(0.0, ge=0)
    dice_over: Literal["all", "present"] = "all"
    offset_weight: float = Field(1.0, ge=0)


class TrainConfig(Config):
    """A whole training run: the model, its material and the schedule. `licence` is what the weights will carry."""

    model: ModelConfig
    licence: str = "unknown"
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    synthesis: SynthesisConfig = SynthesisConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    patch: tuple[int, int, int]
    batch: int = Field(1, ge=1)
    steps: int = Field(ge=1)
    loss: LossConfig = LossConfig()
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    checkpoint_every: int = Field(200, ge=1)
    workers: int = Field(1, ge=0)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _patch_fits_network(self) -> "TrainConfig":
        factor = math.prod(self.model.network.strides)
        if any(n < 1 or n % factor for n in self.patch):
            raise ValueError(f"patch {self.patch}: sizes must divide by {factor}, the product of the strides")
        return self


class RunConfig(Config):
    """What a user chooses for one run. `levels` None keeps all; `spacing_mm` None is the model's own."""

    model: str = "default"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    levels: tuple[str, ...] | None = None
    spacing_mm: float | None = Field(None, gt=0)
    series: str | None = None
    max_memory_gb: float | None = Field(None, gt=0)
    overwrite: bool = False


AnyConfig = TypeVar("AnyConfig", bound=Config)


def parse_config(kind: type[AnyConfig], values: Any, origin: str) -> AnyConfig:
    """Validate `values` as a `kind`. Raises ConfigError that names `origin` and each offending key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {'; '.join(_fault(one) for one in error.errors())}") from None


def _fault(error: ErrorDetails) -> str:
    """The key, the value and what is wrong with it."""
    key = ".".join(map(str, error["loc"])) or "file"
    value = repr(error["input"])
    shown = "" if error["type"] == "missing" or len(value) > _LONGEST_SHOWN_VALUE else f" = {value}"
    return f"{key}{shown}: {error['msg']}"


def load_config(kind: type[AnyConfig], path: Path) -> AnyConfig:
    """Read a YAML file as a `kind`. Raises ConfigError where it is missing, not YAML or not valid."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a readable YAML file ({error})") from None
    return parse_config(kind, values, str(path))
