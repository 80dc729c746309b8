"""Surface area without a mesh."""

import numpy as np
from scipy import ndimage

from vertebral.stages.measure.crops import Crop

_BLUR_MM = 0.9


def surface_area_cm2(crop: Crop) -> float:
    """Return the area of the surface of a crop.

    By the coarea formula (Federer 1959), the integral of the gradient's length of a blurred mask is the mean area of
    its level sets, so no staircase counts.
    """
    spacing = np.asarray(crop.grid.spacing_mm)
    soft = ndimage.gaussian_filter(np.pad(crop.occupancy, 3), np.maximum(_BLUR_MM / spacing, 0.7))
    slopes = np.gradient(soft, *spacing)
    return float(np.sqrt(sum(slope**2 for slope in slopes)).sum()) * float(np.prod(spacing)) / 100
