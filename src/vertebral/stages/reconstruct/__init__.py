"""From named occupancies or a label map to surfaces: one closed, manifold, outward mesh per vertebra, in RAS+ mm."""

from vertebral.core.mesh_checks import SurfaceCheck, check_surface
from vertebral.stages.reconstruct.field import field_of, fields_of_labels
from vertebral.stages.reconstruct.rules import RECONSTRUCT_RULES, ReconstructRules
from vertebral.stages.reconstruct.surfaces import (
    Reconstruction,
    SurfaceGap,
    mesh_fields,
    reconstruct,
    surface_from_mask,
)

__all__ = [
    "RECONSTRUCT_RULES",
    "ReconstructRules",
    "Reconstruction",
    "SurfaceCheck",
    "SurfaceGap",
    "check_surface",
    "field_of",
    "fields_of_labels",
    "mesh_fields",
    "reconstruct",
    "surface_from_mask",
]
