"""`ImageHeader`: the checked header of an image whose values are not read yet; and suffixes of file names."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vertebral.core.volume import Array, Grid
from vertebral.io.dicom.slices import Slice

LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
"""Converts the world frame of DICOM and ITK to that of `Grid`, in mm."""

NIFTI_SUFFIXES = (".nii.gz", ".nii")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES
KNOWN_SUFFIXES = (*IMAGE_SUFFIXES, ".zip", ".dcm")


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image. `load` reads the values: (I, J, K) on `grid`, any real type, rescaled by the header.

    `files` are all files of the image, in a fixed order. `notes` and `metadata` are as in `Scan`. `slices` are those of
    a DICOM series, in the order of K.
    """

    grid: Grid
    load: Callable[[], Array]
    files: tuple[Path, ...]
    stem: str
    notes: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    slices: tuple[Slice, ...] = ()


def suffix_of(path: Path, suffixes: tuple[str, ...] = KNOWN_SUFFIXES) -> str:
    """Return the suffix of `suffixes` that the name of `path` ends with (any case), or an empty string."""
    name = path.name.lower()
    return next((suffix for suffix in suffixes if name.endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """Return the name of `path` without its known suffixes and without a trailing `_ct`; `ct` if nothing is left."""
    name = path.name
    while suffix := suffix_of(Path(name)):
        name = name[: -len(suffix)]
    return name.removesuffix("_ct") or "ct"
