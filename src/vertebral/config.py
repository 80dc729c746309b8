"""Frozen configurations. An unknown key is an error, and every config round-trips through YAML and JSON."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from vertebral.anatomy import SPINE, level_named
from vertebral.errors import ConfigError

OFFSET_UNIT_MM = 20.0
_LONGEST_SHOWN_VALUE = 60
Probability = Annotated[float, Field(ge=0, le=1)]


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


class FindingsConfig(Config):
    """What a painted patient may have: how probable each is in a patch (0 is never), and in which range.

    Arms: CT of the trunk is taken with the arms raised or at the side; the label maps have none. `arterial_probability`
    is the share of scans with contrast medium that are arterial: aorta, spleen and renal cortex as some 30 s after the
    injection, by protocols of CT angiography. Osteoporosis: trabecular bone well below the 110 HU that make it likely
    (Pickhardt et al., Ann Intern Med 2013), with its cortex kept. Fracture: a loss of height as in grades 1-3 of Genant
    et al. (J Bone Miner Res 1993), in front, in the middle or of the whole body. The other HU are those of cancellous
    to compact bone, and of PMMA with barium. Probabilities are above those of a population, for each to be learned.
    """

    arms_probability: Probability = 0.15
    arterial_probability: Probability = 0.4
    aorta_hu: tuple[float, float] = (250.0, 450.0)
    arterial_organ_hu: tuple[float, float] = (120.0, 250.0)
    osteoporosis_probability: Probability = 0.2
    osteoporotic_hu: tuple[float, float] = (20.0, 80.0)
    sclerosis_probability: Probability = 0.15
    sclerosis_hu: tuple[float, float] = (150.0, 500.0)
    endplate_probability: Probability = 0.3
    endplate_hu: tuple[float, float] = (50.0, 350.0)
    osteophyte_probability: Probability = 0.25
    vacuum_probability: Probability = 0.15
    calcification_probability: Probability = 0.25
    calcification_hu: tuple[float, float] = (300.0, 1100.0)
    cement_probability: Probability = 0.03
    cement_hu: tuple[float, float] = (1200.0, 2800.0)
    fracture_probability: Probability = 0.12
    fracture_loss: tuple[float, float] = (0.15, 0.5)


class ArtefactsConfig(Config):
    """What a painted scan may show beside the patient: how probable each is in a patch (0 is never), and its range.

    The table is a shell of carbon fibre around foam. Beam hardening takes `beam_hardening_hu` from where the rays are
    longest and adds grain along them (Barrett and Keat, RadioGraphics 2004). `sharpness` is the share of detail that a
    bone kernel adds and a soft one, below 0, takes away. Motion shifts a part of the data by `motion_mm`.
    """

    table_probability: Probability = 0.5
    clothes_probability: Probability = 0.2
    lines_probability: Probability = 0.15
    beam_hardening_probability: Probability = 0.25
    beam_hardening_hu: tuple[float, float] = (10.0, 80.0)
    kernel_probability: Probability = 0.3
    sharpness: tuple[float, float] = (-0.5, 1.2)
    metal_probability: Probability = 0.03
    motion_probability: Probability = 0.08
    motion_mm: tuple[float, float] = (1.0, 4.0)


class SynthesisConfig(Config):
    """Ranges from which each training patch draws its patient and scanner.

    `texture` scales the deviation of HU within each tissue (`data.tissues`); (0, 0) paints tissues of one HU.
    `variant_probability` is that of one vertebra more or fewer (T13, L6, no T12, no L5) where a patch shows the place;
    other numbers of vertebrae than 24 are not rare (Carrino et al., Radiology 2011). `findings` and `artefacts` null
    paint healthy patients without arms, on no table.
    """

    cache_spacing_mm: float = Field(2.0, gt=0)
    scale: tuple[float, float] = (0.8, 1.2)
    anisotropy: float = Field(0.08, ge=0)
    rotation_deg: float = Field(15.0, ge=0)
    elastic_mm: float = Field(5.0, ge=0)
    elastic_step_mm: float = Field(45.0, gt=0)
    mirror_probability: float = Field(0.3, ge=0, le=1)
    contrast_probability: float = Field(0.5, ge=0, le=1)
    texture: tuple[float, float] = (0.4, 1.6)
    slice_mm: tuple[float, float] = (0.6, 6.0)
    noise_hu: tuple[float, float] = (3.0, 45.0)
    breathing_mm: tuple[float, float] = (0.0, 0.0)
    crop_probability: float = Field(0.25, ge=0, le=1)
    spine_centred: float = Field(0.85, ge=0, le=1)
    variant_probability: Probability = 0.0
    findings: FindingsConfig | None = None
    artefacts: ArtefactsConfig | None = None


class AugmentConfig(Config):
    """Ranges from which each patch of a real scan draws its change of pose and of image; probability 0 is never.

    No flip but left for right is there: upside down or back to front a spine is no spine.
    """

    affine_probability: float = Field(0.5, ge=0, le=1)
    rotation_deg: float = Field(15.0, ge=0)
    scale: tuple[float, float] = (0.85, 1.15)
    elastic_probability: float = Field(0.2, ge=0, le=1)
    elastic_mm: float = Field(5.0, ge=0)
    elastic_step_mm: float = Field(45.0, gt=0)
    mirror_probability: float = Field(0.5, ge=0, le=1)
    intensity_probability: float = Field(0.5, ge=0, le=1)
    noise_probability: float = Field(0.2, ge=0, le=1)
    noise_hu: tuple[float, float] = (0.0, 60.0)
    blur_probability: float = Field(0.15, ge=0, le=1)
    blur_mm: tuple[float, float] = (0.3, 1.5)
    low_resolution_probability: float = Field(0.15, ge=0, le=1)
    slice_mm: tuple[float, float] = (2.0, 6.0)
    metal_probability: float = Field(0.02, ge=0, le=1)


class ScansConfig(Config):
    """Patches from real scans with labels: `train --data` is a folder that `data prepare` made.

    An epoch cuts `patches_per_scan` patches from each scan, the share `bone_centred` of them around a voxel of bone and
    the rest anywhere. `augment` null changes nothing.
    """

    kind: Literal["scans"]
    fold: int = Field(0, ge=0)
    patches_per_scan: int = Field(4, ge=1)
    bone_centred: float = Field(0.5, ge=0, le=1)
    augment: AugmentConfig | None = AugmentConfig()


class SyntheticConfig(Config):
    """Patches painted from label maps: `train --data` is the folder that the globs of `sources` start from."""

    kind: Literal["synthetic"]
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    synthesis: SynthesisConfig = SynthesisConfig()


class VertebraeConfig(Config):
    """Patches around one vertebra each, painted from label maps, for a guided network; otherwise as `synthetic`.

    Bodies are cut to `crop_margin_mm` around the box of their vertebrae; null keeps all. A patch's middle misses the
    vertebra's centroid by a normal error with a standard deviation of `centre_error_mm` along each axis, never above
    twice that, for a vertebra of 40 ml; a smaller one is missed by less, with the cube root of its volume. A body's
    vertebrae are drawn with weights of volume to the power of -`smallness`: 0 draws each as often as the others, 0.5 a
    cervical one about twice as often as a lumbar one.
    """

    kind: Literal["vertebrae"]
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    crop_margin_mm: float | None = Field(60.0, gt=0)
    synthesis: SynthesisConfig = SynthesisConfig()
    centre_error_mm: float = Field(4.0, ge=0)
    smallness: float = Field(0.0, ge=0)


class OptimizerConfig(Config):
    """AdamW after a linear warm-up, at a constant rate or with a polynomial decay over a phase.

    `ema_decay` null keeps no exponential moving average of the weights; where there is one, it is what is validated and
    kept. `encoder_rate` is the learning rate of the encoder as a share of the rest's; 0 freezes it.
    """

    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    schedule: Literal["constant", "poly"] = "constant"
    poly_power: float = Field(0.9, ge=0)
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, ge=0, lt=1)
    encoder_rate: float = Field(1.0, ge=0, le=1)


class LossConfig(Config):
    """Weights of the loss: lambda of DiceCE, mu of the split into spine and level, and that of the offsets.

    See `training.losses`; the last counts only where the network has offsets.
    """

    cross_entropy_weight: float = Field(1.0, ge=0)
    hierarchy_weight: float = Field(0.0, ge=0)
    dice_over: Literal["all", "present"] = "all"
    offset_weight: float = Field(1.0, ge=0)


class ValidationConfig(Config):
    """Which epoch is the best one, and when to stop: `patience` epochs without a better one; null never stops early.

    `dice` is the mean Dice of the levels over the validation scans (sliding window), `loss` the mean loss of patches
    cut from them at fixed places.
    """

    every_epochs: int = Field(1, ge=1)
    monitor: Literal["dice", "loss"] = "dice"
    patience: int | None = Field(None, ge=1)


class TrainConfig(Config):
    """A whole training run: the model, its material and the schedule. `licence` is what the weights will carry.

    `phases` times `epochs` epochs are run; each phase after the first starts from the best weights of the one before,
    with a new optimizer. An epoch has `steps_per_epoch` steps, or as many as a pass over the scans takes. A step sees
    `batch` patches a device, `accumulate` times.
    """

    model: ModelConfig
    licence: str = "unknown"
    data: Annotated[ScansConfig | SyntheticConfig | VertebraeConfig, Field(discriminator="kind")]
    patch: tuple[int, int, int]
    batch: int = Field(1, ge=1)
    accumulate: int = Field(1, ge=1)
    epochs: int = Field(50, ge=1)
    phases: int = Field(1, ge=1)
    steps_per_epoch: int | None = Field(None, ge=1)
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    validation: ValidationConfig = ValidationConfig()
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    deterministic: bool = False
    workers: int = Field(1, ge=0)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _is_consistent(self) -> "TrainConfig":
        factor = self.model.network.size_factor
        for name, size in (("patch", self.patch), ("model.inference.window", self.model.inference.window)):
            if any(n < 1 or n % factor for n in size):
                raise ValueError(f"{name} {size}: sizes must divide by {factor} for this network")
        if (self.data.kind == "vertebrae") != self.model.network.guided:
            raise ValueError(f"data.kind {self.data.kind}: a guided network learns from vertebrae, no other does")
        if self.data.kind != "scans" and self.steps_per_epoch is None:
            raise ValueError("steps_per_epoch: patches from label maps have no end; say how many steps an epoch has")
        return self


DICOM_FORMATS = ("seg", "rtstruct", "stl-dicom", "sr")
ExportFormat = Literal["seg", "rtstruct", "stl-dicom", "sr", "seg.nrrd", "itksnap", "nifti", "nnunet", "bids"]


class ExportConfig(Config):
    """What a result is also written as, and the scheme that gives label maps for other tools their ids."""

    formats: tuple[ExportFormat, ...] = ()
    scheme: str = "verse"


class ExportRunConfig(ExportConfig):
    """What a user chooses for `vertebral export`; `series` chooses among those of the DICOM source."""

    formats: tuple[ExportFormat, ...] = Field(("seg",), min_length=1)
    series: str | None = None
    overwrite: bool = False


class RunConfig(ExportConfig):
    """What a user chooses for one run. `levels` None keeps all; `spacing_mm` None is the model's own.

    `refine` False leaves the model's refiner out: faster and coarser. `backend` computes the networks; auto is OpenVINO
    on a CPU where it is installed, and PyTorch else. `exact` looks at all of the scan, not only where a spine may be.
    `overlap` of the windows, as a fraction of one, is the model's own where it is None. With `mirror` the networks see
    everything mirrored too, left for right, and the mean of both counts.
    """

    model: str = "default"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "torch", "openvino"] = "auto"
    levels: tuple[str, ...] | None = None
    spacing_mm: float | None = Field(None, gt=0)
    refine: bool = True
    exact: bool = False
    overlap: float | None = Field(None, ge=0, le=0.9)
    mirror: bool = False
    series: str | None = None
    max_memory_gb: float | None = Field(None, gt=0)
    overwrite: bool = False


class MeshConfig(Config):
    """How surfaces are made; lengths in mm.

    `smooth` scales the smoothing: 1 is all of it, 0 none. `max_error_mm` bounds how far decimation may move the
    surface, 0 keeps all triangles. `target_edge_mm` samples the surface anew at about this edge length and keeps all
    triangles. `clearance_mm` is the least gap between neighbours.
    """

    smooth: float = Field(1.0, ge=0, le=1)
    max_error_mm: float = Field(0.15, ge=0, le=2)
    target_edge_mm: float | None = Field(None, ge=0.2, le=5)
    clearance_mm: float = Field(0.1, ge=0, le=1.5)


class MeshRunConfig(MeshConfig):
    """What a user chooses for `vertebral mesh`. `levels` None keeps all; `lps` writes LPS+ in place of RAS+.

    `cut` is a plane (sagittal, coronal, axial), through the middle of what is meshed or, as in `axial@-120.5`, where it
    is told in RAS+ mm.
    """

    levels: tuple[str, ...] | None = None
    formats: tuple[Literal["stl", "ply", "obj", "glb", "3mf"], ...] = Field(("stl", "glb"), min_length=1)
    lps: bool = False
    cut: str | None = Field(None, pattern=r"^(sagittal|coronal|axial)(@-?\d+(\.\d+)?)?$")
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


def load_config(kind: type[AnyConfig], path: Path, changes: Sequence[str] = ()) -> AnyConfig:
    """Read a YAML file as a `kind`, with `changes` such as `optimizer.learning_rate=1e-3` on top, values in YAML.

    Raises ConfigError where it is missing, not YAML or not valid.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a readable YAML file ({error})") from None
    for change in changes:
        _change(values, change)
    return parse_config(kind, values, str(path))


def _change(values: Any, change: str) -> None:
    """Set one key of a nested mapping. Raises ConfigError where `change` is not key=value or leads nowhere."""
    keys, equals, text = change.partition("=")
    *outer, last = keys.strip().split(".")
    for key in outer:
        values = values.setdefault(key, {}) if isinstance(values, dict) else None
    if not equals or not isinstance(values, dict):
        raise ConfigError(f"{change!r}: write it as key=value, with dots between nested keys, as in patch=[64,64,64]")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{change!r}: its value is no YAML") from None
