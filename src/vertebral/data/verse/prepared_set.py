"""Prepared scans: those of a catalogue as the network sees them, from which patches are cut at random.

The arrays are the result of `preprocess.prepare` before scaling: axes R, A, S, isotropic, clipped to the window and
rounded to whole HU. They are uncompressed, memory-mapped `.npy` files: a patch reads only its own pages, in about the
time of a copy, and all workers share the page cache. Compressed chunks (zarr, HDF5) would be decompressed again for
every patch, and a `.nii.gz` as a whole. The price is disk space: 3 bytes per voxel, or 135 MB for a trunk of
300 x 300 x 500 mm at 1 mm.

    OUT/prepared.json                      settings, split, scans, and scans left out
    OUT/cases/<case>-<key>/ct.npy          int16 (I, J, K) HU
                           labels.npy      uint8 (I, J, K) VerSe ids
                           bone.npy        int32 (N, 3) voxels of vertebrae, at most 20,000, as many of each level
                           case.json       written last: without it the folder is incomplete

The key is a hash of the contents of both files, the settings that change the arrays, and the version of this code.
"""

import json
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from vertebral.core.config import PreprocessConfig, changed
from vertebral.core.errors import ConfigError
from vertebral.core.volume import Affine
from vertebral.data.verse.split import Split

AffineRow = tuple[float, float, float, float]

_REMEDY = "make it with vertebral data prepare"


class PreparedScan(BaseModel):
    """A scan on disk, in arrays of `shape` (I, J, K) with axes R, A, S and `spacing_mm` along each.

    Arrays are mapped at each access, which takes a fraction of a millisecond. So a scan keeps no file open, of which a
    process may have only so many, and is cheap to send to another process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    subject: str
    folder: Path
    shape: tuple[int, int, int]
    spacing_mm: float
    affine_rows: tuple[AffineRow, AffineRow, AffineRow, AffineRow]
    levels: tuple[str, ...]
    sha256_ct: str
    sha256_labels: str

    @property
    def affine(self) -> Affine:
        """4x4, voxel index to RAS+ mm."""
        return np.array(self.affine_rows)

    @property
    def ct(self) -> NDArray[np.int16]:
        """HU (I, J, K), clipped to the window; read-only."""
        return self._mapped("ct")

    @property
    def labels(self) -> NDArray[np.uint8]:
        """VerSe ids (I, J, K); read-only."""
        return self._mapped("labels")

    @property
    def bone(self) -> NDArray[np.int32]:
        """Indices (N, 3) of voxels of vertebrae, at least one, drawn evenly over the levels; read-only."""
        return self._mapped("bone")

    def _mapped(self, name: str) -> NDArray[Any]:
        return cast(NDArray[Any], np.load(self.folder / f"{name}.npy", mmap_mode="r"))


class PreparedSet(BaseModel):
    """The scans that `data prepare` made below `root`, and why others were left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    root: Path
    preprocess: PreprocessConfig
    catalog_sha256: str
    split: Split
    cases: tuple[PreparedScan, ...]
    left_out: dict[str, str]

    @property
    def scans(self) -> dict[str, PreparedScan]:
        """The scans by case id."""
        return {scan.case: scan for scan in self.cases}

    @property
    def unused(self) -> list[Path]:
        """Folders of scans that are no longer used: made with other settings, or from files that have changed."""
        used = {scan.folder.name for scan in self.cases}
        return sorted(path for path in (self.root / "cases").iterdir() if path.is_dir() and path.name not in used)

    def fold(self, number: int) -> tuple[list[PreparedScan], list[PreparedScan]]:
        """Return the scans for training and for validation, without those left out.

        Raises ConfigError if the split has no such fold.
        """
        if not 0 <= number < len(self.split.folds):
            raise ConfigError(f"{self.root}: fold {number}: its split has folds 0 to {len(self.split.folds) - 1}")
        fold, scans = self.split.folds[number], self.scans
        train, validation = ([scans[case] for case in ids if case in scans] for ids in (fold.train, fold.validation))
        return train, validation

    def check(self, preprocess: PreprocessConfig) -> None:
        """Raise ConfigError if the scans were prepared with another spacing or window than `preprocess` has."""
        for name in ("spacing_mm", "window_hu"):
            here, wanted = getattr(self.preprocess, name), getattr(preprocess, name)
            if here != wanted:
                raise ConfigError(
                    f"{self.root}: was prepared with {name} {here}, the config has {wanted}: "
                    "run vertebral data prepare with this config"
                )


def open_prepared(folder: Path) -> PreparedSet:
    """Open the output of `data prepare`. Raises ConfigError if `folder` is something else, or lacks a scan."""
    path = folder / "prepared.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        made = PreparedSet.model_validate({**stored, "root": folder})
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file: {_REMEDY}") from None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: not a list of prepared scans of this version ({_first(error)}): {_REMEDY}"
        ) from error
    cases = tuple(changed(scan, folder=folder / scan.folder) for scan in made.cases)
    for scan in cases:
        if not (scan.folder / "case.json").is_file():
            raise ConfigError(f"{scan.folder}: is missing or incomplete: {_REMEDY}, which keeps finished scans")
    return changed(made, cases=cases)


def stored_scan(folder: Path) -> PreparedScan | None:
    """Return the scan in `folder`, or None if it is incomplete."""
    try:
        stored = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        return PreparedScan.model_validate({**stored, "folder": folder})
    except (OSError, ValueError, TypeError):
        return None


def _first(error: Exception) -> str:
    """Return the first problem, in a few words."""
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    return str(error)
