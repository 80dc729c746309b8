"""The networks as PyTorch modules; no file is read here. All end in `head`, a 1x1x1 convolution.

The head computes the logits of the classes and, if the config has them, the offsets: from a voxel to the centroid of
its vertebra along R, A, S, in units of `config.OFFSET_UNIT_MM`.
"""

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unet import UNet
from torch.utils.checkpoint import checkpoint

from vertebral.models.networks import SwinUNETRConfig, UNetConfig


class Network(torch.nn.Module):
    """What training needs of a network besides `forward`.

    `forward` maps (B, inputs, I, J, K) to (B, channels, I, J, K) logits and offsets. In training it may be a tuple, in
    which coarser logits for deep supervision follow the output; heads for these have `networks.AUXILIARY` in their
    names.
    """

    head: torch.nn.Module

    def encoder(self) -> list[torch.nn.Parameter]:
        """The weights to which `optimizer.encoder_rate` applies; empty for a network without an encoder."""
        return []

    def skip_widths(self) -> dict[str, int]:
        """By the name of a layer's weights: how many of its inputs, the first, come from a skip connection."""
        return {}


class VertebraUNet(Network):
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
        self._channels = config.channels

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Map (B, inputs, I, J, K) to (B, channels, I, J, K) logits and offsets; sizes are multiples of the strides.

        In training with deep supervision the result is a tuple: the output, then the logits of the coarser decoder
        stages, finest first.
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
        """Run MONAI's nested blocks (down, skip around the next one, up) one by one; append each output to `stages`."""
        paths = _paths(block)
        if paths is None:  # the bottom
            return self._run(block, values)
        down, inside, up = paths
        coarser = self._run(down, values)
        inner = self._block(inside, coarser, stages)
        found = self._run(up, torch.cat([coarser, inner], dim=1))
        stages.append(found)
        return found

    def _run(self, layer: torch.nn.Module, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = checkpoint(layer, values, use_reentrant=False) if self._checkpointing else layer(values)
        return result

    def encoder(self) -> list[torch.nn.Parameter]:
        """The weights of the path down, the bottom included."""
        found: list[torch.nn.Parameter] = []
        block: torch.nn.Module = self.body.model
        while paths := _paths(block):
            found += paths[0].parameters()
            block = paths[1]
        return [*found, *block.parameters()]

    def skip_widths(self) -> dict[str, int]:
        """Each transposed convolution reads the skip connection first, then what comes from below."""
        ups = [f"{n}.weight" for n, m in self.named_modules() if isinstance(m, torch.nn.ConvTranspose3d)]
        return dict(zip(reversed(ups), self._channels, strict=False))


def _paths(block: torch.nn.Module) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module] | None:
    """The path down, the blocks inside, and the path up of one of MONAI's nested blocks; None for the innermost."""
    if not isinstance(block, torch.nn.Sequential) or len(block) != 3 or not isinstance(block[1], SkipConnection):
        return None
    return block[0], block[1].submodule, block[2]


class VertebraSwinUNETR(Network):
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
        """Map (B, inputs, I, J, K) to (B, channels, I, J, K) logits and offsets; sizes are multiples of 32."""
        output: torch.Tensor = self.head(self.body(image))
        return output

    def encoder(self) -> list[torch.nn.Parameter]:
        """The weights of the transformer."""
        return list(self.body.swinViT.parameters())
