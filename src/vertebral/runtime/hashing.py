"""The SHA-256 of files, read in chunks."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def file_sha256(path: Path, report: Callable[[int], None] = lambda done: None) -> str:
    """Return the SHA-256 of `path` in hexadecimal; `report(done)` receives the number of bytes read so far."""
    return files_sha256([path], report)


def files_sha256(paths: Sequence[Path], report: Callable[[int], None] = lambda done: None) -> str:
    """As `file_sha256`, for the bytes of all `paths` concatenated."""
    digest, done = hashlib.sha256(), 0
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
                report(done)
    return digest.hexdigest()
