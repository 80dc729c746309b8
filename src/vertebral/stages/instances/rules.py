"""The rules of `instances`, for a network's evidence and for label maps of any tool."""

from dataclasses import dataclass

from vertebral.core.rules import rule

_BY_HAND = "chosen by hand on the validation scans"
_LABEL_MAPS = "chosen by hand on the label maps of benchmarks/identification (docs/levels.md)"


@dataclass(frozen=True)
class InstanceRules:
    """From a network's evidence to instances: the sacrum, then `by_class` and `by_votes` in their order."""

    sacrum_evidence_share: float = rule(0.7, "share of class evidence", _BY_HAND)
    steps_each_side: int = rule(3, "steps, for the median that is the usual step", _BY_HAND)
    bridge_mm: float = rule(15.0, "mm", _BY_HAND)
    min_group_share: float = rule(0.15, "share of the largest group's volume", _BY_HAND)
    min_group_ml: float = rule(4.0, "ml", _BY_HAND)
    min_seed_ml: float = rule(2.0, "ml", _BY_HAND)
    min_seed_step_share: float = rule(0.45, "share of the usual step", _BY_HAND)
    min_seed_step_mm: float = rule(7.0, "mm", _BY_HAND)
    fragment_reach_mm: float = rule(10.0, "mm", _BY_HAND)
    vote_blur_mm: float = rule(2.0, "mm, standard deviation", _BY_HAND)
    centre_radius_mm: float = rule(7.0, "mm", _BY_HAND)
    min_centre_ml: float = rule(2.0, "ml of votes", _BY_HAND)
    min_step_mm: float = rule(5.0, "mm downwards", _BY_HAND)
    max_step_mm: float = rule(110.0, "mm", _BY_HAND)
    max_sideways_per_down: float = rule(1.0, "mm per mm", _BY_HAND)
    max_forwards_per_down: float = rule(2.0, "mm per mm", _BY_HAND)
    step_cost_ml_per_mm: float = rule(0.05, "ml of votes per mm", _BY_HAND)
    crowded_steps: float = rule(1.45, "usual steps between the two neighbours", _BY_HAND)
    vote_reach_mm: float = rule(25.0, "mm", _BY_HAND)
    min_island_share: float = rule(0.05, "share of the largest component", _BY_HAND)


@dataclass(frozen=True)
class LabelMapRules:
    """From a label map to instances (`by_labels`): column, bodies, components, fragments, oversized vertebrae."""

    thin_bone_mm: float = rule(3.0, "mm below the surface", _LABEL_MAPS)
    sideways_cost_mm2: float = rule(1.0, "mm2 per squared voxel", _LABEL_MAPS)
    radius_share: float = rule(0.75, "share of the bone's depth", _LABEL_MAPS)
    min_radius_mm: float = rule(4.0, "mm", _LABEL_MAPS)
    max_radius_mm: float = rule(11.0, "mm", _LABEL_MAPS)
    radius_reach_mm: float = rule(25.0, "mm along the column", _LABEL_MAPS)
    tangent_mm: float = rule(12.0, "mm along the column", _LABEL_MAPS)

    empty_cost_per_mm: float = rule(0.25, "cost per mm", _LABEL_MAPS)
    mixed_cost: float = rule(1.0, "cost per usual height", _LABEL_MAPS)
    body_cost: float = rule(0.2, "cost", _LABEL_MAPS)
    gap_cost_per_mm: float = rule(0.12, "cost per mm", _LABEL_MAPS)
    touch_cost: float = rule(0.3, "cost", _LABEL_MAPS)
    ordered_cost: float = rule(0.05, "cost", _LABEL_MAPS)
    fused_cost: float = rule(2.0, "cost", _LABEL_MAPS)
    max_mixed_share: float = rule(0.1, "share of the body", _LABEL_MAPS)
    tall_cost: float = rule(3.0, "cost per squared log2 of the height", _LABEL_MAPS)
    outermost_tall_cost: float = rule(1.0, "cost per squared log2 of the height", _LABEL_MAPS)
    short_cost: float = rule(0.25, "cost per squared log2 of the height", _LABEL_MAPS)
    crowded_short_cost: float = rule(0.375, "cost per squared log2 of the height", _LABEL_MAPS)
    cut_cost: float = rule(0.15, "cost per squared log2 of the height", _LABEL_MAPS)
    full_height_share: float = rule(0.9, "share of the neighbour's height", _LABEL_MAPS)
    scales: tuple[float, ...] = rule((0.65, 0.8, 1.0, 1.2), "patient size over the usual size", _LABEL_MAPS)
    scale_cost: float = rule(0.5, "cost per log2 of the scale", _LABEL_MAPS)
    min_body_mm: float = rule(4.0, "mm", _LABEL_MAPS)
    max_body_heights: float = rule(2.6, "usual heights", _LABEL_MAPS)
    height_smoothing_mm: float = rule(60.0, "mm along the column", _LABEL_MAPS)
    height_in_radii: float = rule(3.0, "radii of the column, for maps without levels", _LABEL_MAPS)

    # Less than this is the column's tilt against the disc.
    split_share: float = rule(0.25, "share of a body on the column", _LABEL_MAPS)
    min_body_share: float = rule(0.03, "share of a body on the column", _LABEL_MAPS)
    split_margin_mm: float = rule(20.0, "mm", _LABEL_MAPS)
    rim_mm: float = rule(3.0, "mm along the column", _LABEL_MAPS)

    wide_contact_mm2: float = rule(60.0, "mm2", _LABEL_MAPS)
    max_island_ml: float = rule(1.0, "ml", _LABEL_MAPS)
    min_lack_share: float = rule(0.5, "share of the fragment's volume", _LABEL_MAPS)
    min_carried_ml: float = rule(1.0, "ml", _LABEL_MAPS)
    min_vertebra_ml: float = rule(0.3, "ml", _LABEL_MAPS)
    broken_off_share: float = rule(0.5, "share of a side of the cube with the fragment's volume", _LABEL_MAPS)
    fragment_reach_mm: float = rule(15.0, "mm", _LABEL_MAPS)

    oversized_ratio: float = rule(1.2, "ratio to the median volume around", _LABEL_MAPS)
    undersized_ratio: float = rule(0.8, "ratio to the median volume around", _LABEL_MAPS)
    min_moved_share: float = rule(0.15, "share of the neighbour's usual volume", _LABEL_MAPS)
    min_gain: float = rule(0.2, "ln of a ratio of volumes", _LABEL_MAPS)
    neighbours_each_side: int = rule(3, "vertebrae", _LABEL_MAPS)
