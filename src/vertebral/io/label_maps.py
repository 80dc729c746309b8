"""Label maps for other tools: names and colours for 3D Slicer and ITK-SNAP, ids of other schemes, nnU-Net, BIDS."""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_NAME, BY_VERSE_ID, Level, sort_levels
from vertebral.core.errors import ConfigError
from vertebral.core.label_schemes import SCHEMES, check_scheme, from_verse
from vertebral.core.volume import Volume
from vertebral.io.names import subject_of
from vertebral.io.slicer import write_seg_nrrd
from vertebral.io.write import atomic_write, write_json, write_labels


@dataclass(frozen=True)
class SchemeLabels:
    """A label map with the ids of `scheme`; `ids` has all levels of the scheme, `present` those in the map."""

    labels: Volume
    scheme: str
    ids: dict[Level, int]
    present: tuple[Level, ...]


def in_scheme(labels: Volume, scheme: str) -> SchemeLabels:
    """Convert a label map from VerSe ids to `scheme`. Raises ConfigError if it has no id for a level."""
    check_scheme(scheme)
    ids: dict[Level, int] = {}
    for value, name in SCHEMES[scheme].items():
        ids.setdefault(BY_NAME[name], value)
    present = sort_levels(BY_VERSE_ID[value] for value in np.unique(labels.array).tolist() if value)
    array: NDArray[np.uint8] = from_verse(labels.array, scheme)
    return SchemeLabels(Volume(array, labels.affine), scheme, ids, present)


def write_nifti(made: SchemeLabels, stem: str, folder: Path) -> None:
    """Write `<stem>_labels-<scheme>.nii.gz`."""
    write_labels(made.labels, folder / f"{stem}_labels-{made.scheme}.nii.gz")


def write_slicer(made: SchemeLabels, stem: str, folder: Path) -> None:
    """Write `<stem>.seg.nrrd`, which 3D Slicer opens as a segmentation with names, colours and codes."""
    write_seg_nrrd(made.labels, {level: made.ids[level] for level in made.present}, folder / f"{stem}.seg.nrrd")


def write_itksnap(made: SchemeLabels, stem: str, folder: Path) -> None:
    """Write `<stem>_labels-<scheme>.nii.gz`, and `<stem>_itksnap.txt`: its label descriptions for ITK-SNAP."""
    write_nifti(made, stem, folder)
    rows = [(0, (0, 0, 0), 0, "Clear Label")]
    rows += [(number, level.rgb, 1, level.name) for level, number in _by_id(made)]
    lines = [
        f'{n:5d} {r:5d} {g:4d} {b:4d} {seen:8d} {seen:3d} {seen:3d}    "{name}"' for n, (r, g, b), seen, name in rows
    ]
    with atomic_write(folder / f"{stem}_itksnap.txt") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_nnunet(made: SchemeLabels, stem: str, folder: Path) -> None:
    """Write `<stem>_nnunet.nii.gz` for nnU-Net's `labelsTr`, and the matching entries of its `dataset.json`.

    Raises ConfigError if the ids of the scheme are not 1, 2, 3, ..., as nnU-Net requires.
    """
    require_consecutive(made.scheme)
    write_labels(made.labels, folder / f"{stem}_nnunet.nii.gz")
    labels = {"background": 0, **{level.name: number for level, number in _by_id(made)}}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    write_json(description, folder / f"{stem}_nnunet-dataset.json")


def require_consecutive(scheme: str) -> None:
    """Raise ConfigError unless the ids of `scheme` are 1, 2, 3, ..."""
    check_scheme(scheme)
    good = [name for name, ids in SCHEMES.items() if sorted(ids) == list(range(1, len(ids) + 1))]
    if scheme not in good:
        raise ConfigError(f"--scheme {scheme}: nnU-Net needs ids 1, 2, 3, ...; use one of {', '.join(good)}")


def write_bids(made: SchemeLabels, stem: str, folder: Path) -> None:
    """Write `sub-X[...]_desc-vertebrae_dseg.nii.gz` and `.tsv`, named as BIDS derivatives."""
    name = f"{bids_name(stem)}_desc-vertebrae_dseg"
    write_labels(made.labels, folder / f"{name}.nii.gz")
    with atomic_write(folder / f"{name}.tsv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, delimiter="\t", lineterminator="\n")
        table.writerow(("index", "name", "abbreviation", "color"))
        for level, number in _by_id(made):
            table.writerow((number, _long_name(level), level.name, "#{:02x}{:02x}{:02x}".format(*level.rgb)))


def bids_name(stem: str) -> str:
    """Return `stem` if it begins with `sub-`, else `sub-` and its letters and digits."""
    if subject_of(stem).startswith("sub-"):
        return stem
    return "sub-" + (re.sub(r"[^A-Za-z0-9]", "", stem) or "ct")


def _long_name(level: Level) -> str:
    return f"{level.name} vertebra" if level.is_vertebra else level.name


def _by_id(made: SchemeLabels) -> list[tuple[Level, int]]:
    return sorted(made.ids.items(), key=lambda item: item[1])


def names_of(kind: str, stem: str, scheme: str) -> list[str]:
    """Return the names of the files that `WRITERS[kind]` writes."""
    labels = f"{stem}_labels-{scheme}.nii.gz"
    bids = f"{bids_name(stem)}_desc-vertebrae_dseg"
    return {
        "seg.nrrd": [f"{stem}.seg.nrrd"],
        "itksnap": [labels, f"{stem}_itksnap.txt"],
        "nifti": [labels],
        "nnunet": [f"{stem}_nnunet.nii.gz", f"{stem}_nnunet-dataset.json"],
        "bids": [f"{bids}.nii.gz", f"{bids}.tsv"],
    }[kind]


WRITERS: dict[str, Callable[[SchemeLabels, str, Path], None]] = {
    "seg.nrrd": write_slicer,
    "itksnap": write_itksnap,
    "nifti": write_nifti,
    "nnunet": write_nnunet,
    "bids": write_bids,
}
