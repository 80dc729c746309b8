"""Caveats: implausible sizes, neighbours that differ, defective masks; and faults, which make a figure unusable."""

from collections.abc import Sequence

import numpy as np

from vertebral.core.anatomy import Level
from vertebral.stages.measure.body import BodyGeometry, has_processes_aside
from vertebral.stages.measure.crops import Crop
from vertebral.stages.measure.endplates import Endplate
from vertebral.stages.measure.rules import MeasureRules

CUT = "cut by the border of the scan"
_SIZES = ("width", "depth", "height")


def mask_caveats(crop: Crop, rules: MeasureRules) -> tuple[str, ...]:
    """Return what is wrong with the mask itself."""
    caveats = []
    if crop.fragment_share > rules.max_fragment_share:
        caveats.append(f"{100 * crop.fragment_share:.0f} % of the mask is separate from its largest piece")
    if crop.cavity_share > rules.max_cavity_share:
        caveats.append(f"the mask has cavities ({100 * crop.cavity_share:.0f} % of it)")
    return tuple(caveats)


def body_caveats(level: Level, body: BodyGeometry, rules: MeasureRules) -> tuple[str, ...]:
    """Return what makes the outline or the size of a body doubtful."""
    caveats = []
    if body.canal is None:
        caveats.append("the arch is not closed, so the canal was not found")
    if body.symmetry < rules.min_symmetry:
        caveats.append("the left and right halves are not symmetric")
    for name, half_mm in zip(_SIZES, body.half_mm, strict=True):
        low, high = rules.of_region(level.region, f"{name}_range_mm")
        if not low <= 2 * half_mm <= high and (level.name != "C2" or name == "depth"):
            caveats.append(f"{name} of {2 * half_mm:.1f} mm is outside the plausible {low:g}-{high:g} mm")
    return tuple(caveats)


def neighbour_caveats(bodies: Sequence[BodyGeometry | None], rules: MeasureRules) -> list[tuple[str, ...]]:
    """Return, for each body from head to tail, which sizes differ too much from the mean of both neighbours.

    Heights are left out: a fracture changes them, which is no fault of the mask.
    """
    caveats: list[tuple[str, ...]] = [() for _ in bodies]
    for n in range(1, len(bodies) - 1):
        above, here, below = bodies[n - 1], bodies[n], bodies[n + 1]
        if above is None or here is None or below is None:
            continue
        for axis, name in enumerate(("width", "depth")):
            expected = (above.half_mm[axis] + below.half_mm[axis]) / 2
            if abs(here.half_mm[axis] - expected) > rules.max_size_jump * expected:
                limit = f"{100 * rules.max_size_jump:.0f} %"
                caveats[n] += (f"{name} differs by more than {limit} from the mean of both neighbours",)
    return caveats


def endplate_fault(endplate: Endplate | None, crop: Crop, rules: MeasureRules) -> str | None:
    """Return why an endplate must not be used, or None."""
    if endplate is None:
        return "no endplate was found"
    cut = crop.near_border(endplate.cloud.points, rules.cut_voxels, rules.border_slack_voxels)
    if float(np.mean(cut)) > rules.max_cut_share:
        return CUT
    if endplate.reentries > rules.max_usable_reentries:
        return "the mask is hollow beneath the endplate, or has fragments beyond it"
    if endplate.coverage < rules.min_usable_coverage or endplate.inlier_share < rules.min_usable_inliers:
        return "the endplate is too irregular to fit a plane"
    return None


