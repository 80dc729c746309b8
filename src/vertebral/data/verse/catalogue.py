"""The catalogue of a data folder, one JSON file: its scans, the levels they show and their problems."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from vertebral.core.anatomy import LEVELS
from vertebral.core.config import changed
from vertebral.core.errors import ReadError
from vertebral.io.write import write_json

Subset = Literal["training", "validation", "test"]


class CatalogueCase(BaseModel):
    """One scan. Paths are POSIX and relative to the catalogue's root.

    `case` is the stem of the file names, `dataset` the folder of images and labels, `subset` the one that a folder name
    contains. `levels` are those of the label map and `cut` those that touch the border of the image, both from head to
    tail. `problems` exclude the scan from use; `warnings` do not. Values that could not be read are None or empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    subject: str
    dataset: str
    subset: Subset | None
    ct: str
    labels: str | None
    centroids: str | None
    shape: tuple[int, int, int] | None
    spacing_mm: tuple[float, float, float] | None
    orientation: str | None
    levels: tuple[str, ...]
    cut: tuple[str, ...]
    sha256_ct: str | None
    sha256_labels: str | None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether CT and label map can be used for training and scoring."""
        return not self.problems


class Catalogue(BaseModel):
    """All scans below `root`, in the order of their paths; `unmatched` are images that belong to no scan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    root: Path
    cases: tuple[CatalogueCase, ...]
    unmatched: tuple[str, ...] = ()

    @property
    def usable(self) -> tuple[CatalogueCase, ...]:
        """The scans without problems. Their `case` is unique."""
        return tuple(case for case in self.cases if case.usable)

    @property
    def sha256(self) -> str:
        """SHA-256 of the scans, independent of `root`, their order and the wording of problems and warnings."""
        rows = []
        for case in sorted(self.cases, key=lambda case: case.ct):
            row = case.model_dump(mode="json", exclude={"problems", "warnings"})
            rows.append(row | {"usable": case.usable})
        text = json.dumps([self.version, rows], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def path(self, relative: str) -> Path:
        """Return the path of a file of a case."""
        return self.root / relative


def write_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write `catalogue` as JSON, with its root relative to the folder of `path`, so that both can move together."""
    root = Path(os.path.relpath(catalogue.root.resolve(), path.resolve().parent)).as_posix()
    write_json(catalogue.model_dump(mode="json") | {"root": root}, path)


def load_catalogue(path: Path, root: Path | None = None) -> Catalogue:
    """Read a catalogue; `root` is the folder of the data, if they have moved since it was made.

    Raises ReadError if `path` is not a catalogue of this version.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        catalogue = Catalogue.model_validate(stored)
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file: make it with vertebral data index") from None
    except (OSError, ValueError) as error:
        raise ReadError(f"{path}: not a catalogue ({_reason(error)}): make it with vertebral data index") from error
    return changed(catalogue, root=root or (path.parent / catalogue.root).resolve())


def summary(catalogue: Catalogue) -> dict[str, Any]:
    """Count scans, subjects, levels and subsets; list problems and warnings by case."""
    levels = Counter(name for case in catalogue.usable for name in case.levels)
    cut = Counter(name for case in catalogue.usable for name in case.cut)
    return {
        "scans": len(catalogue.cases),
        "usable": len(catalogue.usable),
        "subjects": len({case.subject for case in catalogue.cases}),
        "datasets": dict(sorted(Counter(case.dataset for case in catalogue.cases).items())),
        "subsets": dict(sorted(Counter(case.subset or "none" for case in catalogue.cases).items())),
        "levels": {
            level.name: {"scans": levels[level.name], "cut": cut[level.name]}
            for level in LEVELS
            if level.name in levels
        },
        "problems": _listed(catalogue, "problems"),
        "warnings": _listed(catalogue, "warnings"),
        "unmatched": list(catalogue.unmatched),
        "sha256": catalogue.sha256,
    }


def _listed(catalogue: Catalogue, kind: str) -> list[dict[str, Any]]:
    return [{"ct": case.ct, kind: list(getattr(case, kind))} for case in catalogue.cases if getattr(case, kind)]


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
