"""The sources of training patches: real scans, painted bodies, or single painted vertebrae."""

from typing import Annotated, Literal

from pydantic import Field

from vertebral.core.config import Config
from vertebral.data.synthesis.config import SourceConfig, SynthesisConfig
from vertebral.models.config import ModelConfig


class AugmentConfig(Config):
    """Ranges from which each patch of a real scan draws its changes of pose and image; probability 0 is never.

    Only left and right are ever flipped: a spine is never upside down or back to front.
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

    An epoch takes `patches_per_scan` patches from each scan: the share `bone_centred` of them centred on a voxel of
    bone, the rest anywhere. With `augment` null, nothing is changed.
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

    Bodies are cropped to `crop_margin_mm` around the box of their vertebrae; null keeps everything. The centre of a
    patch misses the centroid of the vertebra by a normal error with a standard deviation of `centre_error_mm` along
    each axis, at most twice that, for a vertebra of 40 ml; for a smaller one the error shrinks with the cube root of
    its volume. The vertebrae of a body are drawn with weights of volume to the power of -`smallness`: 0 draws all
    equally often, 0.5 a cervical one about twice as often as a lumbar one.
    """

    kind: Literal["vertebrae"]
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    crop_margin_mm: float | None = Field(60.0, gt=0)
    synthesis: SynthesisConfig = SynthesisConfig()
    centre_error_mm: float = Field(4.0, ge=0)
    smallness: float = Field(0.0, ge=0)


class PatchConfig(Config):
    """All that determines a training patch: the model that it is for, its source, its size in voxels and a seed."""

    model: ModelConfig
    data: Annotated[ScansConfig | SyntheticConfig | VertebraeConfig, Field(discriminator="kind")]
    patch: tuple[int, int, int]
    seed: int = Field(0, ge=0)
