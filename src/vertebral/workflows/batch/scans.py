"""Which scans a folder or a list holds, and what each is called."""

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
class Source:
    """One scan of many: `path` is what `vertebral run` takes, `name` what its result folder is called."""

    name: str
    path: Path


def find_scans(place: Path, out: Path) -> list[Source]:
    """Return the scans of a folder, at any depth, or those that a list names, in a fixed order and under own names.

    In a folder a scan is a file that is an image or a zip, or a folder with DICOM files directly in it; hidden ones,
    label maps (`*_msk`, `*_seg`) and `out` are left out. A list (`.txt`) has a path a line, relative to where the
    program runs; empty lines and those that begin with `#` count for nothing, a path named twice counts once. Raises
    ConfigError where `place` is neither or holds no scan, ReadError where the list cannot be read.
    """
    if place.is_dir():
        paths = list(_below(place, out.resolve()))
        empty = "holds no CT: no NIfTI, NRRD, MetaImage, zip or DICOM file below it"
    elif place.is_file() and place.suffix.lower() == LIST_SUFFIX:
        paths = _listed(place)
        empty = "names no scan: write one path a line"
    else:
        raise ConfigError(f"{place}: with --jobs, give a folder of scans, or a {LIST_SUFFIX} file with a path a line")
    if not paths:
        raise ConfigError(f"{place}: {empty}")
    return [Source(name, path) for name, path in zip(names_of(paths), paths, strict=True)]


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each path, none twice and each a good folder's: its stem.

    Those that share a stem go by as many of the folders above it as tell them apart (`sub-1_ct`, `sub-2_ct`), and those
    that even so are one by the start of their path's SHA-256.
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
    """Where names stand that others have too; names that differ in case only are one on some file systems."""
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
        raise ReadError(f"{place}: not a readable list ({error}); write one path a line, in UTF-8") from None
    return [Path(line) for line in dict.fromkeys(lines) if line and not line.startswith("#")]
