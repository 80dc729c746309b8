"""DiceCE on softmax classes, and what helps when classes are many and steps are few."""

import torch
from torch.nn import functional

from vertebral.config import LossConfig

_SMOOTH = 1e-5


def segmentation_loss(logits: torch.Tensor, classes: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """L = L_Dice + lambda L_CE + mu (L_Dice,spine + L_CE,level).

    `logits` (B, C, I, J, K), `classes` (B, I, J, K) uint8, class 0 background. With mu = 0 and `dice_over` all it is
    MONAI's `DiceCELoss(include_background=False, softmax=True, batch=True)`, computed on (voxels, C) rows without a
    one-hot tensor. The mu term splits the task in two: bone of the spine against background (Dice), and the level
    given bone (cross-entropy over the levels alone, on voxels of bone), so that neither waits for the other.
    """
    count = logits.shape[1]
    rows = logits.permute(0, 2, 3, 4, 1).reshape(-1, count).float()
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


def hard_dice(logits: torch.Tensor, classes: torch.Tensor) -> tuple[float, float]:
    """Dice of foreground against background, and the mean Dice over the classes present, of the argmax."""
    predicted = logits.max(1).indices.flatten()
    target = classes.flatten().long()
    count = logits.shape[1]
    size = torch.bincount(target, minlength=count) + torch.bincount(predicted, minlength=count)
    overlap = torch.bincount(target[target == predicted], minlength=count)
    present = torch.bincount(target, minlength=count)[1:] > 0
    any_dice = 2 * ((predicted > 0) & (target > 0)).sum() / ((predicted > 0).sum() + (target > 0).sum()).clamp(min=1)
    per_class = (2 * overlap / size.clamp(min=1))[1:][present]
    return float(any_dice), float(per_class.mean()) if present.any() else float("nan")
