"""The scores of one case as frozen records. They contain no NaN or infinity, so they convert directly to JSON."""

from dataclasses import asdict, dataclass
from typing import Any

REGIONS = ("cervical", "thoracic", "lumbar")


@dataclass(frozen=True)
class StructureScore:
    """Scores of one structure. Undefined ones are None: distances if one mask is empty, all scores if both are.

    `volume_ml` is that of the prediction, `volume_error` (predicted - reference) / reference.
    """

    name: str
    dice: float | None
    hd95_mm: float | None
    assd_mm: float | None
    surface_within_1mm: float | None
    surface_within_2mm: float | None
    surface_within_3mm: float | None
    volume_ml: float
    reference_ml: float
    volume_error: float | None


@dataclass(frozen=True)
class VertebraScore(StructureScore):
    """Scores of one reference vertebra. `cut`: it touches a border of the image.

    `any_level_dice` is the Dice with the predicted vertebra that overlaps it most, whatever its name. `distance_mm` is
    the distance between the centroids of the two masks with this name; `hit`: VerSe counts it as identified.
    """

    any_level_dice: float
    cut: bool
    distance_mm: float | None
    hit: bool


@dataclass(frozen=True)
class Naming:
    """How well the vertebrae of a case were named.

    `id_rate` and `localisation_mm` follow VerSe: over all reference labels, and over the labels in both maps. The
    strict scores count a name as right if it is a hit and the reference vertebra with this name contains most of the
    predicted one. `recall` is over complete reference vertebrae; `precision` is over predicted vertebrae, except those
    of a cut reference vertebra, and false positives count; `f1` is the harmonic mean of both. `shifts` counts predicted
    vertebrae by the number of levels that their name is too far down; `false_positives` match no reference vertebra.
    """

    reference: int
    hits: int
    id_rate: float | None
    localisation_mm: float | None
    recall: float | None
    precision: float | None
    f1: float | None
    all_right: bool | None
    shifts: dict[str, int]
    false_positives: int


@dataclass(frozen=True)
class Matching:
    """Vertebrae matched at an IoU above one half, whatever their names (panoptic quality, Kirillov et al. 2019).

    Cut reference vertebrae and their predictions are left out. `pq` = `sq` (mean IoU of the pairs) x `rq` (F1 of
    detection); `dice` is the mean over the pairs. `missing` reference and `surplus` predicted vertebrae are unmatched.
    """

    pairs: int
    missing: int
    surplus: int
    pq: float | None
    sq: float | None
    rq: float | None
    dice: float | None


@dataclass(frozen=True)
class RunRecord:
    """How a prediction was made, from its manifest: model, seconds, peak memory, and (level, confidence) pairs."""

    model: str | None = None
    seconds: float | None = None
    memory_gb: float | None = None
    confidences: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ScoredCase:
    """All scores of one case. `extra` are predicted levels that the reference lacks, `ignored` those left out.

    If a map has a single label for the whole spine, `levels` is empty and `naming` and `matching` are None. `answers`
    are (confidence, right) of the predicted vertebrae that match one of the reference.
    """

    case: str
    subject: str
    spine: StructureScore
    regions: tuple[StructureScore, ...]
    levels: tuple[VertebraScore, ...]
    extra: tuple[str, ...]
    ignored: tuple[str, ...]
    naming: Naming | None
    matching: Matching | None
    diagonal_mm: float
    notes: tuple[str, ...]
    run: RunRecord
    answers: tuple[tuple[float, bool], ...]

    @property
    def complete(self) -> tuple[VertebraScore, ...]:
        """The reference vertebrae that the image border does not cut."""
        return tuple(row for row in self.levels if not row.cut)


@dataclass(frozen=True)
class FailedCase:
    """A case that could not be scored, and why."""

    case: str
    subject: str
    error: str


def to_json(score: ScoredCase) -> dict[str, Any]:
    """Return the record as plain JSON types."""
    return asdict(score)


def from_json(stored: dict[str, Any]) -> ScoredCase:
    """Rebuild the record from the output of `to_json`. Raises TypeError or KeyError for anything else."""
    naming, matching, run = stored["naming"], stored["matching"], stored["run"]
    rebuilt = {
        "spine": StructureScore(**stored["spine"]),
        "regions": tuple(StructureScore(**row) for row in stored["regions"]),
        "levels": tuple(VertebraScore(**row) for row in stored["levels"]),
        "naming": None if naming is None else Naming(**naming),
        "matching": None if matching is None else Matching(**matching),
        "run": RunRecord(**{**run, "confidences": tuple((name, value) for name, value in run["confidences"])}),
        "answers": tuple((confidence, right) for confidence, right in stored["answers"]),
    }
    rebuilt |= {name: tuple(stored[name]) for name in ("extra", "ignored", "notes")}
    return ScoredCase(**{**stored, **rebuilt})
