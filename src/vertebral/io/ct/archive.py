"""Unpack a zip file safely: never outside its folder, and never more than fits on the disk."""

import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from vertebral.core.errors import ReadError

_MOST_FILES = 100_000
_MOST_BYTES = 64 << 30
_SHARE_OF_DISK = 0.9
_ENCRYPTED = 0x1
_PIECE_BYTES = 1 << 20
_LITTER = ("__MACOSX", ".DS_Store")


@contextmanager
def extracted(path: Path) -> Iterator[Path]:
    """Unpack the zip file `path` into a temporary folder, which is removed afterwards.

    Raises ReadError as `unzip` does, and if it unpacks to more than 64 GiB, 100 000 files or 90 % of the free disk
    space.
    """
    with tempfile.TemporaryDirectory(prefix="vertebral-") as folder:
        try:
            unzip(path, Path(folder), lambda members: _check_size(members, shutil.disk_usage(folder).free))
        except OSError as error:
            raise ReadError(f"the zip cannot be unpacked ({error}): copy or export it again") from error
        yield Path(folder)


def unzip(
    path: Path,
    folder: Path,
    check_size: Callable[[list[zipfile.ZipInfo]], None],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[zipfile.ZipInfo]:
    """Unpack the zip file `path` into the empty `folder`, without the hidden files of macOS; return its files.

    `check_size` may refuse them by raising. No file unpacks to more than the zip declares, and each is read to its end,
    which checks its length and CRC-32. `report(done, total)` counts bytes, and may raise.

    Raises ReadError if the zip is damaged or encrypted, or contains links, two files with one name, or names that
    point outside the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not _is_litter(member)]
            for member in members:
                _check_name(member)
            check_size(members)
            done, total = 0, sum(member.file_size for member in members)
            for member in members:
                target = folder.joinpath(*PurePosixPath(member.filename).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as stream:
                    while piece := source.read(_PIECE_BYTES):
                        stream.write(piece)
                        done += len(piece)
                        report(done, total)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise ReadError(f"damaged, or not a zip file ({error}): copy or export it again") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ReadError(f"the zip contains two files with one name ({error.filename}): zip them again") from error
    return members


def _is_litter(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    return member.is_dir() or any(part in _LITTER or part.startswith("._") for part in parts)


def _check_name(member: zipfile.ZipInfo) -> None:
    name = member.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or name.startswith(("/", "\\")) or ":" in name.split("/")[0]:
        raise ReadError(f"the zip contains the name {name!r}, which points outside its folder: do not trust it")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        raise ReadError(f"the zip contains a link or a device ({name!r}): zip the files themselves")
    if member.flag_bits & _ENCRYPTED:
        raise ReadError("the zip is encrypted: unpack it first and give the folder")


def _check_size(members: list[zipfile.ZipInfo], free_bytes: int) -> None:
    if len(members) > _MOST_FILES:
        raise ReadError(
            f"the zip contains {len(members)} files, more than {_MOST_FILES}: unpack only the scan you need"
        )
    total, limit = sum(member.file_size for member in members), min(_MOST_BYTES, int(_SHARE_OF_DISK * free_bytes))
    if total > limit:
        raise ReadError(
            f"the zip unpacks to {total / 1e9:.1f} GB, above the limit of {limit / 1e9:.1f} GB: unpack it first"
        )
