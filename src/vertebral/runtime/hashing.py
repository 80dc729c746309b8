"""The SHA-256 of files, piece by piece."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

_PIECE_BYTES = 1 << 20


def file_sha256(path: Path, report: Callable[[int], None] = lambda done: None) -> str:
    """Return the SHA-256 of the bytes of `path` in hexadecimal; `report(done)` is called with the bytes read so far."""
    return files_sha256([path], report)


def files_sha256(paths: Sequence[Path], report: Callable[[int], None] = lambda done: None) -> str:
    """As `file_sha256`, of the bytes of all `paths` one after the other."""
    digest, done = hashlib.sha256(), 0
    for path in paths:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                digest.update(piece)
                done += len(piece)
                report(done)
    return digest.hexdigest()
