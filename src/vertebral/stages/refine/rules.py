"""The rules of `refine`: which answers of the refiner count, and where it looks for missing vertebrae."""

from dataclasses import dataclass

from vertebral.core.rules import rule
from vertebral.stages.preprocess import MARK_SIGMA_MM

_BY_HAND = "chosen by hand on the validation scans"
_TRIED = 'the validation scans (docs/model-card.md, "What was tried")'


@dataclass(frozen=True)
class RefineRules:
    """Shares are of a vertebra's voxels; a step is the distance between neighbouring vertebrae of the same scan."""

    mark_sigma_mm: float = rule(MARK_SIGMA_MM, "mm, standard deviation", "the refiner was trained with it")
    min_dice: float = rule(0.25, "Dice with the coarse vertebra", _BY_HAND)
    same_dice: float = rule(0.5, "Dice of two answers", _TRIED)
    moved_mm: float = rule(2.0, "mm", _BY_HAND)
    same_centre_mm: float = rule(1.5, "mm", _BY_HAND)
    rounds: int = rule(2, "rounds", _TRIED)
    min_island_share: float = rule(0.05, "share of the largest component", _BY_HAND)
    search_margin_mm: float = rule(20.0, "mm", _BY_HAND)
    min_candidates: int = rule(3, "vertebrae", "two steps, the fewest that give a usual step")
    averaged_steps: int = rule(3, "steps", _BY_HAND)
    new_min_size_ratio: float = rule(0.4, "ratio to the smaller neighbour's voxels", _BY_HAND)
    new_max_size_ratio: float = rule(2.0, "ratio to the larger neighbour's voxels", _BY_HAND)
    new_min_spine_probability: float = rule(0.2, "mean coarse probability", _BY_HAND)
    max_aim_error_steps: float = rule(0.75, "steps", _BY_HAND)
    max_outside_steps: float = rule(0.25, "steps", _TRIED)
