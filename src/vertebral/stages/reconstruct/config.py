"""How surfaces are made."""

from pydantic import Field

from vertebral.core.config import Config


class MeshConfig(Config):
    """How surfaces are made; lengths in mm.

    `smooth` scales the smoothing: 1 is all of it, 0 none. `max_error_mm` bounds how far decimation may move the
    surface, 0 keeps all triangles. `target_edge_mm` samples the surface anew at about this edge length and keeps all
    triangles. `clearance_mm` is the least gap between neighbours.
    """

    smooth: float = Field(1.0, ge=0, le=1)
    max_error_mm: float = Field(0.15, ge=0, le=2)
    target_edge_mm: float | None = Field(None, ge=0.2, le=5)
    clearance_mm: float = Field(0.1, ge=0, le=1.5)
