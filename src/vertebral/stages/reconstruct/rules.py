"""The rules of `reconstruct`: every threshold that steers the surfaces, with unit and source.

What a user chooses is in `MeshConfig`. "Shapes" are the sphere, ellipsoid and torus of `benchmarks/surfaces.py`, "label
maps" those of `tools/mesh_labels.py`; docs/meshes.md has the results of both.
"""

from dataclasses import dataclass
from typing import Final

from vertebral.core.rules import rule

_SHAPES: Final = "benchmarks/surfaces.py"
_MAPS: Final = "chosen by hand, checked on label maps (tools/mesh_labels.py)"
_FILTER: Final = f"{_SHAPES}: rounds, iterations and pass band of the windowed sinc (Taubin 1996)"


@dataclass(frozen=True)
class ReconstructRules:
    """Thresholds of the surfaces; a share is a fraction of what the name or the source says."""

    # The field that is contoured.
    contour_margin: float = rule(
        0.02, "occupancy", "by hand: so far from 0.5, no triangle shrinks to nothing at a voxel"
    )
    binary_step: float = rule(0.9, "occupancy", "by hand: neighbours that differ more belong to a mask")
    binary_share: float = rule(0.5, "share", "by hand: of the steps through the surface; above, the source is a mask")
    max_anisotropy: float = rule(1.5, "ratio of spacings", f"{_MAPS}: grids beyond are resampled, or have slices")
    min_native_mm: float = rule(0.75, "mm", f"{_SHAPES}: masks on finer grids are resampled")
    max_native_mm: float = rule(1.7, "mm", f"{_SHAPES}: masks on coarser grids are resampled")
    min_spacing_mm: float = rule(0.9, "mm", f"{_SHAPES}: finer is no nearer to the truth, with more triangles")
    max_spacing_mm: float = rule(1.0, "mm", f"{_SHAPES}: of a resampled grid")
    planes_per_slice: int = rule(3, "planes", f"{_MAPS}: resampled grid planes per slice of the source")
    mask_blur_voxels: float = rule(0.7, "voxels", f"{_SHAPES}: Gaussian that softens a mask on its own grid")
    reach_slices: float = rule(0.8, "slices", f"{_MAPS}: largest distance that counts where slices are thick")
    reach_voxels: float = rule(1.5, "voxels", f"{_SHAPES}: largest distance that counts elsewhere")

    # Smoothing and volume.
    soft_filter: tuple[int, int, float] = rule((1, 10, 0.1), "rounds, iterations, band", f"{_FILTER}; soft occupancies")
    mask_filter: tuple[int, int, float] = rule((2, 30, 0.01), "rounds, iterations, band", f"{_FILTER}; masks")
    coarse_filter: tuple[int, int, float] = rule((4, 60, 0.003), "rounds, iterations, band", f"{_FILTER}; coarse masks")
    coarse_edges: float = rule(1.9, "edges", f"{_SHAPES}: source voxels this long, in mesh edges, make a mask coarse")
    cage_voxels: float = rule(0.5, "voxels", "docs/adr/0009: no vertex leaves its label by more than half a voxel")
    max_shift_voxels: float = rule(0.25, "voxels", f"{_MAPS}: of the shift that restores the volume")
    restore_mm: float = rule(
        1.5, "mm", f"{_MAPS}: no volume is given back up to here from a contact, all from twice on"
    )

    # Clearance between neighbours.
    search_mm: float = rule(2.0, "mm", f"{_MAPS}: gaps from here on are not listed")
    decimation_share: float = rule(0.5, "share", f"{_MAPS}: of the decimation error, added to the clearance wanted")
    extra_clearance_mm: float = rule(0.02, "mm", f"{_MAPS}: added to what is missing after a round")
    max_rounds: int = rule(4, "rounds", f"{_MAPS}: of separating what is still too near after decimation")
    vertex_steps: int = rule(6, "steps", f"{_MAPS}: of moving vertices apart")
    face_steps: int = rule(4, "steps", f"{_MAPS}: of moving faces apart")
    contact_reach_mm: float = rule(2.5, "mm", f"{_MAPS}: overlaps are no deeper than a stair of the label map")
    plane_slack_mm: float = rule(0.05, "mm", f"{_MAPS}: a surface may be this much nearer than its vertices' planes")
    between_vertices: float = rule(
        0.75, "field spacings", "by hand: from the middle of a triangle to its corners, about"
    )
    between_samples: float = rule(0.3, "field spacings", "by hand: the same among samples of the faces")
    carved_error_mm: float = rule(0.02, "mm", f"{_MAPS}: of simplifying what is left of a carved surface")

    # Decimation.
    face_mm2_per_error_mm: float = rule(6.0, "mm2/mm", f"{_MAPS}: area of a face on a bone for each mm of error")
    more_faces_factor: float = rule(1.4, "factor", f"{_MAPS}: faces of the next attempt")
    aggression: int = rule(4, "exponent", f"{_MAPS}: fast-simplification's 7 is a quarter faster, with larger errors")
    max_decimations: int = rule(3, "attempts", f"{_MAPS}: then all faces are kept")
    min_faces: int = rule(200, "faces", "by hand")
    outlier_share: float = rule(
        0.001, "share", f"{_MAPS}: of vertices beyond the error, where neighbours were separated"
    )
    outlier_errors: float = rule(5.0, "errors", f"{_MAPS}: how far these may be")
    max_vertices: int = rule(100_000, "vertices", f"{_MAPS}: no bone has more; noise has, and takes minutes")
    min_reduction: float = rule(0.25, "share", f"{_MAPS}: of faces; a smaller saving is not worth its cost")

    # Repair of what fails the checks.
    max_attempts: int = rule(12, "attempts", f"{_MAPS}: the last one takes the contour as it is")
    last_smooth_share: float = rule(0.5, "share", f"{_MAPS}: of the smoothing that the last attempt but one keeps")
    max_smoothings: int = rule(2, "attempts", f"{_MAPS}: of smoothing around triangles that cut each other")
    smoothing_edges: float = rule(2.0, "edges", f"{_MAPS}: reach of that smoothing, at each attempt further")
    smoothing_passes: int = rule(5, "passes", f"{_MAPS}: of averaging over neighbours")
    repair_spacings: float = rule(2.0, "field spacings", f"{_MAPS}: reach of a repair, at each one further")
    contour_repairs: int = rule(3, "repairs", f"{_MAPS}: from this one on, a repair goes back to the contour")

    # What is meshed at all.
    max_vertebra_ml: float = rule(200.0, "ml", "twice the largest lumbar vertebrae; meshing more takes minutes")

    # Printing.
    wall_rays: int = rule(1000, "rays", "by hand: the fifth percentile of the wall's thickness is steady")
    thin_wall_mm: float = rule(1.5, "mm", "by hand: about four lines of a 0.4 mm nozzle")
    overhang_deg: float = rule(45.0, "degrees", "the usual limit of filament printing without support")
    min_piece_mm3: float = rule(1.0, "mm3", "by hand: a cut that shaves off less leaves the surface whole")


RECONSTRUCT_RULES: Final = ReconstructRules()
