"""A zip file, unpacked into a temporary folder: never outside it, and never more than the disk holds."""

import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from vertebral.core.errors import ReadError

_MOST_FILES = 100_000
_MOST_BYTES = 64 << 30
_SHARE_OF_DISK = 0.9
_ENCRYPTED = 0x1


@contextmanager
def extracted(path: Path) -> Iterator[Path]:
    """Unpack the zip file `path` into a folder that is removed afterwards.

    Raises ReadError where the file is damaged or encrypted, where a name leads out of the folder or is a link, and
    where it unpacks to more than 64 GiB, 100 000 files or nine tenths of the free disk. The sizes that the zip declares
    bind: zipfile stops there and fails on the checksum.
    """
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="vertebral-") as folder:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(members, shutil.disk_usage(folder).free)
            try:
                for member in members:
                    archive.extract(member, folder)
            except (zlib.error, EOFError, NotImplementedError, OSError) as error:
                raise ReadError(f"the zip cannot be unpacked ({error}): copy or export it again") from error
            yield Path(folder)
    except zipfile.BadZipFile as error:
        raise ReadError(f"not a zip file or damaged ({error}): copy or export it again") from error


def _check(members: list[zipfile.ZipInfo], free_bytes: int) -> None:
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if ".." in parts or member.filename.startswith(("/", "\\")) or ":" in member.filename.split("/")[0]:
            raise ReadError(
                f"the zip holds the name {member.filename!r}, which leads out of its folder: do not trust this file"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ReadError(f"the zip holds a link ({member.filename!r}): pack the files themselves")
        if member.flag_bits & _ENCRYPTED:
            raise ReadError("the zip is encrypted: unpack it first and give the folder")
    if len(members) > _MOST_FILES:
        raise ReadError(f"the zip holds {len(members)} files, more than {_MOST_FILES}: unpack the scan that is wanted")
    total, limit = sum(member.file_size for member in members), min(_MOST_BYTES, int(_SHARE_OF_DISK * free_bytes))
    if total > limit:
        raise ReadError(
            f"the zip unpacks to {total / 1e9:.1f} GB, the limit here is {limit / 1e9:.1f} GB: unpack it first"
        )
