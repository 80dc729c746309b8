"""The SHA-256 of a file, piece by piece."""

import hashlib
from collections.abc import Callable
from pathlib import Path

_PIECE_BYTES = 1 << 20


def file_sha256(path: Path, report: Callable[[int], None] = lambda done: None) -> str:
    """Return the SHA-256 of the bytes of `path` in hexadecimal; `report(done)` is called with the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            done += len(piece)
            report(done)
    return digest.hexdigest()
