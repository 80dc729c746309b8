"""The order of the steps from fields to surfaces: smooth, separate neighbours, decimate and check, close gaps.

Flying edges at 0.5, a low-pass filter that leaves no vertex further than half a voxel from where the label map had it,
a shift that gives each mesh the volume of its voxels, a gap between neighbours, and fewer triangles within an error
bound. Each mesh is checked as it will be written; what fails is made again, less smooth or with more triangles.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from manifold3d import Manifold
from numpy.typing import NDArray

from vertebral.core.anatomy import Level
from vertebral.core.records import Spine, Surface
from vertebral.core.volume import Affine, Grid
from vertebral.runtime.forked_tasks import ForkedTasks
from vertebral.runtime.stage_timer import Progress, no_progress
from vertebral.stages.reconstruct.clearance import neighbouring_pairs, separated
from vertebral.stages.reconstruct.config import MeshConfig
from vertebral.stages.reconstruct.fairing import Draft, faired, with_volume_restored
from vertebral.stages.reconstruct.field import Field, field_of
from vertebral.stages.reconstruct.finishing import carved, finished, moved_along, solid_of
from vertebral.stages.reconstruct.rules import RECONSTRUCT_RULES, ReconstructRules

Pair = tuple[int, int]


@dataclass(frozen=True)
class SurfaceGap:
    """The least distance in mm between the surfaces of two neighbours, below 2 mm; 0 where they intersect."""

    first: Level
    second: Level
    mm: float


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Surfaces from head to tail, the fields they were made from, and the gaps between neighbours nearer than 2 mm."""

    surfaces: tuple[Surface, ...]
    fields: tuple[Field, ...]
    gaps: tuple[SurfaceGap, ...]


def reconstruct(
    spine: Spine,
    config: MeshConfig | None = None,
    tasks: ForkedTasks | None = None,
    rules: ReconstructRules = RECONSTRUCT_RULES,
) -> tuple[Surface, ...]:
    """Return one surface per vertebra, in the spine's order, with a clearance between neighbours.

    Each is a single closed outer surface: islands and inner cavities are dropped, rings (the vertebral canal) are kept.
    Raises VertebralError if an occupancy stays below 0.5 everywhere or its mesh is not manifold.
    """
    fields = [field_of(v.instance.occupancy, v.instance.box, spine.grid, v.level, rules=rules) for v in spine.vertebrae]
    return mesh_fields(fields, config or MeshConfig(), tasks=tasks, rules=rules).surfaces


def surface_from_mask(
    mask: NDArray[np.bool_], affine: Affine, level: Level, rules: ReconstructRules = RECONSTRUCT_RULES
) -> Surface:
    """Return the surface of `mask` (I, J, K) whose `affine` maps voxel indices to RAS+ mm, with all its triangles.

    Raises VertebralError if the mask is empty or its mesh is not manifold, GeometryError for a bad affine.
    """
    grid = Grid(mask.shape, affine)
    i, j, k = (slice(0, n) for n in grid.shape)
    field = field_of(np.asarray(mask, dtype=bool), (i, j, k), grid, level, rules=rules)
    return mesh_fields([field], MeshConfig(max_error_mm=0), rules=rules).surfaces[0]


def mesh_fields(
    fields: Sequence[Field],
    config: MeshConfig,
    progress: Progress = no_progress,
    tasks: ForkedTasks | None = None,
    rules: ReconstructRules = RECONSTRUCT_RULES,
) -> Reconstruction:
    """Return the surfaces of `fields` (from head to tail), each checked and clear of its neighbours.

    With `tasks`, forked copies of this process help; the surfaces are the same.
    Raises VertebralError if no printable surface can be made of one.
    """
    drafts = []
    for n, field in enumerate(fields):
        progress("smooth", n / len(fields))
        drafts.append(faired(field, config.smooth, rules))
    progress("smooth", 1.0)
    # Decimation moves both sides, rarely by all it may: add a part of that now, and more where it was not enough.
    allowance_mm = rules.decimation_share * config.max_error_mm
    pairs = neighbouring_pairs([draft.vertices for draft in drafts], rules.search_mm)
    wanted = dict.fromkeys(pairs, config.clearance_mm + allowance_mm)
    apart = separated(drafts, wanted, rules)
    drafts = [with_volume_restored(after, before.vertices, rules) for after, before in zip(apart, drafts, strict=True)]
    made = (tasks or ForkedTasks()).map(
        lambda draft: _finished_or_same(draft, config.max_error_mm, rules),
        drafts,
        lambda share: progress("check", share),
    )
    surfaces = [surface for surface, _ in made]
    drafts = [repaired or draft for draft, (_, repaired) in zip(drafts, made, strict=True)]
    gaps = _clear(surfaces, drafts, wanted, config, rules)
    progress("check", 1.0)
    found = tuple(
        SurfaceGap(fields[a].level, fields[b].level, gap)
        for (a, b), gap in sorted(gaps.items())
        if gap < rules.search_mm
    )
    return Reconstruction(tuple(surfaces), tuple(fields), found)


def _clear(
    surfaces: list[Surface],
    drafts: list[Draft],
    wanted: dict[Pair, float],
    config: MeshConfig,
    rules: ReconstructRules,
) -> dict[Pair, float]:
    """Separate in place what is still too near after decimation, at last by carving; return the gaps of all pairs."""
    solids = [solid_of(surface) for surface in surfaces]
    gaps = _gaps(solids, wanted, rules.search_mm)
    for _ in range(rules.max_rounds):
        near = {pair: gap for pair, gap in gaps.items() if gap < config.clearance_mm}
        if not near:
            break
        for pair, gap in near.items():
            wanted[pair] += config.clearance_mm - gap + rules.extra_clearance_mm
        apart = separated(drafts, {pair: wanted[pair] for pair in near}, rules)
        touched = sorted({n for pair in near for n in pair})
        for n in touched:
            surfaces[n], drafts[n] = moved_along(surfaces[n], drafts[n], apart[n], config.max_error_mm, rules)
            solids[n] = solid_of(surfaces[n])
        gaps |= _gaps(solids, [pair for pair in gaps if set(pair) & set(touched)], rules.search_mm)
    for first, second in [pair for pair, gap in gaps.items() if gap <= 0]:
        left = carved(surfaces[first], surfaces[second], config.clearance_mm, rules)
        if left is not None:
            surfaces[first], solids[first] = left, solid_of(left)
            gaps |= _gaps(solids, [pair for pair in gaps if first in pair], rules.search_mm)
    return gaps


def _finished_or_same(draft: Draft, max_error_mm: float, rules: ReconstructRules) -> tuple[Surface, Draft | None]:
    """As `finished`, with None for a draft that needed no repair: it need not travel from a forked copy."""
    surface, made = finished(draft, max_error_mm, rules)
    return surface, None if made is draft else made


def _gaps(solids: Sequence[Manifold], pairs: Iterable[Pair], search_mm: float) -> dict[Pair, float]:
    """Return the least distance of each pair in mm, at most `search_mm`; 0 where they intersect."""
    return {(a, b): float(solids[a].min_gap(solids[b], search_mm)) for a, b in pairs}
