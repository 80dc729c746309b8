"""The scores of one scan: records that go to JSON as they are, without NaN or infinity."""

from dataclasses import asdict, dataclass
from typing import Any

REGIONS = ("cervical", "thoracic", "lumbar")


@dataclass(frozen=True)
class Row:
    """A structure in both maps. None is what is not defined: distances where one mask is empty, all where both are.

    `volume_error` is (predicted - reference) / reference.
    """

    name: str
    dice: float | None
    hd95_mm: float | None
    assd_mm: float | None
    nsd_1mm: float | None
    nsd_2mm: float | None
    nsd_3mm: float | None
    volume_ml: float
    reference_ml: float
    volume_error: float | None


@dataclass(frozen=True)
class LevelRow(Row):
    """A vertebra of the reference. `cut`: it touches a border of the image.

    `any_level_dice` is the Dice with the predicted vertebra that overlaps it most, whatever its name. `distance_mm`
    lies between the centroids of both masks of this name; `hit` is VerSe's identification.
    """

    any_level_dice: float
    cut: bool
    distance_mm: float | None
    hit: bool


@dataclass(frozen=True)
class Naming:
    """How well a scan was named.

    `id_rate` and `localisation_mm` (over names in both) as VerSe has them, over all labels of the reference; they are
    None without any. Stricter: a name is right where it is such a hit and the vertebra it names is the one that holds
    most of it; `recall` is over complete reference vertebrae, `precision` over predicted ones that are not a cut one's
    (a false positive counts), `f1` joins them. `shifts` counts predicted vertebrae by how many levels
    too far down their name is; `false_positives` stand for no reference vertebra.
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
    """Vertebrae whatever their names (panoptic quality, Kirillov et al. 2019): pairs with an IoU above one half.

    A cut reference vertebra, and what stands for it, counts on neither side. `pq` = `sq` (mean IoU of pairs) x `rq`
    (F1 of finding); `dice` is the mean of the pairs.
    """

    pairs: int
    missed: int
    surplus: int
    pq: float | None
    sq: float | None
    rq: float | None
    dice: float | None


@dataclass(frozen=True)
class Run:
    """What the manifest beside a prediction tells: the model, seconds, peak memory, and (level, confidence)."""

    model: str | None = None
    seconds: float | None = None
    memory_gb: float | None = None
    confidences: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class CaseScore:
    """All scores of one scan. `extra` are predicted levels that the reference has not, `ignored` those left out.

    `levels` is empty where a map tells no levels apart; `naming` and `matching` are None then. `answers` are
    (confidence, right) of predicted vertebrae that stand for one of the reference.
    """

    case: str
    subject: str
    spine: Row
    regions: tuple[Row, ...]
    levels: tuple[LevelRow, ...]
    extra: tuple[str, ...]
    ignored: tuple[str, ...]
    naming: Naming | None
    matching: Matching | None
    diagonal_mm: float
    notes: tuple[str, ...]
    run: Run
    answers: tuple[tuple[float, bool], ...]

    @property
    def complete(self) -> tuple[LevelRow, ...]:
        """The reference's vertebrae that no border cuts."""
        return tuple(row for row in self.levels if not row.cut)


@dataclass(frozen=True)
class Failed:
    """A case that could not be scored, with the reason in words."""

    case: str
    subject: str
    error: str


def to_json(score: CaseScore) -> dict[str, Any]:
    """The record as plain json types."""
    return asdict(score)


def from_json(stored: dict[str, Any]) -> CaseScore:
    """The record that `to_json` gave. Raises TypeError or KeyError for anything else."""
    naming, matching, run = stored["naming"], stored["matching"], stored["run"]
    rebuilt = {
        "spine": Row(**stored["spine"]),
        "regions": tuple(Row(**row) for row in stored["regions"]),
        "levels": tuple(LevelRow(**row) for row in stored["levels"]),
        "naming": None if naming is None else Naming(**naming),
        "matching": None if matching is None else Matching(**matching),
        "run": Run(**{**run, "confidences": tuple((name, value) for name, value in run["confidences"])}),
        "answers": tuple((confidence, right) for confidence, right in stored["answers"]),
    }
    rebuilt |= {name: tuple(stored[name]) for name in ("extra", "ignored", "notes")}
    return CaseScore(**{**stored, **rebuilt})
