"""Networks, built from a `NetworkConfig`; no file is read here."""

import torch
from monai.networks.nets.unet import UNet

from vertebral.config import NetworkConfig


class ResUNet(torch.nn.Module):
    """MONAI's residual U-Net with a 1x1x1 head.

    MONAI's `UNet` runs its last residual block at the number of output classes, at full resolution. With 27 classes
    that block would cost more than the rest of the network, so the U-Net ends at its first width and a 1x1x1
    convolution gives the classes and, where the config asks for them, the offsets: from a voxel to the centroid of its
    vertebra along R, A, S, in units of `config.OFFSET_UNIT_MM`.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.body = UNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=config.channels[0],
            channels=config.channels,
            strides=config.strides,
            num_res_units=config.residual_units,
            norm="INSTANCE",
        )
        self.head = torch.nn.Conv3d(config.channels[0], config.channel_count, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (B, 1, I, J, K) intensities to (B, channels, I, J, K) logits and offsets; strides divide sizes."""
        logits: torch.Tensor = self.head(self.body(image))
        return logits


def build_network(config: NetworkConfig) -> torch.nn.Module:
    """Return the untrained network of `config`."""
    return ResUNet(config)
