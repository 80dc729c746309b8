"""The files of a training run, with its history (`history.csv`) and facts (`run.json`)."""

import csv
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vertebral.core.errors import ModelError
from vertebral.io.write import atomic_write, write_json


@dataclass(frozen=True)
class EpochRow:
    """A row of `history.csv`. Epochs are numbered from 1 in each phase; None means not measured."""

    phase: int
    epoch: int
    step: int
    learning_rate: float
    loss: float
    loss_validation: float | None
    dice_spine: float | None
    dice_levels: float | None
    seconds: float
    memory_gb: float | None


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run."""

    root: Path

    @property
    def config(self) -> Path:
        """The config the run was started with."""
        return self.root / "config.json"

    @property
    def facts(self) -> Path:
        """The path of the data, the model that the weights started from, versions."""
        return self.root / "run.json"

    @property
    def last(self) -> Path:
        """The newest checkpoint: weights, optimizer, schedule, average, position in the run."""
        return self.root / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch, or the newest one of a run without validation."""
        return self.root / "checkpoints" / "best.ckpt"

    @property
    def model(self) -> Path:
        """The best weights as a model folder for `vertebral run --model`."""
        return self.root / "model"

    @property
    def logs(self) -> Path:
        """The TensorBoard logs."""
        return self.root / "logs"

    @property
    def history(self) -> Path:
        """One row per epoch."""
        return self.root / "history.csv"

    def validation(self, phase: int, epoch: int) -> Path:
        """The scores of every validation scan after an epoch."""
        return self.root / "validation" / f"phase-{phase}-epoch-{epoch:03d}.json"

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Write `run.json`."""
        write_json(facts, self.facts)

    def read_facts(self) -> dict[str, Any]:
        """Read `run.json`. Raises ModelError if it is missing or damaged."""
        try:
            return dict(json.loads(self.facts.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                f"{self.facts}: missing or damaged ({error}); give a folder that `vertebral train` made"
            ) from None

    def append(self, row: EpochRow) -> None:
        """Add a row to the history; drop rows of this or a later epoch, left by an interrupted run."""
        kept = [old for old in self.rows() if (old.phase, old.epoch) < (row.phase, row.epoch)]
        with atomic_write(self.history) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [field.name for field in fields(EpochRow)])
            writer.writeheader()
            writer.writerows(asdict(one) for one in (*kept, row))

    def rows(self) -> list[EpochRow]:
        """Read the history; empty if there is none. Raises ModelError if it is damaged."""
        if not self.history.exists():
            return []
        whole = ("phase", "epoch", "step")
        try:
            with self.history.open(newline="", encoding="utf-8") as stream:
                return [
                    EpochRow(**{k: int(v) if k in whole else float(v) if v else None for k, v in row.items()})  # type: ignore[arg-type]
                    for row in csv.DictReader(stream)
                ]
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                f"{self.history}: damaged ({error}); restore it, or remove it to continue without"
            ) from None
