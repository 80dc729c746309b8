"""The sacrum's upper endplate, met by rays from the last lumbar vertebra's lower one."""

import numpy as np

from vertebral.stages.measure.body import FOOTPRINT, Body
from vertebral.stages.measure.crops import Crop
from vertebral.stages.measure.endplates import Endplate, cloud_along_rays, endplate_from, exit_intervals
from vertebral.stages.measure.frames import Frame, frame_from, local_values

_FARTHEST_MM = 25.0
_ABOVE_MM = 3.0
_STEP_MM = 1.0
_ROUNDS = 3


def sacral_endplate(sacrum: Crop, last: Body) -> Endplate | None:
    """Find the S1 endplate below the body `last`; None where most rays meet no sacrum within 25 mm.

    Rays start on the last disc's roof and run down along its normal, then along that of the plane found before.
    """
    roof = last.inferior
    if roof is None:
        return None
    frame = frame_from(roof.centre_mm, roof.normal, last.frame.axes[1])
    found: Endplate | None = None
    for _ in range(_ROUNDS):
        found = _met(sacrum, frame, last.half_mm)
        if found is None:
            return None
        up = found.normal + roof.normal
        start = frame_from(found.centre_mm, up, last.frame.axes[1])
        frame = start.moved(np.array([0.0, 0.0, float(start.to_own(roof.centre_mm)[2])]))
    return found


def _met(sacrum: Crop, frame: Frame, half_mm: tuple[float, float, float]) -> Endplate | None:
    right = np.arange(-np.ceil(half_mm[0]), np.ceil(half_mm[0]) + 1, _STEP_MM)
    ahead = np.arange(-np.ceil(half_mm[1]), np.ceil(half_mm[1]) + 1, _STEP_MM)
    down = np.arange(_ABOVE_MM, -_FARTHEST_MM - _STEP_MM, -_STEP_MM)
    # Seen from the disc, the sacrum begins where what is outside of it ends.
    outside = 1 - local_values(sacrum.occupancy, sacrum.grid, frame, (right, ahead, down))
    way, slack = exit_intervals(outside, 0, 1, _STEP_MM)
    depth = _ABOVE_MM - way
    within = (right[:, None] / half_mm[0]) ** 2 + (ahead[None, :] / half_mm[1]) ** 2 <= FOOTPRINT**2
    met = within & np.isfinite(depth)
    if np.count_nonzero(met) < 0.5 * np.count_nonzero(within):
        return None
    i, j = np.nonzero(met)
    cloud = cloud_along_rays(np.column_stack([right[i], ahead[j], depth[met]]), slack[met][:, ::-1])
    return endplate_from(cloud, frame, float(np.count_nonzero(met) / np.count_nonzero(within)), 0.0)
