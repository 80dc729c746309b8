"""The rules of `measure`: every threshold that steers its figures, with unit and source.

Values chosen by hand were not varied one by one. They were checked together, on analytic solids of known size
(`benchmarks/measurements.py exact`) or on label maps (`benchmarks/measurements.py human`); docs/measurements.md has the
results.
"""

from dataclasses import dataclass
from typing import Any, Final

from vertebral.core.rules import rule

_SOLIDS: Final = "chosen by hand, checked on analytic solids"
_MAPS: Final = "chosen by hand, checked on label maps"
_SIZE: Final = "by hand: holds the largest vertebra of the region"
_PANJABI: Final = "means of Panjabi et al. (Spine 1991, 1992) less and plus about four standard deviations, by hand"
_FRACTURE: Final = f"{_PANJABI}; the lower limit is lower still, to admit fractures"
_PICKHARDT: Final = "chosen by hand in the manner of Pickhardt et al., Ann Intern Med 2013;158:588-595"
_GENANT: Final = "Genant et al., J Bone Miner Res 1993;8:1137-1148"


@dataclass(frozen=True)
class MeasureRules:
    """Thresholds of the measurements; a share is a fraction of what the name or the source says."""

    # The crop of one label.
    working_voxel_mm: float = rule(0.9, "mm", f"{_SOLIDS}: finer voxels are averaged; 0.3 mm adds nothing to a plane")
    faint_mask_share: float = rule(0.5, "share", "by hand: of the peak, where block means stay below 0.5 everywhere")
    border_slack_voxels: float = rule(0.25, "voxels", "by hand: surfaces between voxels are known no better")
    area_blur_mm: float = rule(0.9, "mm", f"{_SOLIDS}: a sphere's area within 2 %")
    area_min_blur_voxels: float = rule(0.7, "voxels", f"{_SOLIDS}: a sphere's area within 2 %")

    # First frames.
    coarse_spacing_mm: float = rule(
        1.5, "mm", "by hand, a compromise with speed: only first axes and the canal come from these points"
    )
    core_min_depth_share: float = rule(0.4, "share", f"{_MAPS}: of the greatest depth; shallower points do not count")
    min_vertebrae_for_direction: int = rule(
        3, "vertebrae", "by hand: fewer do not show the anterior direction, or an order"
    )

    # The vertebral canal and the plane of symmetry.
    canal_tilts_deg: tuple[float, float, float] = rule(
        (-14.0, 0.0, 14.0), "degrees", f"{_MAPS}: first up axes are off by up to 25 degrees"
    )
    min_canal_area_mm2: float = rule(40.0, "mm2", f"{_MAPS}: smaller holes are foramina or gaps of the mask")
    max_canal_area_mm2: float = rule(1200.0, "mm2", f"{_MAPS}: larger openings are no canal")
    canal_midline_mm: float = rule(3.0, "mm", f"{_MAPS}: half width in which the canal's anterior edge is read")
    mirror_range_deg: float = rule(12.0, "degrees", f"{_MAPS}: largest turn about the up axis that is tried")
    mirror_step_deg: float = rule(
        3.0, "degrees", "by hand, a compromise with speed: a parabola finds the maximum between steps"
    )
    mirror_cell_mm: float = rule(2.25, "mm", "by hand, a compromise with speed")
    mirror_blur_cells: float = rule(0.7, "cells", f"{_SOLIDS}: suppresses the pattern of voxels in cells")
    min_canal_to_body_mm: float = rule(5.0, "mm", "by hand: nearer, the line from canal to body gives no direction")

    # Where the body is searched: reach to the right, ahead and up, and first half sizes along these.
    cervical_reach_mm: tuple[float, float, float] = rule((22.0, 18.0, 18.0), "mm", _SIZE)
    cervical_sampling_mm: float = rule(0.75, "mm", f"{_SOLIDS}: bodies are 16 mm deep")
    cervical_first_half_mm: tuple[float, float, float] = rule(
        (8.0, 7.0, 5.5), "mm", "by hand: about half the sizes of Panjabi et al. 1991"
    )
    cervical_midline_mm: float = rule(3.0, "mm", f"{_MAPS}: the thickest place is this near to the midline")
    thoracic_reach_mm: tuple[float, float, float] = rule((32.0, 28.0, 26.0), "mm", _SIZE)
    thoracic_sampling_mm: float = rule(1.0, "mm", _SOLIDS)
    thoracic_first_half_mm: tuple[float, float, float] = rule(
        (13.0, 12.0, 9.0), "mm", "by hand: about half the sizes of Panjabi et al. 1991"
    )
    thoracic_midline_mm: float = rule(10.0, "mm", f"{_MAPS}: the thickest place is this near to the midline")
    lumbar_reach_mm: tuple[float, float, float] = rule((38.0, 30.0, 30.0), "mm", _SIZE)
    lumbar_sampling_mm: float = rule(1.0, "mm", _SOLIDS)
    lumbar_first_half_mm: tuple[float, float, float] = rule(
        (20.0, 16.0, 12.0), "mm", "by hand: about half the sizes of Panjabi et al. 1992"
    )
    lumbar_midline_mm: float = rule(10.0, "mm", f"{_MAPS}: the thickest place is this near to the midline")
    first_sampling_mm: float = rule(1.5, "mm", "by hand, a compromise with speed: of the first pass only")
    reach_half_factor: float = rule(1.25, "factor", f"{_SOLIDS}: second pass, times the half size of the first")
    reach_margin_mm: float = rule(4.0, "mm", f"{_SOLIDS}: second pass, beyond that")
    thickest_min_depth_share: float = rule(0.6, "share", f"{_MAPS}: of the greatest depth before the canal")

    # Walls.
    wall_share: float = rule(0.4, "share", f"{_SOLIDS}: of the half sizes; leaves out pedicles, rims and ribs")
    min_wall_hits: float = rule(0.5, "share", f"{_MAPS}: of the rays; below, there is no wall")
    front_band_share: float = rule(0.45, "share", f"{_SOLIDS}: of the half depth ahead, where a waist's width is read")
    waist_height_share: float = rule(0.5, "share", f"{_SOLIDS}: of the half height, where a waist's width is read")
    waist_quantile: float = rule(0.25, "share", f"{_SOLIDS}: of half widths; leaves out the transverse processes")
    back_wall_width_share: float = rule(0.15, "share", f"{_SOLIDS}: of the half width about the midline")
    back_wall_height_share: float = rule(0.8, "share", f"{_SOLIDS}: of the half height")
    body_width_factor: float = rule(1.1, "factor", f"{_SOLIDS}: half widths that count as body volume")
    pedicle_root_factor: float = rule(2.0, "factor", f"{_SOLIDS}: most that the upper half holds of the lower's mirror")

    # Endplates.
    footprint_share: float = rule(0.85, "share", f"{_SOLIDS}: of the half axes of the footprint; rims are rounded")
    lipped_width_share: float = rule(0.6, "share", f"{_SOLIDS}: of the half width; cervical lips rise at the sides")
    min_half_height_mm: float = rule(2.5, "mm", "by hand: no body is lower, crushed ones included")
    min_surface_points: int = rule(12, "points", "by hand: fewer do not carry a plane or a quadratic surface")
    boundary_within_voxels: float = rule(1.0, "voxels", f"{_SOLIDS}: of the rays' exits, plus the distance in mm")
    boundary_within_mm: float = rule(0.75, "mm", f"{_SOLIDS}: of the rays' exits, plus the distance in voxels")
    full_occupancy: float = rule(0.95, "occupancy", f"{_SOLIDS}: a ray starts to leave the bone below this")
    empty_occupancy: float = rule(0.05, "occupancy", f"{_SOLIDS}: a ray has left the bone below this")
    interval_softness_mm: float = rule(0.35, "mm", f"{_SOLIDS}: boundaries of labels are not sharper")
    interval_softness_share: float = rule(0.1, "share", f"{_SOLIDS}: of the interval's length, where that is more")
    inlier_mm: float = rule(1.5, "mm", f"{_SOLIDS}: spurs are further from the plane")
    flat_interval_mm: float = rule(2.3, "mm", f"{_SOLIDS}: mean interval above which slices show no curvature")
    ignored_end_share: float = rule(0.01, "share", f"{_SOLIDS}: of a surface's points at either end")
    reentry_within_mm: float = rule(12.0, "mm", f"{_MAPS}: bone beyond an endplate counts as the same up to here")
    sacrum_reach_mm: float = rule(25.0, "mm", f"{_MAPS}: S1 is within this below the last lumbar endplate")
    sacrum_ray_start_mm: float = rule(3.0, "mm", f"{_MAPS}: rays start this far above that endplate")
    sacrum_sampling_mm: float = rule(1.0, "mm", _SOLIDS)

    # Heights and discs.
    height_width_share: float = rule(0.6, "share", f"{_SOLIDS}: of the half width; lips and rims rise beyond")
    crushed_share: float = rule(0.85, "share", "by hand, after Genant et al. 1993: of the neighbours' posterior height")
    genant_percent: tuple[float, float, float] = rule((20.0, 25.0, 40.0), "percent", _GENANT)
    crossing_disc_mm: float = rule(-0.5, "mm", f"{_MAPS}: half a voxel of overlap is no error")
    max_disc_height_mm: float = rule(22.0, "mm", f"{_MAPS}: no disc is wider")
    max_disc_angle_deg: float = rule(25.0, "degrees", f"{_MAPS}: no disc opens wider")

    # Curves.
    min_bodies_for_curve: int = rule(3, "bodies", "by definition: end vertebrae and an apex")
    min_secondary_curve_deg: float = rule(10.0, "degrees", "Cobb 1948; Scoliosis Research Society")

    # Bone density.
    core_width_share: float = rule(0.6, "share", f"{_PICKHARDT}: of the half width")
    core_back_share: float = rule(0.3, "share", f"{_PICKHARDT}: of the half depth, leaves out basivertebral veins")
    core_front_share: float = rule(0.75, "share", f"{_PICKHARDT}: of the half depth")
    core_height_share: float = rule(0.55, "share", f"{_PICKHARDT}: of the half height")
    core_shell_mm: float = rule(3.0, "mm", f"{_SOLIDS}: a shell of 2 mm and partial volume leave the mean unchanged")
    core_sampling_mm: float = rule(0.75, "mm", "by hand, a compromise with speed")
    min_core_ml: float = rule(0.15, "ml", "by hand: less is noise")
    metal_hu: float = rule(2000.0, "HU", "by hand: no bone is denser")
    dense_hu: float = rule(500.0, "HU", "by hand: cement or sclerosis")
    contrast_hu: tuple[float, float] = rule(
        (130.0, 450.0), "HU", "by hand: blood has 30-60 HU without contrast medium, bone more"
    )
    min_contrast_ml: float = rule(2.0, "ml", "by hand, checked on a synthetic aorta of 22 mm")
    vessel_ahead_mm: tuple[float, float] = rule(
        (4.0, 40.0), "mm", "by hand: from the anterior wall, aorta and vena cava"
    )
    vessel_aside_mm: float = rule(30.0, "mm", "by hand: from the midline to either side")
    vessel_sampling_mm: float = rule(2.0, "mm", "by hand, a compromise with speed")
    vessel_half_height_mm: float = rule(4.0, "mm", "by hand: of the slab about mid-height")
    vessel_window: int = rule(3, "samples", "by hand: averaged, and searched for the spread, along each axis")
    max_vessel_spread_hu: float = rule(150.0, "HU", "by hand: enhanced blood is even")

    # When a figure is missing or doubtful.
    cut_voxels: float = rule(1.0, "voxels", "by hand: a surface this near to the border is cut by it")
    nearly_cut_voxels: float = rule(3.0, "voxels", f"{_MAPS}: a CT that ends within two voxels may cut the body")
    max_cut_share: float = rule(0.02, "share", f"{_MAPS}: of an endplate's points at the border")
    max_fragment_share: float = rule(0.02, "share", f"{_MAPS}: of the mask outside its largest piece")
    max_cavity_share: float = rule(0.03, "share", f"{_MAPS}: of the mask")
    min_symmetry: float = rule(0.80, "correlation", f"{_MAPS}: of the vertebra with its mirror image")
    max_size_jump: float = rule(0.25, "share", f"{_MAPS}: of the mean width or depth of both neighbours")
    min_coverage: float = rule(0.9, "share", f"{_MAPS}: of the footprint met by rays; less is doubtful")
    min_usable_coverage: float = rule(0.5, "share", f"{_MAPS}: of the footprint; less is no endplate")
    min_inliers: float = rule(0.8, "share", f"{_MAPS}: of an endplate's points; less is doubtful")
    min_usable_inliers: float = rule(0.5, "share", f"{_MAPS}: of an endplate's points; less is no endplate")
    max_rms_mm: float = rule(1.3, "mm", f"{_MAPS}: more is doubtful")
    max_reentries: float = rule(0.02, "share", f"{_MAPS}: of rays that meet bone beyond the endplate; more is doubtful")
    max_usable_reentries: float = rule(0.12, "share", f"{_MAPS}: of these rays; more is no endplate")
    coarse_voxel_mm: float = rule(2.0, "mm", f"{_SOLIDS}: longer voxels make heights, width or depth doubtful")
    coarse_voxel_share: float = rule(0.05, "share", f"{_SOLIDS}: of the depth, 2.9 degrees of an endplate's tilt")
    few_layers: int = rule(2, "layers", f"{_SOLIDS}: an endplate in so few layers of voxels is off by up to 2 degrees")
    layer_share: float = rule(0.0175, "share", f"{_SOLIDS}: of the depth, one degree of an endplate's tilt")
    cervical_width_range_mm: tuple[float, float] = rule((11.0, 34.0), "mm", _PANJABI)
    cervical_depth_range_mm: tuple[float, float] = rule((9.0, 26.0), "mm", _PANJABI)
    cervical_height_range_mm: tuple[float, float] = rule((6.0, 22.0), "mm", _FRACTURE)
    thoracic_width_range_mm: tuple[float, float] = rule((16.0, 54.0), "mm", _PANJABI)
    thoracic_depth_range_mm: tuple[float, float] = rule((11.0, 44.0), "mm", _PANJABI)
    thoracic_height_range_mm: tuple[float, float] = rule((7.0, 34.0), "mm", _FRACTURE)
    lumbar_width_range_mm: tuple[float, float] = rule((28.0, 66.0), "mm", _PANJABI)
    lumbar_depth_range_mm: tuple[float, float] = rule((20.0, 48.0), "mm", _PANJABI)
    lumbar_height_range_mm: tuple[float, float] = rule((10.0, 42.0), "mm", _FRACTURE)

    def of_region(self, region: str, name: str) -> Any:
        """Return the rule `name` of a region: `of_region("lumbar", "reach_mm")` is `lumbar_reach_mm`."""
        return getattr(self, f"{region}_{name}")


MEASURE_RULES: Final = MeasureRules()
