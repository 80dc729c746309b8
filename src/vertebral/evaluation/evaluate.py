"""Score one predicted label map against one reference: spine, regions, vertebrae, names and instances."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vertebral.core.anatomy import BY_NAME, BY_VERSE_ID, Level
from vertebral.evaluation.case import REGIONS, RunRecord, ScoredCase, StructureScore, VertebraScore
from vertebral.evaluation.metrics import SurfaceDistances
from vertebral.evaluation.naming import hits, match, name_scores, true_levels
from vertebral.evaluation.overlaps import OverlapCounts, count_overlaps, surface_distances
from vertebral.evaluation.pair import LabelMapPair, Labels, read_pair, vertebrae
from vertebral.evaluation.settings import TOLERANCES_MM, Settings
from vertebral.evaluation.surfaces import SurfaceVoxels, find_surface_voxels

_EACH = np.arange(256, dtype=np.uint8)
_ALL_ONE = (_EACH > 0).astype(np.uint8)
_REGION_IDS = np.zeros(256, np.uint8)
for _level in BY_VERSE_ID.values():
    if _level.is_vertebra:
        _REGION_IDS[_level.verse_id] = 1 + REGIONS.index(_level.region)


def evaluate(
    prediction: Path,
    reference: Path,
    settings: Settings | None = None,
    case: str | None = None,
    subject: str | None = None,
    run: RunRecord | None = None,
) -> ScoredCase:
    """Score two label maps. `case` defaults to the file name of the reference, `subject` to the case.

    Raises ReadError for a file that is not a label map, and GeometryError if the grids differ.
    """
    settings = settings or Settings()
    name = case or reference.name
    return score_pair(read_pair(prediction, reference, settings), settings, name, subject or name, run or RunRecord())


def score_pair(pair: LabelMapPair, settings: Settings, case: str, subject: str, run: RunRecord) -> ScoredCase:
    """Score two label maps that are already on one grid."""
    compared = _Comparison(
        pair, count_overlaps(pair), find_surface_voxels(pair.predicted), find_surface_voxels(pair.reference)
    )
    found, truth = (
        () if pair.one_label else vertebrae(sizes) for sizes in (compared.counts.ours, compared.counts.theirs)
    )
    names = [level.name for level in found if level not in truth]
    return ScoredCase(
        case=case,
        subject=subject,
        spine=_spine(compared, settings.perfect_when_both_empty),
        regions=() if pair.one_label else _regions(compared),
        levels=_levels(compared, found, truth),
        extra=tuple(names),
        ignored=tuple(level.name for level in pair.ignored),
        naming=None if pair.one_label else name_scores(compared.counts, found, truth, pair.cut),
        matching=None if pair.one_label else match(compared.counts, found, truth, pair.cut),
        diagonal_mm=pair.diagonal_mm,
        notes=pair.notes,
        run=run,
        answers=_answers(run, compared.counts, found),
    )


@dataclass(frozen=True)
class _Comparison:
    """Overlaps and surface voxels of a pair, computed once for all scores."""

    pair: LabelMapPair
    counts: OverlapCounts
    ours: SurfaceVoxels
    theirs: SurfaceVoxels

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.pair.grid.spacing_mm)) / 1000

    def distances(self, codes: Labels) -> dict[int, SurfaceDistances]:
        return surface_distances(self.ours, self.theirs, codes, self.pair.reference.shape, self.pair.grid.spacing_mm)


def _spine(compared: _Comparison, perfect_when_empty: bool) -> StructureScore:
    counts = compared.counts
    sizes = int(counts.ours[1:].sum()), int(counts.theirs[1:].sum())
    apart = compared.distances(_ALL_ONE).get(1)
    return _structure("spine", sizes, int(counts.voxels[1:, 1:].sum()), apart, compared.voxel_ml, perfect_when_empty)


def _structure(
    name: str,
    sizes: tuple[int, int],
    shared: int,
    apart: SurfaceDistances | None,
    voxel_ml: float,
    perfect_when_empty: bool = False,
) -> StructureScore:
    """Score one structure; `sizes` are its voxels in the prediction and in the reference."""
    ours, theirs = sizes
    score = 2 * shared / (ours + theirs) if ours + theirs else 1.0 if perfect_when_empty else None
    near: list[float | None] = [score if apart is None else apart.share_within(mm) for mm in TOLERANCES_MM]
    return StructureScore(
        name=name,
        dice=score,
        hd95_mm=apart.hd95_mm if apart else None,
        assd_mm=apart.assd_mm if apart else None,
        surface_within_1mm=near[0],
        surface_within_2mm=near[1],
        surface_within_3mm=near[2],
        volume_ml=ours * voxel_ml,
        reference_ml=theirs * voxel_ml,
        volume_error=(ours - theirs) / theirs if theirs else None,
    )


def _regions(compared: _Comparison) -> tuple[StructureScore, ...]:
    """Score the regions of the reference, each as one mask."""
    counts, apart = compared.counts, compared.distances(_REGION_IDS)
    rows = []
    for number, name in enumerate(REGIONS, start=1):
        ids = np.flatnonzero(number == _REGION_IDS)
        sizes = int(counts.ours[ids].sum()), int(counts.theirs[ids].sum())
        if sizes[1]:
            shared = int(counts.voxels[np.ix_(ids, ids)].sum())
            rows.append(_structure(name, sizes, shared, apart.get(number), compared.voxel_ml))
    return tuple(rows)


def _levels(compared: _Comparison, found: tuple[Level, ...], truth: tuple[Level, ...]) -> tuple[VertebraScore, ...]:
    counts = compared.counts
    apart = compared.distances(_EACH) if truth else {}
    hit = hits(counts, found, truth)
    rows = []
    for level in truth:
        here = level.verse_id
        sizes = int(counts.ours[here]), int(counts.theirs[here])
        row = _structure(level.name, sizes, int(counts.voxels[here, here]), apart.get(here), compared.voxel_ml)
        distance_mm = float(np.linalg.norm(counts.ours_mm[here] - counts.theirs_mm[here])) if sizes[0] else None
        rows.append(
            VertebraScore(
                **vars(row),
                any_level_dice=_any_level_dice(counts, here),
                cut=level in compared.pair.cut,
                distance_mm=distance_mm,
                hit=level in hit,
            )
        )
    return tuple(rows)


def _any_level_dice(counts: OverlapCounts, verse_id: int) -> float:
    shared = counts.voxels[1:, verse_id]
    best = int(shared.argmax()) + 1
    if not shared.any():
        return 0.0
    return float(2 * shared.max() / (counts.ours[best] + counts.theirs[verse_id]))


def _answers(run: RunRecord, counts: OverlapCounts, found: tuple[Level, ...]) -> tuple[tuple[float, bool], ...]:
    """Return (confidence, right) of the vertebrae that are in the manifest and match one of the reference."""
    true_level_of = true_levels(counts, found)
    known = [(BY_NAME[name], confidence) for name, confidence in run.confidences if name in BY_NAME]
    pairs = [(level, confidence, true_level_of.get(level)) for level, confidence in known]
    return tuple((confidence, other == level) for level, confidence, other in pairs if other is not None)
