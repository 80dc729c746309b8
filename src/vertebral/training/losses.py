"""The losses: of each kind its config and the function that computes it for one sample; and how a batch adds up.

A new loss is one entry, here or in any other package: a subclass of `LossConfig` and its function, given to
`register_loss`. Every loss is a mean over the samples of a batch of something computed from each sample alone, so that
the mean over several devices is the loss of their common batch.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch.nn import functional

from vertebral.core.config import Config
from vertebral.core.registry import Registry
from vertebral.models.config import OFFSET_UNIT_MM

_SMOOTH = 1e-5

SampleLoss = Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]
"""From logits (C, I, J, K), classes (I, J, K) uint8 with 0 for background, and the loss's config, to one number."""


class LossConfig(Config):
    """What all losses share. `offset_weight` is the weight of `offset_loss`, for networks with offsets."""

    kind: str
    offset_weight: float = Field(1.0, ge=0)


_LOSSES: Registry[LossConfig, SampleLoss] = Registry("loss", default="dice_ce")
AnyLoss = Annotated[SerializeAsAny[LossConfig], BeforeValidator(_LOSSES.parse)]
"""A field that holds the config of any registered loss, told apart by `kind`; without one it is `dice_ce`."""


def register_loss(config: type[LossConfig], function: SampleLoss) -> None:
    """Add a kind of loss. Raises ConfigError if the kind is taken."""
    _LOSSES.add(config, function)


def segmentation_loss(logits: torch.Tensor, classes: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """The loss of `config`, mean over samples: `logits` (B, C, I, J, K), `classes` (B, I, J, K) uint8, 0 background."""
    loss = _LOSSES.function(config.kind)
    return torch.stack([loss(sample, target, config) for sample, target in zip(logits, classes, strict=True)]).mean()


class DiceCEConfig(LossConfig):
    """DiceCE: lambda is `cross_entropy_weight`, mu, the split into spine and level, is `hierarchy_weight`.

    `dice_over` says whether Dice is the mean over all classes, or over those present in the sample.
    """

    kind: Literal["dice_ce"] = "dice_ce"
    cross_entropy_weight: float = Field(1.0, ge=0)
    hierarchy_weight: float = Field(0.0, ge=0)
    dice_over: Literal["all", "present"] = "all"


def _dice_ce(logits: torch.Tensor, classes: torch.Tensor, config: DiceCEConfig) -> torch.Tensor:
    """L = L_Dice + lambda L_CE + mu (L_Dice,spine + L_CE,level).

    With mu = 0 and `dice_over` all it is MONAI's `DiceCELoss(include_background=False, softmax=True)`, computed on
    (voxels, C) rows without a one-hot tensor. The mu term splits the task in two: bone of the spine against background
    (Dice), and the level given bone (cross-entropy over the levels alone, on voxels of bone), so that neither waits for
    the other.
    """
    count = logits.shape[0]
    rows = logits.permute(1, 2, 3, 0).reshape(-1, count).float()
    target = classes.flatten().long()
    log_probability = torch.log_softmax(rows, dim=1)
    cross_entropy = functional.nll_loss(log_probability, target)
    probability = log_probability.exp()
    hits = probability.gather(1, target[:, None])[:, 0]
    overlap = torch.zeros(count, device=rows.device).index_add(0, target, hits)
    size = torch.bincount(target, minlength=count)
    dice = (2 * overlap + _SMOOTH) / (probability.sum(0) + size + _SMOOTH)
    counted = size[1:] > 0 if config.dice_over == "present" else torch.ones_like(size[1:], dtype=torch.bool)
    loss = config.cross_entropy_weight * cross_entropy
    if counted.any():
        loss = loss + 1 - dice[1:][counted].mean()
    bone = target > 0
    if config.hierarchy_weight and bone.any():
        spine = 1 - probability[:, 0]
        spine_dice = (2 * spine[bone].sum() + _SMOOTH) / (spine.sum() + bone.sum() + _SMOOTH)
        level = functional.cross_entropy(rows[bone][:, 1:], target[bone] - 1)
        loss = loss + config.hierarchy_weight * (1 - spine_dice + level)
    return loss


register_loss(DiceCEConfig, _dice_ce)


def supervised_loss(
    outputs: torch.Tensor | Sequence[torch.Tensor], classes: torch.Tensor, class_count: int, config: LossConfig
) -> torch.Tensor:
    """`segmentation_loss` of the output and, with deep supervision, of the coarser stages after it.

    Stage n counts 2^-n of the output, the weights summing to 1 (as in nnU-Net, Isensee et al. 2021); its reference is
    every 2^n-th voxel.
    """
    stages = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    weights = [0.5**n for n in range(len(stages))]
    total = torch.zeros((), device=classes.device)
    for weight, stage in zip(weights, stages, strict=True):
        steps = [whole // part for whole, part in zip(classes.shape[1:], stage.shape[2:], strict=True)]
        coarse = classes[:, :: steps[0], :: steps[1], :: steps[2]]
        total = total + weight / sum(weights) * segmentation_loss(stage[:, :class_count], coarse, config)
    return total


def offset_loss(offsets: torch.Tensor, classes: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Mean smooth-L1 distance, in units of `OFFSET_UNIT_MM`, between offsets and the way to the vertebra's centroid.

    `offsets` (B, 3, I, J, K), `classes` (B, I, J, K) uint8. Only bone counts, and each vertebra that a sample shows
    counts as much as any other, whatever its size: a lumbar vertebra has ten times the voxels of a cervical one. The
    centroid is that of what the patch shows of the vertebra.
    """
    total = offsets.sum() * 0.0
    for predicted, target in zip(offsets, classes, strict=True):
        voxels = target.nonzero()
        if len(voxels) == 0:
            continue
        level = target[tuple(voxels.T)].long()
        points = voxels.float()
        count = torch.bincount(level).clamp(min=1)
        centre = torch.zeros(len(count), 3, device=points.device).index_add(0, level, points) / count[:, None]
        truth = (centre[level] - points) * (spacing_mm / OFFSET_UNIT_MM)
        found = predicted.permute(1, 2, 3, 0)[tuple(voxels.T)].float()
        distance = functional.smooth_l1_loss(found, truth, beta=0.1, reduction="none").mean(1)
        total = total + (distance / count[level]).sum() / (torch.bincount(level) > 0).sum()
    return total / len(offsets)


def hard_dice(logits: torch.Tensor, classes: torch.Tensor) -> tuple[float, float]:
    """Dice of foreground against background, and the mean Dice over the classes present, of the argmax; NaN if none."""
    predicted = logits.max(1).indices.flatten()
    target = classes.flatten().long()
    count = logits.shape[1]
    size = torch.bincount(target, minlength=count) + torch.bincount(predicted, minlength=count)
    overlap = torch.bincount(target[target == predicted], minlength=count)
    present = torch.bincount(target, minlength=count)[1:] > 0
    any_dice = 2 * ((predicted > 0) & (target > 0)).sum() / ((predicted > 0).sum() + (target > 0).sum())
    per_class = (2 * overlap / size.clamp(min=1))[1:][present]
    return float(any_dice), float(per_class.mean()) if present.any() else float("nan")
