"""Receives the files of one CT: named by number, never by their own name, within limits of size and disk space."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from vertebral.core.errors import InputError
from vertebral.io.ct.image_header import KNOWN_SUFFIXES, suffix_of
from vertebral.io.ct.read import read_geometry

MAX_FILES = 20_000
_MIN_FREE_BYTES = 1_000_000_000
_DETACHED_HEADERS = (".mhd", ".nhdr")


def stored_name(number: int, name: str) -> str:
    """Return the name under which a file is stored: its number, and the suffix of `name` for the format.

    Raises InputError if there are too many files, or if the format needs a second file.
    """
    if not 0 <= number < MAX_FILES:
        raise InputError(f"more than {MAX_FILES} files: upload the folder of one CT series only")
    suffix = suffix_of(Path(name), KNOWN_SUFFIXES)
    if suffix in _DETACHED_HEADERS:
        raise InputError(f"a {suffix} file needs a second file with the voxels: upload both in one zip")
    return f"scan-{number:06d}{suffix}" if number else f"scan{suffix}"


def require_space(folder: Path, more_bytes: int, max_bytes: int) -> None:
    """Raise InputError if `more_bytes` would exceed the limit of an upload, or fill the disk."""
    held = sum(file.stat().st_size for file in folder.iterdir())
    if held + more_bytes > max_bytes:
        raise InputError(f"the upload is larger than {max_bytes / 1e9:g} GB: raise --max-upload-gb or crop the CT")
    if shutil.disk_usage(folder).free - more_bytes < _MIN_FREE_BYTES:
        raise InputError("the disk is nearly full: delete old results, or choose another --data")


def check_upload(path: Path) -> None:
    """Read the header of a complete upload, to refuse at once what is not a CT. Raises InputError without its path."""
    try:
        read_geometry(path)
    except InputError as error:
        raise InputError(without_path(str(error), path)) from error


def without_path(text: str, source: Path) -> str:
    """Remove the path of an upload from a message: the user never saw it."""
    return text.replace(f"{source}: ", "").replace(str(source), "the upload").replace(str(source.parent), "the upload")


async def receive_file(stream: AsyncIterator[bytes], path: Path, max_bytes: int) -> None:
    """Write a request body to `path`. Raises InputError, and removes the file, if it exceeds `max_bytes`."""
    done = 0
    try:
        with path.open("wb") as file:
            async for chunk in stream:
                done += len(chunk)
                if done > max_bytes:
                    raise InputError("the file is larger than announced: try again")
                file.write(chunk)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
