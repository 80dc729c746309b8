"""The result of one CT, in memory."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vertebral.core.config import PreprocessConfig, parse_config
from vertebral.core.errors import ConfigError, InputError
from vertebral.core.measurements import Measurements, flat_rows
from vertebral.core.records import Scan, Spine, Surface
from vertebral.core.volume import Volume
from vertebral.io.ct.in_memory import to_nibabel, to_sitk
from vertebral.models.load import Models
from vertebral.runtime.stage_timer import StageTimer
from vertebral.stages.rules import StageRules
from vertebral.workflows.config import ExportConfig, RunConfig


@dataclass(frozen=True)
class VertebraRow:
    """What is known of one vertebra beside its shape.

    `confidence` in [0, 1] is the probability that the level is right, `quality` in [0, 1] how far its mask can be
    trusted; `needs_review` holds the reasons to look at it. `centroid_ras_mm` is RAS+. `touches_border` is True if the
    field of view cuts it.
    """

    level: str
    verse_id: int
    confidence: float
    quality: float
    needs_review: tuple[str, ...]
    volume_ml: float
    centroid_ras_mm: tuple[float, float, float]
    touches_border: bool


@dataclass(frozen=True, eq=False)
class Result:
    """Everything that `segment` found in one CT.

    `labels` is the label map (uint8, VerSe ids) on the CT's own grid. `surfaces` are closed triangle meshes, RAS+ mm;
    `measurements` are tables of figures, each with its quality. `spine` holds the named vertebrae on the prepared grid,
    with their soft occupancies. `warnings` are sentences for the user.
    """

    scan: Scan
    labels: Volume
    spine: Spine
    volume_ml: dict[str, float]
    surfaces: tuple[Surface, ...]
    measurements: Measurements
    models: Models
    preprocess: PreprocessConfig
    options: RunConfig
    warnings: tuple[str, ...]
    timer: StageTimer
    rules: StageRules = StageRules()

    @cached_property
    def vertebrae(self) -> tuple[VertebraRow, ...]:
        """One row per vertebra (and sacrum), from head to tail."""
        return tuple(
            VertebraRow(
                level=vertebra.level.name,
                verse_id=vertebra.level.verse_id,
                confidence=round(vertebra.confidence, 3),
                quality=round(vertebra.quality, 3),
                needs_review=tuple(vertebra.needs_review),
                volume_ml=round(self.volume_ml.get(vertebra.level.name, 0.0), 3),
                centroid_ras_mm=_rounded(vertebra.instance.centroid_mm),
                touches_border=vertebra.instance.touches_border,
            )
            for vertebra in self.spine.vertebrae
        )

    def to_nibabel(self) -> Any:
        """Return the label map as a `nibabel.Nifti1Image`."""
        return to_nibabel(self.labels)

    def to_sitk(self) -> Any:
        """Return the label map as a `SimpleITK.Image`."""
        return to_sitk(self.labels)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with one row per vertebra: `vertebrae`, then the figures measured of each.

        A figure whose name `vertebrae` has too is called `measured_<name>`.
        Raises ConfigError if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ConfigError("to_pandas: pandas is not installed; pip install 'vertebral[pandas]'") from None
        figures = {row["name"]: row for row in flat_rows(self.measurements.vertebrae)}
        rows = []
        for row in self.vertebrae:
            known, measured = asdict(row), figures.get(row.level, {})
            rows.append(known | {f"measured_{key}" if key in known else key: measured[key] for key in measured})
        return pd.DataFrame(rows).drop(columns="name", errors="ignore")

    def save(
        self, out: str | Path, *, formats: Sequence[str] = (), scheme: str = "verse", overwrite: bool = False
    ) -> dict[str, Any]:
        """Write what `vertebral run` writes to the folder `out`; return the manifest.

        `formats` are further ones, as for `vertebral export`, and `scheme` gives them their ids. Files appear at the
        end, all or none. Raises OutputExistsError if `out` holds results and `overwrite` is False, InputError if it
        cannot be written to, VertebralError for a full disk.
        """
        from vertebral.workflows.write_result import save_result

        if not str(out):
            raise InputError("save: the path of the folder is empty; give a folder")
        exported = parse_config(ExportConfig, {"formats": tuple(formats), "scheme": scheme}, "save")
        return save_result(self, Path(out), exported, overwrite)


def _rounded(point_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    r, a, s = (round(value, 2) for value in point_mm)
    return r, a, s
