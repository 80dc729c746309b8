"""A network that also sees its input mirrored, left for right."""

import torch


class Mirrored(torch.nn.Module):
    """A network whose output is the mean of its outputs for an image and for its mirror image, left for right.

    With `offsets` the last three channels are those: the first of them, along R, changes its sign in the mirror.
    """

    def __init__(self, network: torch.nn.Module, offsets: bool) -> None:
        super().__init__()
        self._network, self._offsets = network, offsets

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, I, J, K) in RAS to (B, channels, I, J, K)."""
        mirrored: torch.Tensor = self._network(image.flip(2)).flip(2)  # a copy: OpenVINO reuses its output
        if self._offsets:
            mirrored[:, -3] *= -1
        return mirrored.add_(self._network(image)).div_(2)
