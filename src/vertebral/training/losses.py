"""DiceCE on softmax classes, laid out for many classes on a CPU."""

import torch
from torch.nn import functional

_SMOOTH = 1e-5


def dice_ce(logits: torch.Tensor, classes: torch.Tensor, cross_entropy_weight: float) -> torch.Tensor:
    """L = L_Dice + lambda L_CE, as MONAI's `DiceCELoss(include_background=False, softmax=True, batch=True)`.

    `logits` (B, C, I, J, K), `classes` (B, I, J, K) uint8. The Dice loss is the mean over the C - 1 foreground
    classes, pooled over the batch. Working on (voxels, C) rows without a one-hot tensor takes a third of MONAI's time
    with 27 classes and channels-last logits; the values agree (see the test).
    """
    count = logits.shape[1]
    rows = logits.permute(0, 2, 3, 4, 1).reshape(-1, count).float()
    target = classes.flatten().long()
    log_probability = torch.log_softmax(rows, dim=1)
    cross_entropy = functional.nll_loss(log_probability, target)
    probability = log_probability.exp()
    hits = probability.gather(1, target[:, None])[:, 0]
    overlap = torch.zeros(count, device=rows.device).index_add(0, target, hits)
    total = probability.sum(0) + torch.bincount(target, minlength=count)
    dice = (2 * overlap + _SMOOTH) / (total + _SMOOTH)
    return 1 - dice[1:].mean() + cross_entropy_weight * cross_entropy


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
