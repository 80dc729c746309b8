"""Does a converted network find the same classes as PyTorch? One check for all backends and exports."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vertebral.core.errors import VertebralError
from vertebral.models.config import ModelConfig

_LEAST_AGREEMENT = 0.999
# A network that takes any size is compared on at most this side, so that the check takes a second.
_LONGEST_SIDE = 64

Shape = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Agreement:
    """How a converted network compares with PyTorch's on random input of `shape`.

    `same_class` is the share of voxels with the same class, `largest_difference` that of any output value.
    """

    shape: Shape
    same_class: float
    largest_difference: float


def check_agreement(
    network: torch.nn.Module,
    converted: Callable[[torch.Tensor], torch.Tensor],
    config: ModelConfig,
    program: str,
    remedy: str,
) -> list[Agreement]:
    """Compare `converted`, computed by `program`, with `network` on the window and, if it takes any size, another one.

    Raises VertebralError, which ends in `remedy`, if more than a thousandth of the voxels get another class.
    """
    found = [_compare(network, converted, config.network.class_count, shape) for shape in _tried_shapes(config)]
    worst = min(one.same_class for one in found)
    if worst < _LEAST_AGREEMENT:
        raise VertebralError(
            f"model {config.name}: {program} and PyTorch give different classes in {1 - worst:.2%} of voxels; {remedy}"
        )
    return found


def _tried_shapes(config: ModelConfig) -> list[Shape]:
    """The window, of which a large one is tried in part, and a batch of two of another size."""
    (i, j, k), inputs = config.inference.window, config.network.input_count
    if not config.network.takes_any_size:
        return [(1, inputs, i, j, k)]
    factor = config.network.size_factor
    longest = max(2 * factor, _LONGEST_SIDE // factor * factor)
    i, j, k = (min(max(n, 2 * factor), longest) for n in (i, j, k))
    return [(1, inputs, i, j, k), (2, inputs, 3 * factor, 2 * factor, 2 * factor)]


def _compare(
    network: torch.nn.Module, converted: Callable[[torch.Tensor], torch.Tensor], class_count: int, shape: Shape
) -> Agreement:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = network(image), converted(image)
    same = ours[:, :class_count].argmax(1) == theirs[:, :class_count].argmax(1)
    return Agreement(shape, float(same.float().mean()), float((ours - theirs).abs().max()))
