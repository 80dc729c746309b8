"""Files of one CT as they come in: by number, never by name, and no more than there is room for."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from vertebral.core.errors import InputError
from vertebral.io.ct.image_header import KNOWN_SUFFIXES, suffix_of
from vertebral.io.ct.read import read_geometry

MOST_FILES = 20_000
_LEFT_FREE_BYTES = 1_000_000_000
_DETACHED = (".mhd", ".nhdr")


def stored_name(number: int, name: str) -> str:
    """Return what a file is kept as: its number, and the suffix of `name` that tells its format.

    Raises InputError where there are too many files, or the format names a second file.
    """
    if not 0 <= number < MOST_FILES:
        raise InputError(f"more than {MOST_FILES} files: give the folder of one CT series only")
    suffix = suffix_of(Path(name), KNOWN_SUFFIXES)
    if suffix in _DETACHED:
        raise InputError(f"{suffix} names a second file: pack both into one zip and give that")
    return f"scan-{number:06d}{suffix}" if number else f"scan{suffix}"


def require_room(folder: Path, more_bytes: int, most_bytes: int) -> None:
    """Raise InputError where `more_bytes` would pass the limit of an upload, or fill the disk."""
    held = sum(file.stat().st_size for file in folder.iterdir())
    if held + more_bytes > most_bytes:
        raise InputError(f"the upload is larger than {most_bytes / 1e9:g} GB: raise --max-upload-gb or crop the CT")
    if shutil.disk_usage(folder).free - more_bytes < _LEFT_FREE_BYTES:
        raise InputError("the disk is nearly full: delete old results, or choose another --data")


def check_upload(path: Path) -> None:
    """Read the header of a complete upload, so that what is no CT shows at once. Raises InputError without its path."""
    try:
        read_geometry(path)
    except InputError as error:
        raise InputError(without_path(str(error), path)) from error


def without_path(text: str, source: Path) -> str:
    """Leave the path of an upload out of a message: the user never saw it."""
    return text.replace(f"{source}: ", "").replace(str(source), "the upload").replace(str(source.parent), "the upload")


async def take(stream: AsyncIterator[bytes], path: Path, most_bytes: int) -> None:
    """Write a body to `path`. Raises InputError, and leaves nothing, where it is longer than `most_bytes`."""
    done = 0
    try:
        with path.open("wb") as file:
            async for piece in stream:
                done += len(piece)
                if done > most_bytes:
                    raise InputError("the file is larger than it said: try again")
                file.write(piece)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
