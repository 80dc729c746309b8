"""Surface area without a mesh."""

import numpy as np
from scipy import ndimage

from vertebral.stages.measure.crops import Crop
from vertebral.stages.measure.rules import MeasureRules


def surface_area_cm2(crop: Crop, rules: MeasureRules) -> float:
    """Return the area of the surface of a crop.

    By the coarea formula (Federer 1959), the integral of the gradient's length of a blurred mask is the mean area of
    its isosurfaces, so the staircase of the voxels does not count.
    """
    spacing = np.asarray(crop.grid.spacing_mm)
    sigma = np.maximum(rules.area_blur_mm / spacing, rules.area_min_blur_voxels)
    slopes = np.gradient(ndimage.gaussian_filter(np.pad(crop.occupancy, 3), sigma), *spacing)
    return float(np.sqrt(sum(slope**2 for slope in slopes)).sum()) * float(np.prod(spacing)) / 100
