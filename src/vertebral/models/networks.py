"""Networks, built from a network config; no file is read here. All end in `head`, a 1x1x1 convolution.

The head gives the classes and, where the config asks for them, the offsets: from a voxel to the centroid of its
vertebra along R, A, S, in units of `config.OFFSET_UNIT_MM`.
"""

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unet import UNet
from torch.utils.checkpoint import checkpoint

from vertebral.models.config import NetworkConfig, SwinUNETRConfig, UNetConfig

AUXILIARY = "auxiliary"


class VertebraUNet(torch.nn.Module):
    """MONAI's U-Net, plain or residual, with the head.

    MONAI's `UNet` runs its last residual block at the number of output classes, at full resolution. With 27 classes
    that block would cost more than the rest of the network, so the U-Net ends at its first width and the head follows.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.body = UNet(
            spatial_dims=3,
            in_channels=config.input_count,
            out_channels=config.channels[0],
            channels=config.channels,
            strides=config.strides,
            num_res_units=config.residual_units,
            norm="INSTANCE",
        )
        self.head = torch.nn.Conv3d(config.channels[0], config.channel_count, kernel_size=1)
        self.auxiliary = torch.nn.ModuleList(
            torch.nn.Conv3d(width, config.class_count, kernel_size=1)
            for width in config.channels[: config.deep_supervision]
        )
        self._checkpointing = config.activation_checkpointing

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Map (B, inputs, I, J, K) to (B, channels, I, J, K) logits and offsets; strides divide sizes.

        While training with deep supervision it is a tuple: after the output the logits of the coarser decoder stages,
        finest first.
        """
        if not self.training:
            output: torch.Tensor = self.head(self.body(image))
            return output
        stages: list[torch.Tensor] = []
        output = self.head(self._block(self.body.model, image, stages))
        if not self.auxiliary:
            return output
        finest_first = stages[::-1][1:]
        return output, *(head(stage) for head, stage in zip(self.auxiliary, finest_first, strict=False))

    def _block(self, block: torch.nn.Module, values: torch.Tensor, stages: list[torch.Tensor]) -> torch.Tensor:
        """MONAI's nested blocks (down, skip around the next one, up), step by step; `stages` gets what each gives."""
        parts = _parts(block)
        if parts is None:  # the bottom
            return self._run(block, values)
        down, inside, up = parts
        coarser = self._run(down, values)
        inner = self._block(inside, coarser, stages)
        found = self._run(up, torch.cat([coarser, inner], dim=1))
        stages.append(found)
        return found

    def _run(self, layer: torch.nn.Module, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = checkpoint(layer, values, use_reentrant=False) if self._checkpointing else layer(values)
        return result

    def encoder(self) -> list[torch.nn.Parameter]:
        """The weights on the way down, the bottom included."""
        found: list[torch.nn.Parameter] = []
        block: torch.nn.Module = self.body.model
        while parts := _parts(block):
            found += parts[0].parameters()
            block = parts[1]
        return [*found, *block.parameters()]


def _parts(block: torch.nn.Module) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module] | None:
    """The way down, what is inside, and the way up of one of MONAI's nested blocks; None for the innermost."""
    if not isinstance(block, torch.nn.Sequential) or len(block) != 3 or not isinstance(block[1], SkipConnection):
        return None
    return block[0], block[1].submodule, block[2]


class VertebraSwinUNETR(torch.nn.Module):
    """MONAI's Swin UNETR with the head. It embeds 2x2x2 voxels at a time, the only size that MONAI's decoder fits."""

    def __init__(self, config: SwinUNETRConfig) -> None:
        super().__init__()
        self.body = SwinUNETR(
            in_channels=config.input_count,
            out_channels=config.channel_count,
            feature_size=config.feature_size,
            depths=config.depths,
            num_heads=config.heads,
            use_checkpoint=config.activation_checkpointing,
        )
        self.body.out = torch.nn.Identity()  # type: ignore[assignment]  # its place is taken by the head
        self.head = torch.nn.Conv3d(config.feature_size, config.channel_count, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, I, J, K) to (B, channels, I, J, K) logits and offsets; 32 divides sizes."""
        output: torch.Tensor = self.head(self.body(image))
        return output

    def encoder(self) -> list[torch.nn.Parameter]:
        """The weights of the transformer."""
        return list(self.body.swinViT.parameters())


Network = VertebraUNet | VertebraSwinUNETR


def build_network(config: NetworkConfig) -> Network:
    """Return the untrained network of `config`."""
    return VertebraSwinUNETR(config) if isinstance(config, SwinUNETRConfig) else VertebraUNet(config)
