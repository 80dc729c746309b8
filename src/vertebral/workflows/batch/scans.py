"""Find the scans of a folder or a list, and give each a unique name."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vertebral.core.errors import ConfigError, ReadError
from vertebral.io.ct.image_header import IMAGE_SUFFIXES, stem_of, suffix_of
from vertebral.io.dicom.series import is_dicom
from vertebral.io.names import shared_stem

LIST_SUFFIX = ".txt"
_LABEL_ENDINGS = ("_msk", "_seg")


@dataclass(frozen=True)
class BatchScan:
    """One scan of a batch: `path` is the input of `vertebral run`, `name` the name of its result folder."""

    name: str
    path: Path


def find_scans(place: Path, out: Path) -> list[BatchScan]:
    """Return the scans in a folder, at any depth, or in a list, in a fixed order and with unique names.

    In a folder, a scan is an image file, a zip, or a folder that directly contains DICOM files; hidden files, label
    maps (`*_msk`, `*_seg`) and `out` are skipped. A list (`.txt`) has one path per line, relative to the working
    directory; empty lines, lines that start with `#` and repeated paths are ignored. Raises ConfigError if `place` is
    neither or contains no scan, ReadError if the list cannot be read.
    """
    if place.is_dir():
        paths = list(_below(place, out.resolve()))
        empty = "contains no CT: no NIfTI, NRRD, MetaImage, zip or DICOM file at any depth"
    elif place.is_file() and place.suffix.lower() == LIST_SUFFIX:
        paths = _listed(place)
        empty = "lists no scan: write one path per line"
    else:
        raise ConfigError(
            f"{place}: with --jobs, give a folder of scans, or a {LIST_SUFFIX} file with one path per line"
        )
    if not paths:
        raise ConfigError(f"{place}: {empty}")
    return [BatchScan(name, path) for name, path in zip(names_of(paths), paths, strict=True)]


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return a unique name for each path that can serve as a folder name: its stem.

    Paths with the same stem are prefixed with as many parent folders as needed (`sub-1_ct`, `sub-2_ct`); names that
    are still equal get the first digits of the SHA-256 of their path as a suffix.
    """
    parents = [path.absolute().parent.parts[1:] for path in paths]
    names = [shared_stem(stem_of(path)) for path in paths]
    depth = 0
    while shared := _shared(names):
        depth += 1
        longer = {n: len(parents[n]) >= depth for n in shared}
        if not any(longer.values()):
            break
        for n in shared:
            if longer[n]:
                names[n] = f"{parents[n][-depth]}_{names[n]}"
    for n in shared:
        names[n] += f"-{hashlib.sha256(os.fsencode(paths[n].absolute())).hexdigest()[:8]}"
    return names


def _shared(names: Sequence[str]) -> list[int]:
    """Indices of names that occur more than once; case is ignored, as some file systems do."""
    counts = Counter(name.casefold() for name in names)
    return [n for n, name in enumerate(names) if counts[name.casefold()] > 1]


def _below(folder: Path, out: Path) -> Iterator[Path]:
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX")
    files = [path for path in inside if path.is_file()]
    images = [path for path in files if suffix_of(path, (*IMAGE_SUFFIXES, ".zip"))]
    yield from (path for path in images if not stem_of(path).endswith(_LABEL_ENDINGS))
    if any(is_dicom(path) for path in files if path not in images):
        yield folder
    for path in inside:
        if path.is_dir() and path.resolve() != out:
            yield from _below(path, out)


def _listed(place: Path) -> list[Path]:
    try:
        lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"{place}: not a readable list ({error}); write one path per line, in UTF-8") from None
    return [Path(line) for line in dict.fromkeys(lines) if line and not line.startswith("#")]
