"""The rules of `identify`: what each choice costs, and when a result needs review."""

from dataclasses import dataclass

from vertebral.core.rules import rule

_SIMULATED = "spines simulated from the training maps, then checked on the validation scans (docs/levels.md)"
_JUDGEMENT = "judgement, not prevalence; checked on simulated spines (docs/levels.md)"
_PROMPTED = "chosen by hand on the validation scans, checked on simulated spines (docs/levels.md)"
_PEOPLE = "spread between people in the 31 training label maps (docs/levels.md)"
_BY_HAND = "chosen by hand on the validation scans"


@dataclass(frozen=True)
class IdentifyRules:
    """Costs are natural logarithms of odds; `costs` says how each rule enters the cost of a path."""

    evidence_floor: float = rule(0.02, "share of class evidence", _PROMPTED)
    borrowed_share: float = rule(0.5, "share of the neighbours' evidence", _JUDGEMENT)
    passed_cost: float = rule(2.5, "cost per level", _SIMULATED)
    t12_absent_cost: float = rule(3.5, "cost", _JUDGEMENT)
    l5_absent_cost: float = rule(3.5, "cost", _JUDGEMENT)
    t13_cost: float = rule(4.5, "cost", _JUDGEMENT)
    l6_cost: float = rule(3.0, "cost", _JUDGEMENT)
    double_cost: float = rule(2.0, "cost", _PROMPTED)
    max_drop_cost: float = rule(9.0, "cost", _SIMULATED)
    min_drop_cost: float = rule(0.5, "cost", _SIMULATED)
    full_drop_ratio: float = rule(0.5, "ratio of volumes", _SIMULATED)
    cut_drop_share: float = rule(0.5, "share of the drop cost", _SIMULATED)
    max_dropped_in_a_row: int = rule(4, "instances", _SIMULATED)
    neighbours_each_side: int = rule(3, "instances", _SIMULATED)
    size_spread: float = rule(0.3, "ln of a ratio of volumes", _SIMULATED)
    size_freedom: float = rule(3.0, "degrees of freedom", _SIMULATED)
    end_volume_ratio: float = rule(0.2, "ratio of volumes", _SIMULATED)
    step_spread_share: float = rule(0.06, "share of the step", _PEOPLE)
    step_spread_mm: float = rule(1.0, "mm", _SIMULATED)
    reference_spread_mm: float = rule(3.0, "mm", _SIMULATED)
    step_freedom: float = rule(20.0, "degrees of freedom", _SIMULATED)
    cut_spread_factor: float = rule(2.0, "factor on the spread", _SIMULATED)
    sacrum_spread_mm: float = rule(8.0, "mm", "sacra found by the shipped network (docs/levels.md)")
    smallest_scale: float = rule(0.66, "patient size over the usual size", _PEOPLE)
    largest_scale: float = rule(1.36, "patient size over the usual size", _PEOPLE)
    scale_count: int = rule(13, "scales", _SIMULATED)
    scale_spread: float = rule(0.13, "ln of a scale", _PEOPLE)
    scale_drift: float = rule(0.025, "ln of a scale per vertebra", _SIMULATED)
    sure_probability: float = rule(0.9, "probability", _BY_HAND)
    fair_quality: float = rule(0.5, "quality", _BY_HAND)
    size_tolerance: float = rule(0.4, "ln of a ratio of volumes", _BY_HAND)
    full_agreement_share: float = rule(0.7, "share of class evidence", _BY_HAND)
    double_quality_factor: float = rule(0.5, "factor on the quality", _BY_HAND)
