"""One predicted label map against one reference: the spine, its regions, each vertebra, names and instances."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vertebral.core.anatomy import BY_NAME, BY_VERSE_ID, Level
from vertebral.evaluation.case import REGIONS, CaseScore, LevelRow, Row, Run
from vertebral.evaluation.metrics import SurfaceDistances
from vertebral.evaluation.naming import hits, match, name_scores, stands_for
from vertebral.evaluation.overlaps import Counts, count, surface_distances
from vertebral.evaluation.pair import Labels, Pair, read_pair, vertebrae
from vertebral.evaluation.settings import TOLERANCES_MM, Settings
from vertebral.evaluation.surfaces import Edges, find_edges

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
    run: Run | None = None,
) -> CaseScore:
    """Score two label maps. `case` is the name of the reference's file, and `subject` that of the case, if None.

    Raises ReadError for a file that is no label map, and GeometryError where the grids differ.
    """
    settings = settings or Settings()
    name = case or reference.name
    return score_pair(read_pair(prediction, reference, settings), settings, name, subject or name, run or Run())


def score_pair(pair: Pair, settings: Settings, case: str, subject: str, run: Run) -> CaseScore:
    """Score what `pair` made comparable."""
    scan = _Scan(pair, count(pair), find_edges(pair.predicted), find_edges(pair.reference))
    found, truth = (() if pair.one_label else vertebrae(sizes) for sizes in (scan.counts.ours, scan.counts.theirs))
    names = [level.name for level in found if level not in truth]
    return CaseScore(
        case=case,
        subject=subject,
        spine=_spine(scan, settings.perfect_when_both_empty),
        regions=() if pair.one_label else _regions(scan),
        levels=_levels(scan, found, truth),
        extra=tuple(names),
        ignored=tuple(level.name for level in pair.ignored),
        naming=None if pair.one_label else name_scores(scan.counts, found, truth, pair.cut),
        matching=None if pair.one_label else match(scan.counts, found, truth, pair.cut),
        diagonal_mm=pair.diagonal_mm,
        notes=pair.notes,
        run=run,
        answers=_answers(run, scan.counts, found),
    )


@dataclass(frozen=True)
class _Scan:
    """What is known of a pair before it is scored."""

    pair: Pair
    counts: Counts
    ours: Edges
    theirs: Edges

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.pair.grid.spacing_mm)) / 1000

    def distances(self, codes: Labels) -> dict[int, SurfaceDistances]:
        return surface_distances(self.ours, self.theirs, codes, self.pair.reference.shape, self.pair.grid.spacing_mm)


def _spine(scan: _Scan, perfect_when_empty: bool) -> Row:
    counts = scan.counts
    sizes = int(counts.ours[1:].sum()), int(counts.theirs[1:].sum())
    apart = scan.distances(_ALL_ONE).get(1)
    return _row("spine", sizes, int(counts.voxels[1:, 1:].sum()), apart, scan.voxel_ml, perfect_when_empty)


def _row(
    name: str,
    sizes: tuple[int, int],
    shared: int,
    apart: SurfaceDistances | None,
    voxel_ml: float,
    perfect_when_empty: bool = False,
) -> Row:
    """`sizes` are voxels of the prediction and of the reference."""
    ours, theirs = sizes
    score = 2 * shared / (ours + theirs) if ours + theirs else 1.0 if perfect_when_empty else None
    nsd: list[float | None] = [score if apart is None else apart.nsd(mm) for mm in TOLERANCES_MM]
    return Row(
        name=name,
        dice=score,
        hd95_mm=apart.hd95_mm if apart else None,
        assd_mm=apart.assd_mm if apart else None,
        nsd_1mm=nsd[0],
        nsd_2mm=nsd[1],
        nsd_3mm=nsd[2],
        volume_ml=ours * voxel_ml,
        reference_ml=theirs * voxel_ml,
        volume_error=(ours - theirs) / theirs if theirs else None,
    )


def _regions(scan: _Scan) -> tuple[Row, ...]:
    """Regions that the reference has, each as one mask."""
    counts, apart = scan.counts, scan.distances(_REGION_IDS)
    rows = []
    for number, name in enumerate(REGIONS, start=1):
        ids = np.flatnonzero(number == _REGION_IDS)
        sizes = int(counts.ours[ids].sum()), int(counts.theirs[ids].sum())
        if sizes[1]:
            shared = int(counts.voxels[np.ix_(ids, ids)].sum())
            rows.append(_row(name, sizes, shared, apart.get(number), scan.voxel_ml))
    return tuple(rows)


def _levels(scan: _Scan, found: tuple[Level, ...], truth: tuple[Level, ...]) -> tuple[LevelRow, ...]:
    counts = scan.counts
    apart = scan.distances(_EACH) if truth else {}
    hit = hits(counts, found, truth)
    rows = []
    for level in truth:
        here = level.verse_id
        sizes = int(counts.ours[here]), int(counts.theirs[here])
        row = _row(level.name, sizes, int(counts.voxels[here, here]), apart.get(here), scan.voxel_ml)
        distance_mm = float(np.linalg.norm(counts.ours_mm[here] - counts.theirs_mm[here])) if sizes[0] else None
        rows.append(
            LevelRow(
                **vars(row),
                any_level_dice=_any_level_dice(counts, here),
                cut=level in scan.pair.cut,
                distance_mm=distance_mm,
                hit=level in hit,
            )
        )
    return tuple(rows)


def _any_level_dice(counts: Counts, verse_id: int) -> float:
    shared = counts.voxels[1:, verse_id]
    best = int(shared.argmax()) + 1
    if not shared.any():
        return 0.0
    return float(2 * shared.max() / (counts.ours[best] + counts.theirs[verse_id]))


def _answers(run: Run, counts: Counts, found: tuple[Level, ...]) -> tuple[tuple[float, bool], ...]:
    """(confidence, right) of the vertebrae that the manifest speaks of and that stand for one of the reference."""
    meant = stands_for(counts, found)
    known = [(BY_NAME[name], confidence) for name, confidence in run.confidences if name in BY_NAME]
    pairs = [(level, confidence, meant.get(level)) for level, confidence in known]
    return tuple((confidence, other == level) for level, confidence, other in pairs if other is not None)
