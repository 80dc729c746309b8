"""Unpack a downloaded archive next to its place, so that it can be moved there in one step."""

import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vertebral.core.errors import DownloadError, InputError, ReadError
from vertebral.io.ct.archive import unzip

_FOLDERS_OF_A_DATASET = ("rawdata", "derivatives")


@dataclass(frozen=True)
class Unpacked:
    """A temporary folder that is to become `name`; `files` and `size_bytes` count its contents."""

    folder: Path
    name: str
    files: int
    size_bytes: int


@contextmanager
def unpacked(path: Path, parent: Path, name: str, report: Callable[[int, int], None]) -> Iterator[Unpacked]:
    """Unpack the zip `path` into a hidden folder of `parent`, which is removed afterwards.

    If all files are below one top folder, the result is that folder; otherwise it is a new one called `name`.
    `report(done, total)` counts bytes, and may raise. Raises DownloadError if the zip cannot be unpacked safely (see
    `unzip`), InputError if it does not fit on the disk.
    """
    folder = parent / f".{name}.unpacking"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        try:
            members = unzip(path, folder, lambda members: require_space(parent, _size_of(members)), report)
        except ReadError as error:
            raise DownloadError(f"{path}: {error}") from error
        top = _top(members)
        yield Unpacked(folder / top if top else folder, top or name, len(members), _size_of(members))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_space(folder: Path, need_bytes: float) -> None:
    """Raise InputError if the disk of `folder` has less than `need_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if need_bytes > free_bytes:
        raise InputError(
            f"{folder}: needs {need_bytes / 1e9:.3g} GB, but only {free_bytes / 1e9:.3g} GB are free: "
            "free some space, choose another --out, or download fewer archives with --subset"
        )


def contents(folder: Path) -> tuple[int, int]:
    """Return the number of files below `folder` and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def _size_of(members: Sequence[zipfile.ZipInfo]) -> int:
    return sum(member.file_size for member in members)


def _top(members: Sequence[zipfile.ZipInfo]) -> str | None:
    """Return the one folder that holds all members, if it can be the name of a data set."""
    tops = {PurePosixPath(member.filename).parts[0] for member in members}
    top = tops.pop() if len(tops) == 1 else ""
    nested = all("/" in member.filename for member in members)
    return top if nested and top and not top.startswith(".") and top not in _FOLDERS_OF_A_DATASET else None
