"""A whole training run as data: model, patches, loss, optimizer and schedule."""

from typing import Literal

from pydantic import Field, model_validator

from vertebral.core.config import Config
from vertebral.data.patches.config import PatchConfig
from vertebral.training.losses import AnyLoss, DiceCEConfig

TrainingPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]


class OptimizerConfig(Config):
    """AdamW after a linear warm-up, at a constant rate or with a polynomial decay over a phase.

    With `ema_decay` an exponential moving average of the weights is validated and kept in their place; null keeps no
    average. `encoder_rate` is the learning rate of the encoder as a share of the others'; 0 freezes the encoder.
    """

    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    schedule: Literal["constant", "poly"] = "constant"
    poly_power: float = Field(0.9, ge=0)
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, ge=0, lt=1)
    encoder_rate: float = Field(1.0, ge=0, le=1)


class ValidationConfig(Config):
    """How often to validate, by which number to choose the best epoch, and when to stop.

    `dice` is the mean Dice of the levels over the validation scans (sliding window), `loss` the mean loss of patches
    cut from them at fixed positions. A phase stops after `patience` epochs without a better one; null never stops it.
    """

    every_epochs: int = Field(1, ge=1)
    monitor: Literal["dice", "loss"] = "dice"
    patience: int | None = Field(None, ge=1)


class TrainConfig(PatchConfig):
    """A whole training run: the model, its datasets and the schedule. `licence` is that of the weights.

    The run has `phases` phases of `epochs` epochs; each phase after the first starts from the best weights of the one
    before, with a new optimizer. An epoch has `steps_per_epoch` steps, or as many as a pass over the scans takes. A
    step takes `accumulate` batches of `batch` patches per device. `precision: auto` is chosen for the processor when
    the run starts: see `precision.choose_precision`.
    """

    licence: str = "unknown"
    batch: int = Field(1, ge=1)
    accumulate: int = Field(1, ge=1)
    epochs: int = Field(50, ge=1)
    phases: int = Field(1, ge=1)
    steps_per_epoch: int | None = Field(None, ge=1)
    loss: AnyLoss = DiceCEConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    validation: ValidationConfig = ValidationConfig()
    precision: TrainingPrecision | Literal["auto"] = "32-true"
    compile: bool = False
    deterministic: bool = False
    workers: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _is_consistent(self) -> "TrainConfig":
        factor = self.model.network.size_factor
        for name, size in (("patch", self.patch), ("model.inference.window", self.model.inference.window)):
            if any(n < 1 or n % factor for n in size):
                raise ValueError(f"{name} {size}: sizes must be multiples of {factor} for this network")
        if (self.data.kind == "vertebrae") != self.model.network.guided:
            raise ValueError(
                f"data.kind {self.data.kind}: guided networks (refiners) need vertebrae, others another kind"
            )
        if self.data.kind != "scans" and self.steps_per_epoch is None:
            raise ValueError("steps_per_epoch: patches from label maps never end; set the number of steps in an epoch")
        return self
