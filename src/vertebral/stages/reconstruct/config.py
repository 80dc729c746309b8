"""The options of a mesh that a user chooses."""

from pydantic import Field

from vertebral.core.config import Config


class MeshConfig(Config):
    """The options of a mesh that a user chooses; lengths in mm.

    `smooth` scales the smoothing from 0 (none) to 1. `max_error_mm` bounds how far decimation may move the surface; 0
    keeps all triangles. `target_edge_mm` resamples the surface to about this edge length and keeps all triangles.
    `clearance_mm` is the least gap between neighbours.
    """

    smooth: float = Field(1.0, ge=0, le=1)
    max_error_mm: float = Field(0.15, ge=0, le=2)
    target_edge_mm: float | None = Field(None, ge=0.2, le=5)
    clearance_mm: float = Field(0.1, ge=0, le=1.5)
