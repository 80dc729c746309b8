"""The kinds of networks: the config of each, how it is built, which sizes it takes and what only its training uses.

A new kind is one entry, here or in any other package: a subclass of `NetworkConfig` and the function that builds its
`modules.Network`, given to `register_network`. Configs, training, weights and exports then know it by its `kind`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from vertebral.core.anatomy import SPINE, level_named
from vertebral.core.config import Config, changed
from vertebral.core.registry import Registry

if TYPE_CHECKING:
    from vertebral.models.modules import Network

AUXILIARY = "auxiliary"
"""Weights with this in their names are used in training only and not kept with a model."""


class NetworkConfig(Config):
    """What all networks share. Class 0 is background; class n is `levels[n - 1]`.

    `levels: [spine]` means one class, any vertebra. With `offsets` the network also predicts, in three further
    channels, where the centroid of a voxel's vertebra is. A `guided` network refines one vertebra at a time: its second
    input channel shows where a coarse network found it. `activation_checkpointing` saves memory in training, but
    computes the forward pass twice.
    """

    takes_any_size: ClassVar[bool] = True
    """False for a network whose exported form is tied to the size of its window."""

    levels: tuple[str, ...] = Field(min_length=1)
    offsets: bool = False
    guided: bool = False
    activation_checkpointing: bool = False
    kind: str

    @model_validator(mode="after")
    def _levels_are_known(self) -> "NetworkConfig":
        if len(set(self.levels)) != len(self.levels):
            raise ValueError("levels: a level is named twice")
        if SPINE.name in self.levels and len(self.levels) > 1:
            raise ValueError(f"levels: {SPINE.name} means any vertebra and must be the only one")
        for name in self.levels:
            level_named(name)
        if self.guided and (self.levels != (SPINE.name,) or self.offsets):
            raise ValueError(f"guided: a network that refines one vertebra has levels [{SPINE.name}] and no offsets")
        return self

    @property
    @abstractmethod
    def size_factor(self) -> int:
        """Sizes of patches and windows must be multiples of this."""

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

    def for_inference(self) -> "NetworkConfig":
        """The same network without what only training uses."""
        return changed(self, activation_checkpointing=False)

    def miniature(self) -> "NetworkConfig":
        """The same kind of network with few channels, for a trial run; the network itself unless overridden."""
        return self


_NETWORKS: Registry[NetworkConfig, Callable[[Any], "Network"]] = Registry("network")
AnyNetwork = Annotated[SerializeAsAny[NetworkConfig], BeforeValidator(_NETWORKS.parse)]
"""A field that holds the config of any registered network, told apart by `kind`."""


def register_network(config: type[NetworkConfig], build: Callable[[Any], "Network"]) -> None:
    """Add a kind of network: its config class, and the function that makes the untrained network of such a config.

    `build` imports PyTorch and the like itself: configs are read without them. Raises ConfigError if the kind is taken.
    """
    _NETWORKS.add(config, build)


def build_network(config: NetworkConfig) -> "Network":
    """Return the untrained network of `config`."""
    return _NETWORKS.function(config.kind)(config)


class UNetConfig(NetworkConfig):
    """MONAI U-Net, plain (`unet`) or with residual units (`resunet`), and a 1x1x1 head.

    `deep_supervision` is the number of coarser decoder stages that have a head of their own in training.
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
            raise ValueError(
                f"residual_units {self.residual_units}: kind unet takes 0, kind resunet 1 or more; this is {self.kind}"
            )
        if self.deep_supervision > len(self.strides) - 1:
            raise ValueError(f"deep_supervision {self.deep_supervision}: there are {len(self.strides) - 1} such stages")
        return self

    @property
    def size_factor(self) -> int:
        """The product of the strides."""
        return math.prod(self.strides)

    def for_inference(self) -> "UNetConfig":
        """The same network without auxiliary heads and activation checkpointing."""
        return changed(self, deep_supervision=0, activation_checkpointing=False)

    def miniature(self) -> "UNetConfig":
        """The same network with an eighth of the channels, at least 4."""
        return changed(self, channels=tuple(max(4, width // 8) for width in self.channels))


class SwinUNETRConfig(NetworkConfig):
    """MONAI Swin UNETR: `feature_size` channels, four stages of `depths` blocks with `heads` heads."""

    # Its windows of attention are cut for the traced size alone.
    takes_any_size: ClassVar[bool] = False

    kind: Literal["swinunetr"] = "swinunetr"
    feature_size: int = Field(48, ge=12, multiple_of=12)
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    deep_supervision: Literal[0] = 0

    @property
    def size_factor(self) -> int:
        """Five halvings: the patch embedding and four stages."""
        return 32

    def miniature(self) -> "SwinUNETRConfig":
        """The same network with 12 features and one block a stage."""
        return changed(self, feature_size=12, depths=(1, 1, 1, 1))


def _build_unet(config: UNetConfig) -> "Network":
    from vertebral.models.modules import VertebraUNet

    return VertebraUNet(config)


def _build_swin_unetr(config: SwinUNETRConfig) -> "Network":
    from vertebral.models.modules import VertebraSwinUNETR

    return VertebraSwinUNETR(config)


register_network(UNetConfig, _build_unet)
register_network(SwinUNETRConfig, _build_swin_unetr)
