"""A downloaded zip, unpacked beside its place and checked, so that it can be put there in one step."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vertebral.core.errors import DownloadError, InputError

_PIECE_BYTES = 1 << 20
_ENCRYPTED = 0x1
_LITTER = ("__MACOSX", ".DS_Store")
_PARTS_OF_A_DATASET = ("rawdata", "derivatives")


@dataclass(frozen=True)
class Unpacked:
    """A temporary folder that is to become `name`; `files` and `size_bytes` count what it holds."""

    folder: Path
    name: str
    files: int
    size_bytes: int


@contextmanager
def unpacked(path: Path, beside: Path, name: str, report: Callable[[int, int], None]) -> Iterator[Unpacked]:
    """Unpack the zip `path` into a hidden folder of `beside`, which is removed afterwards.

    Where all files lie below one top folder, that is the folder given; otherwise a new one called `name`. Every file is
    read to its end, which checks its length and CRC-32. `report(done, total)` counts bytes, and may raise.

    Raises DownloadError where the zip is damaged or encrypted, or holds links or names that lead out of its folder, and
    InputError where it does not fit on the disk.
    """
    temporary = beside / f".{name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        yield _unpack(path, temporary, name, report)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_space(folder: Path, need_bytes: float) -> None:
    """Raise InputError where the disk of `folder` has less than `need_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if need_bytes > free_bytes:
        raise InputError(
            f"{folder}: {need_bytes / 1e9:.3g} GB are needed and {free_bytes / 1e9:.3g} GB are free: "
            "free some space, choose another --out, or ask for fewer archives with --subset"
        )


def contents(folder: Path) -> tuple[int, int]:
    """Return the number of files below `folder` and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def _unpack(path: Path, folder: Path, name: str, report: Callable[[int, int], None]) -> Unpacked:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not _is_litter(member)]
            for member in members:
                _check(path, member)
            total = sum(member.file_size for member in members)
            require_space(folder.parent, total)
            _extract(archive, members, folder, lambda done: report(done, total))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise DownloadError(f"{path}: damaged, or not a zip file ({error})") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DownloadError(f"{path}: holds two files of one name ({error.filename})") from error
    top = _top(members)
    return Unpacked(folder / top if top else folder, top or name, len(members), total)


def _extract(
    archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], folder: Path, report: Callable[[int], None]
) -> None:
    folder.mkdir()
    done = 0
    for member in members:
        target = folder.joinpath(*PurePosixPath(member.filename).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("xb") as stream:
            while piece := source.read(_PIECE_BYTES):
                stream.write(piece)
                done += len(piece)
                report(done)


def _is_litter(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    return member.is_dir() or any(part in _LITTER or part.startswith("._") for part in parts)


def _check(path: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in parts:
        raise DownloadError(f"{path}: holds the name {name!r}, which leads out of its folder: do not trust this file")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise DownloadError(f"{path}: {name!r} is a link or a device, not a file: do not trust this file")
    if member.flag_bits & _ENCRYPTED:
        raise DownloadError(f"{path}: {name!r} is encrypted")


def _top(members: Sequence[zipfile.ZipInfo]) -> str | None:
    """Return the one folder that all members lie in, if there is one that names a data set."""
    tops = {PurePosixPath(member.filename).parts[0] for member in members}
    top = tops.pop() if len(tops) == 1 else ""
    nested = all("/" in member.filename for member in members)
    return top if nested and top and not top.startswith(".") and top not in _PARTS_OF_A_DATASET else None
