"""What speaks against a measured vertebra: sizes that no adult has, neighbours that differ, masks in pieces."""

from collections.abc import Sequence

import numpy as np

from vertebral.core.anatomy import Level
from vertebral.stages.measure.body import Body, room_for
from vertebral.stages.measure.crops import Crop
from vertebral.stages.measure.endplates import Endplate

# Outermost body sizes (mm): means of Panjabi et al. (1991, 1992) less and plus about four standard deviations, wider
# below for heights, since fractures are real.
_RANGES_MM: dict[str, dict[str, tuple[float, float]]] = {
    "cervical": {"width": (11.0, 34.0), "depth": (9.0, 26.0), "height": (6.0, 22.0)},
    "thoracic": {"width": (16.0, 54.0), "depth": (11.0, 44.0), "height": (7.0, 34.0)},
    "lumbar": {"width": (28.0, 66.0), "depth": (20.0, 48.0), "height": (10.0, 42.0)},
}
_MOST_LOOSE, _MOST_CAVITY = 0.02, 0.03
_LEAST_MIRROR = 0.80
_LEAST_COVERAGE, _LEAST_INLIERS, _MOST_RMS_MM = 0.9, 0.8, 1.3
_WORST_COVERAGE, _WORST_INLIERS = 0.5, 0.5
_LEAST_HOLLOW, _MOST_HOLLOW = 0.02, 0.12
_SIZE_JUMP = 0.25
_CUT_SHARE = 0.02
# A voxel over the depth of the body is the angle by which an endplate may be off: 2.9 degrees.
_COARSE_SLICE_MM, _COARSE_SLICE_SHARE = 2.0, 0.05
# An endplate that steps once or never, in voxels of over a degree: found off by up to 2 degrees.
_FEW_LAYERS, _LAYER_SHARE = 2, 0.0175


def mask_doubts(crop: Crop) -> list[str]:
    """Return what is wrong with the mask itself."""
    doubts = []
    if crop.loose_share > _MOST_LOOSE:
        doubts.append(f"{100 * crop.loose_share:.0f} % of the mask lies apart from the rest")
    if crop.cavity_share > _MOST_CAVITY:
        doubts.append(f"the mask is hollow ({100 * crop.cavity_share:.0f} %)")
    return doubts


def body_doubts(level: Level, body: Body) -> list[str]:
    """Return what makes a body's separation or size doubtful."""
    doubts = []
    if body.canal is None:
        doubts.append("the arch is not closed, so the canal was not found")
    if body.mirror < _LEAST_MIRROR:
        doubts.append("left and right halves differ much")
    names = ("width", "depth", "height") if level.name != "C2" else ("depth",)
    sizes = dict(zip(("width", "depth", "height"), body.half_mm, strict=True))
    for name in names:
        low, high = _RANGES_MM[level.region][name]
        if not low <= 2 * sizes[name] <= high:
            doubts.append(f"{name} {2 * sizes[name]:.1f} mm is beyond {low:g}-{high:g} mm")
    return doubts


def neighbour_doubts(bodies: Sequence[Body | None]) -> list[list[str]]:
    """Return, for each body from head to tail, in which size it differs from the mean of both neighbours by a quarter.

    Heights are left out: a fracture changes them, and is no fault of the mask.
    """
    doubts: list[list[str]] = [[] for _ in bodies]
    for n in range(1, len(bodies) - 1):
        above, here, below = bodies[n - 1], bodies[n], bodies[n + 1]
        if above is None or here is None or below is None:
            continue
        for axis, name in enumerate(("width", "depth")):
            expected = (above.half_mm[axis] + below.half_mm[axis]) / 2
            if abs(here.half_mm[axis] - expected) > _SIZE_JUMP * expected:
                doubts[n].append(f"{name} differs from its neighbours' by over {100 * _SIZE_JUMP:.0f} %")
    return doubts


def endplate_fault(endplate: Endplate | None, crop: Crop) -> str | None:
    """Return why an endplate must not be used, or None."""
    if endplate is None:
        return "no endplate was found"
    if float(np.mean(crop.beside_border(endplate.cloud.points))) > _CUT_SHARE:
        return "cut by the border of the scan"
    if endplate.hollow > _MOST_HOLLOW:
        return "the mask is hollow beneath the endplate, or has crumbs beyond it"
    if endplate.coverage < _WORST_COVERAGE or endplate.inlier_share < _WORST_INLIERS:
        return "the endplate is too ragged to fit a plane"
    return None