def endplate_caveats(name: str, endplate: Endplate, depth_mm: float, rules: MeasureRules) -> tuple[str, ...]:
    """Return what makes a usable endplate of a body of `depth_mm` doubtful; `name` is "superior" or "inferior"."""
    caveats = []
    if endplate.reentries > rules.max_reentries:
        caveats.append(f"the mask is hollow beneath the {name} endplate, or has fragments beyond it")
    if endplate.coverage < rules.min_coverage:
        caveats.append(f"the {name} endplate has gaps")
    if endplate.inlier_share < rules.min_inliers or endplate.rms_mm > rules.max_rms_mm:
        caveats.append(f"the {name} endplate is uneven (RMS {endplate.rms_mm:.1f} mm)")
    few = endplate.layers(rules.ignored_end_share) <= rules.few_layers
    if few and endplate.layer_mm > rules.layer_share * depth_mm:
        within_deg = np.degrees(endplate.layer_mm / depth_mm)
        caveats.append(
            f"the {name} endplate is parallel to the voxel grid: its tilt is known to about {within_deg:.0f} degrees"
        )
    return tuple(caveats)


def slice_caveats(crop: Crop, body: BodyGeometry, rules: MeasureRules) -> tuple[str, ...]:
    """Return a caveat if voxels are long along the up axis: a plane parallel to slices is known to half of one."""
    slice_mm = _voxel_mm(crop, body, 2)
    depth_mm = 2 * body.half_mm[1]
    if slice_mm <= min(rules.coarse_voxel_mm, rules.coarse_voxel_share * depth_mm):
        return ()
    known = f"heights are known to about {slice_mm / 2:.1f} mm, angles to some degrees"
    return (f"voxels of {slice_mm:.1f} mm along the body: {known}",)


def width_caveats(crop: Crop, body: BodyGeometry, rules: MeasureRules) -> tuple[str, ...]:
    """Return what makes the width doubtful: processes at the sides of the body, long voxels across."""
    processes = ("the transverse processes may be included: up to 5 mm too wide",)
    return (processes if has_processes_aside(crop.level) else ()) + _across_caveats(crop, body, 0, rules)


def depth_caveats(crop: Crop, body: BodyGeometry, rules: MeasureRules) -> tuple[str, ...]:
    """Return what makes the depth doubtful: long voxels from back to front."""
    return _across_caveats(crop, body, 1, rules)


def _across_caveats(crop: Crop, body: BodyGeometry, axis: int, rules: MeasureRules) -> tuple[str, ...]:
    voxel_mm = _voxel_mm(crop, body, axis)
    return (f"voxels of {voxel_mm:.1f} mm across the body",) if voxel_mm > rules.coarse_voxel_mm else ()


def _voxel_mm(crop: Crop, body: BodyGeometry, axis: int) -> float:
    """Return the extent of the map's voxels along one of the body's axes (right, anterior, up)."""
    cosines = body.frame.axes[axis] @ (crop.grid.affine[:3, :3] / np.asarray(crop.grid.spacing_mm))
    return float(np.linalg.norm(cosines * np.asarray(crop.grid.spacing_mm) / crop.factors))


def border_fault(body: BodyGeometry, crop: Crop, rules: MeasureRules) -> str:
    """Return a fault if the border cuts a body, that is, touches a wall or an endplate; otherwise an empty string."""
    return CUT if _reaches_border(body, crop, rules.cut_voxels, rules) else ""


def border_caveats(body: BodyGeometry, crop: Crop, rules: MeasureRules) -> tuple[str, ...]:
    """Return a caveat if a body ends just before the border: its mask may be cut short."""
    near = _reaches_border(body, crop, rules.nearly_cut_voxels, rules)
    return ("ends just before the border of the scan: may be cut",) if near else ()


def _reaches_border(body: BodyGeometry, crop: Crop, within_voxels: float, rules: MeasureRules) -> bool:
    walls = np.zeros((4, 3))
    walls[[0, 1], 0] = -body.half_mm[0], body.half_mm[0]
    walls[[2, 3], 1] = -body.half_mm[1], body.half_mm[1]
    slack = rules.border_slack_voxels
    plates = [plate.cloud.points for plate in (body.superior, body.inferior) if plate is not None]
    share = max((float(np.mean(crop.near_border(points, within_voxels, slack))) for points in plates), default=0.0)
    return share > rules.max_cut_share or bool(crop.near_border(body.frame.to_world(walls), within_voxels, slack).any())
