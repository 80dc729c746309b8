"""Figures that matter for 3D printing: wall thickness, size, overhang."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebral.core.mesh_checks import areas, check_surface, face_normals
from vertebral.core.mesh_intersections import self_intersections
from vertebral.core.records import Surface
from vertebral.stages.reconstruct.contour import first_hits
from vertebral.stages.reconstruct.rules import RECONSTRUCT_RULES, ReconstructRules

_START_MM = 1e-3


@dataclass(frozen=True)
class PrintCheck:
    """Counts and measurements of one mesh.

    `wall_min_mm` and `wall_p5_mm` are the minimum and the fifth percentile of the wall thickness, estimated along rays
    inward from 1000 faces drawn by area; sharp edges make the minimum small. `thin_share` is the share of the area
    with walls under 1.5 mm. `overhang_share` is the share of the area that faces down by more than 45 degrees with the
    patient's head up (+S), bottom included. `size_mm` is the bounding box along R, A, S.
    """

    watertight: bool
    manifold: bool
    components: int
    euler_number: int
    self_intersections: int
    vertices: int
    faces: int
    volume_ml: float
    area_cm2: float
    size_mm: tuple[float, float, float]
    edge_mean_mm: float
    wall_min_mm: float
    wall_p5_mm: float
    thin_share: float
    overhang_share: float


def print_check(surface: Surface, rules: ReconstructRules = RECONSTRUCT_RULES) -> PrintCheck:
    """Count and measure `surface`; the same surface gives the same numbers."""
    vertices, faces = surface.vertices_mm, surface.faces
    check = check_surface(surface)
    face_areas = areas(vertices, faces)
    down = face_normals(vertices, faces)[:, 2] < -np.cos(np.deg2rad(rules.overhang_deg)) * face_areas
    walls = wall_thickness_mm(surface, rules)
    edges = np.linalg.norm(vertices[faces] - vertices[np.roll(faces, -1, axis=1)], axis=2)
    x, y, z = (round(float(side), 2) for side in np.ptp(vertices, axis=0))
    return PrintCheck(
        watertight=check.watertight,
        manifold=check.manifold,
        components=check.components,
        euler_number=check.euler_number,
        self_intersections=len(self_intersections(vertices, faces)),
        vertices=len(vertices),
        faces=len(faces),
        volume_ml=round(check.volume_ml, 4),
        area_cm2=round(check.area_cm2, 3),
        size_mm=(x, y, z),
        edge_mean_mm=round(float(edges.mean()), 3),
        wall_min_mm=round(float(walls.min()), 2),
        wall_p5_mm=round(float(np.percentile(walls, 5)), 2),
        thin_share=round(float((walls < rules.thin_wall_mm).mean()), 4),
        overhang_share=round(float(face_areas[down].sum() / face_areas.sum()), 4),
    )


def wall_thickness_mm(surface: Surface, rules: ReconstructRules = RECONSTRUCT_RULES) -> NDArray[np.float64]:
    """Return the distance (N,) from face centres straight in to the opposite wall, for N faces drawn by area."""
    normals = face_normals(surface.vertices_mm, surface.faces)
    face_areas = np.linalg.norm(normals, axis=1)
    chosen = np.random.default_rng(0).choice(len(face_areas), rules.wall_rays, p=face_areas / face_areas.sum())
    inward = -normals[chosen] / face_areas[chosen, None]
    starts = surface.vertices_mm[surface.faces[chosen]].mean(axis=1) + _START_MM * inward
    reach_mm = float(np.linalg.norm(np.ptp(surface.vertices_mm, axis=0))) + 1
    hits = first_hits(surface.vertices_mm, surface.faces, starts, starts + reach_mm * inward)
    return _START_MM + reach_mm * hits