def endplate_doubts(name: str, endplate: Endplate, depth_mm: float) -> list[str]:
    """Return what makes a usable endplate of a body of `depth_mm` doubtful."""
    doubts = []
    if endplate.hollow > _LEAST_HOLLOW:
        doubts.append(f"the mask is hollow beneath the {name} endplate, or has crumbs beyond it")
    if endplate.coverage < _LEAST_COVERAGE:
        doubts.append(f"the {name} endplate has gaps")
    if endplate.inlier_share < _LEAST_INLIERS or endplate.rms_mm > _MOST_RMS_MM:
        doubts.append(f"the {name} endplate is uneven (rms {endplate.rms_mm:.1f} mm)")
    if endplate.layers <= _FEW_LAYERS and endplate.layer_mm > _LAYER_SHARE * depth_mm:
        within_deg = np.degrees(endplate.layer_mm / depth_mm)
        doubts.append(f"the {name} endplate lies along the voxels: its tilt is known to {within_deg:.0f} degrees or so")
    return doubts


def slice_doubts(crop: Crop, body: Body) -> list[str]:
    """Return a doubt where voxels are long along the up axis: a plane parallel to slices is known to half of one."""
    slice_mm = _voxel_mm(crop, body, 2)
    depth_mm = 2 * body.half_mm[1]
    if slice_mm <= min(_COARSE_SLICE_MM, _COARSE_SLICE_SHARE * depth_mm):
        return []
    return [
        f"voxels of {slice_mm:.1f} mm along the body: heights to about {slice_mm / 2:.1f} mm, angles to some degrees"
    ]


def width_doubts(crop: Crop, body: Body) -> list[str]:
    """Return what makes the width doubtful: processes beside a cervical body, long voxels across."""
    winged = room_for(crop.level).winged
    beside = ["transverse processes beside the body may count: up to 5 mm too wide"] if winged else []
    return beside + _across_doubts(crop, body, 0)


def depth_doubts(crop: Crop, body: Body) -> list[str]:
    """Return what makes the depth doubtful: long voxels from back to front."""
    return _across_doubts(crop, body, 1)


def _across_doubts(crop: Crop, body: Body, axis: int) -> list[str]:
    voxel_mm = _voxel_mm(crop, body, axis)
    return [f"voxels of {voxel_mm:.1f} mm across the body"] if voxel_mm > _COARSE_SLICE_MM else []


def _voxel_mm(crop: Crop, body: Body, axis: int) -> float:
    """Return the extent of the map's voxels along one of the body's axes (right, anterior, up)."""
    cosines = body.frame.axes[axis] @ (crop.grid.affine[:3, :3] / np.asarray(crop.grid.spacing_mm))
    return float(np.linalg.norm(cosines * np.asarray(crop.grid.spacing_mm) / crop.factors))


def border_fault(body: Body, crop: Crop) -> str | None:
    """Return why a body counts as cut: a wall or over 2 per cent of an endplate within a voxel of the border."""
    return "cut by the border of the scan" if _reaches_border(body, crop, 1.0) else None


def border_doubts(body: Body, crop: Crop) -> list[str]:
    """Return a doubt where a body ends less than three voxels before the border: its mask may be cut short."""
    return ["ends just before the border of the scan: may be cut"] if _reaches_border(body, crop, 3.0) else []


def _reaches_border(body: Body, crop: Crop, within_voxels: float) -> bool:
    walls = np.zeros((4, 3))
    walls[[0, 1], 0] = -body.half_mm[0], body.half_mm[0]
    walls[[2, 3], 1] = -body.half_mm[1], body.half_mm[1]
    plates = [plate.cloud.points for plate in (body.superior, body.inferior) if plate is not None]
    share = max((float(np.mean(crop.beside_border(points, within_voxels))) for points in plates), default=0.0)
    return share > _CUT_SHARE or bool(crop.beside_border(body.frame.to_world(walls), within_voxels).any())
