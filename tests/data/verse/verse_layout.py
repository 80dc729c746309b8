"""Small data sets in VerSe's layouts, made from the phantom."""

from pathlib import Path

import numpy as np

from vertebral.core.anatomy import parse_levels
from vertebral.core.volume import Volume
from vertebral.data.phantom import make_phantom
from vertebral.io.write import write_centroids, write_image, write_labels

FOLDERS = {
    2019: {name: f"dataset-verse19{name}" for name in ("training", "validation", "test")},
    2020: {"training": "dataset-01training", "validation": "dataset-02validation", "test": "dataset-03test"},
}
_FIRST_NUMBER = {"training": 1, "validation": 31, "test": 61}
_DIRECTIONS = (("", "PIR"), ("_dir-ax", "LPS"), ("_dir-sag", "PIR"), ("_dir-iso", "RAS"))


def make_verse(
    root: Path,
    subjects: int = 4,
    year: int = 2020,
    spacing_mm: float = 4.0,
    levels: str = "T11-T12,L1-L3",
    subset: str = "training",
) -> Path:
    """Write one data set of VerSe into a folder of `root` and return that folder.

    The first subject has two scans, its upper and its lower half, told apart by `split-`: whatever lies across the cut
    keeps its label in both. In 2020 the last subject is a `sub-gl###` and the scans name their direction; they are
    stored along different axes. Every subject has another seed, and other sizes for it. Names stay apart for up to 30
    subjects.
    """
    dataset = root / FOLDERS[year][subset]
    chosen = parse_levels(levels)
    for number in range(subjects):
        phantom = make_phantom(chosen, spacing_mm, seed=1000 * (year - 2019) + _FIRST_NUMBER[subset] + number)
        name = _subject(number, subjects, year, subset)
        if number == 0:
            middle = phantom.ct.array.shape[2] // 2
            for part, cut in (("201", slice(0, middle)), ("251", slice(middle, phantom.ct.array.shape[2]))):
                box = (slice(0, phantom.ct.array.shape[0]), slice(0, phantom.ct.array.shape[1]), cut)
                halves = phantom.ct.cropped(box), phantom.labels.cropped(box)
                write_case(dataset, name, f"{name}_split-verse{part}", *halves, year=year)
        else:
            direction, axes = _DIRECTIONS[number % 4 if year == 2020 else 0]
            stored = phantom.ct.reoriented(axes), phantom.labels.reoriented(axes)
            write_case(dataset, name, f"{name}{direction}", *stored, year=year)
    return dataset


def write_case(dataset: Path, subject: str, stem: str, ct: Volume, labels: Volume, year: int = 2020) -> None:
    """Write one scan as VerSe does."""
    raw, derived = dataset / "rawdata" / subject, dataset / "derivatives" / subject
    for folder in (raw, derived):
        folder.mkdir(parents=True, exist_ok=True)
    write_image(ct, raw / f"{stem}_ct.nii.gz")
    write_labels(labels, derived / f"{stem}_seg-vert_msk.nii.gz")
    ids = [int(value) for value in np.unique(labels.array) if value]
    centres = [(value, labels.grid.to_world(np.argwhere(labels.array == value).mean(axis=0))) for value in ids]
    ending = "_seg-vb_ctd.json" if year == 2019 else "_seg-subreg_ctd.json"
    write_centroids([(value, (x, y, z)) for value, (x, y, z) in centres], labels.grid, derived / f"{stem}{ending}")


def _subject(number: int, subjects: int, year: int, subset: str) -> str:
    if year == 2020 and number == subjects - 1 and number:
        return f"sub-gl{_FIRST_NUMBER[subset] + number:03d}"
    return f"sub-verse{(400 if year == 2019 else 500) + _FIRST_NUMBER[subset] + number:03d}"
