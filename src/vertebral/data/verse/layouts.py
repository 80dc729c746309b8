"""The layouts of data sets: which CT, label map and centroids belong together, from their paths alone.

Three layouts are known, also mixed below one folder:

- VerSe 2019 and 2020: `rawdata/sub-*/<stem>_ct.nii.gz` with `derivatives/sub-*/<stem>_seg-vert_msk.nii.gz` and
  `<stem>_seg-subreg_ctd.json` (or `_seg-vb_ctd.json`);
- plain: `images/<stem>.nii.gz` with `labels/<stem>.nii.gz`, where `_ct`, `_seg-vert_msk`, `_msk` and `_seg` may follow
  the stem;
- nnU-Net: `imagesTr/<stem>_0000.nii.gz` with `labelsTr/<stem>.nii.gz`, and `imagesTs` with `labelsTs`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vertebral.io.ct.image_header import IMAGE_SUFFIXES, suffix_of
from vertebral.io.names import shared_stem, subject_of, without_ending

_CENTROID_ENDINGS = ("_seg-subreg_ctd", "_seg-vb_ctd", "_ctd")
_SUBSET = re.compile(r"(?<![a-z])(train|valid|val|test)(ing|ation)?(?![a-z])")
_SUBSETS = {"train": "training", "valid": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class ScanFiles:
    """The files of one scan, not opened yet; paths are POSIX and relative to the folder that was searched.

    `problems` keep the scan out of use, `warnings` do not.
    """

    case: str
    subject: str
    dataset: str
    subset: str | None
    ct: str
    labels: str | None
    centroids: str | None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Place:
    """Read from a path: the folder of its data set, its layout, its role, and the stem that its partners share."""

    base: PurePosixPath
    layout: str
    role: str
    stem: str


def find_scans(root: Path, subject: str | None = None) -> tuple[list[ScanFiles], list[str]]:
    """Return the scans below `root`, in the order of their paths, and the images that belong to none.

    The subject of a scan is the `sub-...` at the start of its name, or else its whole stem. `subject` is a regular
    expression that finds it instead: what it matches in the stem, or its first group. The subset comes from the nearest
    folder with train, val(id) or test in its name; the name of `root` counts if it is a data set itself. Hidden folders
    are skipped.

    Raises ConfigError if the expression is invalid or does not match a stem.
    """
    files = sorted(_files(root))
    places = {path: place for path in files if (place := _place(path)) is not None}
    partners: dict[_Place, list[PurePosixPath]] = defaultdict(list)
    for path, place in places.items():
        if place.role != "ct":
            partners[place].append(path)
    scans = [
        _found(path, place, partners, root.resolve().name, subject)
        for path, place in places.items()
        if place.role == "ct"
    ]
    used = {path for scan in scans for path in (scan.ct, scan.labels)}
    images = [path.as_posix() for path in files if suffix_of(Path(path), IMAGE_SUFFIXES)]
    return scans, [path for path in images if path not in used]


def _files(root: Path) -> Iterator[PurePosixPath]:
    """Yield all files below `root`; links to folders are followed, but no folder is entered twice."""
    entered = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in entered:
            inner.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name != "__MACOSX")
        relative = Path(folder).relative_to(root)
        yield from (PurePosixPath((relative / name).as_posix()) for name in names if not name.startswith("."))


def _place(path: PurePosixPath) -> _Place | None:
    """Return the place of a file in its layout, or None if no layout has it."""
    is_json = path.name.endswith(".json")
    suffix = ".json" if is_json else suffix_of(Path(path), IMAGE_SUFFIXES)
    if not suffix:
        return None
    stem = path.name[: -len(suffix)]
    for depth, folder in reversed(list(enumerate(path.parts[:-1]))):
        if (role := _role(folder, stem, is_json)) is not None:
            return _Place(PurePosixPath(*path.parts[:depth]), *role)
    return None


def _role(folder: str, stem: str, is_json: bool) -> tuple[str, str, str] | None:
    """Return layout, role and shared stem of a file somewhere below `folder`."""
    if is_json:
        layout = {"derivatives": "verse", "labels": "plain"}.get(folder)
        shared = without_ending(stem, _CENTROID_ENDINGS)
        return (layout, "centroids", shared) if layout and shared != stem else None
    if folder == "rawdata" and stem.endswith("_ct"):
        return "verse", "ct", stem.removesuffix("_ct")
    if folder == "derivatives" and stem.endswith("_seg-vert_msk"):
        return "verse", "labels", stem.removesuffix("_seg-vert_msk")
    if folder in ("images", "labels"):
        return "plain", "ct" if folder == "images" else "labels", shared_stem(stem)
    if folder in ("imagesTr", "imagesTs") and stem.endswith("_0000"):
        return folder[-2:], "ct", stem.removesuffix("_0000")
    if folder in ("labelsTr", "labelsTs"):
        return folder[-2:], "labels", stem
    return None


def _found(
    ct: PurePosixPath,
    place: _Place,
    partners: dict[_Place, list[PurePosixPath]],
    root_name: str,
    subject: str | None,
) -> ScanFiles:
    labels, centroids = (
        partners.get(_Place(place.base, place.layout, role, place.stem), []) for role in ("labels", "centroids")
    )
    problems = [] if labels else ["no label map was found"]
    if len(labels) > 1:
        problems.append(f"{len(labels)} label maps match: {', '.join(path.as_posix() for path in labels)}")
    warnings = ["no centroids were found"] if place.layout == "verse" and not centroids else []
    if len(centroids) > 1:
        warnings.append(f"{len(centroids)} centroid files match: {', '.join(path.as_posix() for path in centroids)}")
    folders = ct.parts[:-1] if place.base.name else (root_name, *ct.parts[:-1])
    return ScanFiles(
        case=place.stem,
        subject=subject_of(place.stem, subject),
        dataset=place.base.name or root_name,
        subset={"Tr": "training", "Ts": "test"}.get(place.layout) or _subset_of(folders),
        ct=ct.as_posix(),
        labels=labels[0].as_posix() if len(labels) == 1 else None,
        centroids=centroids[0].as_posix() if len(centroids) == 1 else None,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def _subset_of(folders: Sequence[str]) -> str | None:
    """Return the subset that the innermost folder with one in its name names."""
    for folder in reversed(folders):
        if found := _SUBSET.search(folder.lower()):
            return _SUBSETS[found[1]]
    return None
