"""The superior endplate of S1, found by rays from the inferior endplate of the last lumbar vertebra."""

import numpy as np

from vertebral.stages.measure.body import BodyGeometry
from vertebral.stages.measure.crops import Crop
from vertebral.stages.measure.endplates import Endplate, cloud_along_rays, endplate_from, exit_intervals
from vertebral.stages.measure.frames import Frame, frame_from, local_values
from vertebral.stages.measure.rules import MeasureRules

_ROUNDS = 3


def sacral_endplate(sacrum: Crop, last: BodyGeometry, rules: MeasureRules) -> Endplate | None:
    """Find the S1 endplate below the body `last`; None if most rays meet no sacrum within reach.

    Rays start at the inferior endplate of `last` and run down along its normal, then along the mean of its normal and
    that of the S1 plane found before.
    """
    roof = last.inferior
    if roof is None:
        return None
    frame = frame_from(roof.centre_mm, roof.normal, last.frame.axes[1])
    found: Endplate | None = None
    for _ in range(_ROUNDS):
        found = _met(sacrum, frame, last.half_mm, rules)
        if found is None:
            return None
        up = found.normal + roof.normal
        start = frame_from(found.centre_mm, up, last.frame.axes[1])
        frame = start.moved(np.array([0.0, 0.0, float(start.to_own(roof.centre_mm)[2])]))
    return found


def _met(sacrum: Crop, frame: Frame, half_mm: tuple[float, float, float], rules: MeasureRules) -> Endplate | None:
    step_mm, above_mm = rules.sacrum_sampling_mm, rules.sacrum_ray_start_mm
    right = np.arange(-np.ceil(half_mm[0]), np.ceil(half_mm[0]) + 1, step_mm)
    ahead = np.arange(-np.ceil(half_mm[1]), np.ceil(half_mm[1]) + 1, step_mm)
    down = np.arange(above_mm, -rules.sacrum_reach_mm - step_mm, -step_mm)
    # Seen from the disc, the sacrum begins where the space outside it ends.
    outside = 1 - local_values(sacrum.occupancy, sacrum.grid, frame, (right, ahead, down))
    way, slack = exit_intervals(outside, 0, 1, step_mm, rules)
    depth = above_mm - way
    within = (right[:, None] / half_mm[0]) ** 2 + (ahead[None, :] / half_mm[1]) ** 2 <= rules.footprint_share**2
    met = within & np.isfinite(depth)
    if np.count_nonzero(met) < rules.min_usable_coverage * np.count_nonzero(within):
        return None
    i, j = np.nonzero(met)
    cloud = cloud_along_rays(np.column_stack([right[i], ahead[j], depth[met]]), slack[met][:, ::-1])
    return endplate_from(cloud, frame, float(np.count_nonzero(met) / np.count_nonzero(within)), 0.0, rules)
