"""Download a large file over HTTP and resume it, after a lost connection or in a later run.

VerSe's archives are gigabytes, and no hashes of them are published. pooch, which checks a hash, would start again at
the first byte; so this is the least that resumes.
"""

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vertebral.core.errors import DownloadError
from vertebral.io.write import write_json

PAUSES_S = (1.0, 3.0, 10.0, 30.0, 60.0)
"""Pauses between attempts without progress; after the last one the download fails."""

_PAUSES_OF_PROBE = 2
_TIMEOUT_S = 30
_PIECE_BYTES = 1 << 18
_TEMPORARY_CODES = (408, 416, 425, 429)
_HEADERS = {"User-Agent": "vertebral", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class RemoteFile:
    """A server's description of a file. Two equal descriptions are taken to mean the same bytes."""

    url: str
    length: int
    etag: str | None
    last_modified: str | None


class StoppedError(Exception):
    """The download was told to stop; the part on disk is kept for the next run."""


class _AttemptError(Exception):
    """An attempt failed, and another one may succeed."""


def probe(url: str, stop: threading.Event) -> RemoteFile:
    """Ask the server for length, ETag and date of the file at `url`. Raises DownloadError if it gives none."""

    def attempt() -> RemoteFile:
        with _network(url), _open(url, "HEAD", {}) as answer:
            length = answer.headers.get("Content-Length", "")
            if not length.isdecimal():
                raise DownloadError(f"{url}: the server does not give the length, so a download cannot be checked")
            return RemoteFile(url, int(length), answer.headers.get("ETag"), answer.headers.get("Last-Modified"))

    return _repeated(attempt, url, stop, PAUSES_S[:_PAUSES_OF_PROBE], lambda: 0)


def fetch(remote: RemoteFile, part: Path, report: Callable[[int, int], None], stop: threading.Event) -> None:
    """Download `remote` to `part`, or the rest of it if `part` is its beginning.

    A small JSON file next to `part` describes the file that `part` belongs to; if it is another one, `part` is
    discarded. `report(done, total)` counts bytes, and may raise.

    Raises DownloadError if the server does not have the file, or after several attempts without progress.
    """
    if _described(part) != asdict(remote) or size_of(part) > remote.length:
        discard(part)
        write_json(asdict(remote), _description(part))
    _repeated(lambda: _receive(remote, part, report), remote.url, stop, PAUSES_S, lambda: size_of(part))


def size_of(part: Path) -> int:
    """Return the size of `part` in bytes, 0 if it does not exist."""
    return part.stat().st_size if part.exists() else 0


def discard(part: Path) -> None:
    """Remove `part` and its description."""
    part.unlink(missing_ok=True)
    _description(part).unlink(missing_ok=True)


def _repeated(
    attempt: Callable[[], RemoteFile],
    url: str,
    stop: threading.Event,
    pauses_s: Sequence[float],
    reached: Callable[[], int],
) -> RemoteFile:
    """Attempt until it succeeds or fails once more than there are `pauses_s` without progress of `reached()` bytes."""
    failures, furthest = 0, 0
    while True:
        try:
            return attempt()
        except _AttemptError as error:
            reason = error
        if reached() > furthest:
            failures, furthest = 0, reached()
        if failures == len(pauses_s):
            raise DownloadError(
                f"{url}: {reason}, {failures + 1} times in a row: try again later; the downloaded part is kept"
            )
        if stop.wait(pauses_s[failures]):
            raise StoppedError
        failures += 1


def _receive(remote: RemoteFile, part: Path, report: Callable[[int, int], None]) -> RemoteFile:
    """Append the rest of `remote` to `part`, as far as the connection lasts."""
    have = size_of(part)
    if have < remote.length:
        strong_etag = remote.etag if remote.etag and not remote.etag.startswith("W/") else None
        validator = strong_etag or remote.last_modified
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and validator:
            headers["If-Range"] = validator
        with _network(remote.url):
            answer = _open(remote.url, "GET", headers)
        with answer, part.open("ab") as stream:
            have = _first_byte(answer, remote, have)
            stream.truncate(have)
            while piece := _read(answer, remote.url):
                have += len(piece)
                if have > remote.length:
                    stream.truncate(0)
                    raise _AttemptError(f"the server sent more than the {remote.length} bytes it had announced")
                stream.write(piece)
                report(have, remote.length)
    if have < remote.length:
        raise _AttemptError(f"the connection ended after {have} of {remote.length} bytes")
    return remote


def _first_byte(answer: http.client.HTTPResponse, remote: RemoteFile, have: int) -> int:
    """Return the position in the file at which the answer begins. Raises _AttemptError if it is another file."""
    if answer.status == 206:
        expected = f"bytes {have}-{remote.length - 1}/{remote.length}"
        if (found := answer.headers.get("Content-Range")) != expected:
            raise _AttemptError(f"the server answered with {found!r} instead of {expected!r}")
        return have
    announced = answer.headers.get("Content-Length")
    if announced is not None and announced != str(remote.length):
        raise _AttemptError(f"the server announced {remote.length} bytes and then {announced}")
    return 0


def _open(url: str, method: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers=_HEADERS | headers, method=method)
    answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    return answer


def _read(answer: http.client.HTTPResponse, url: str) -> bytes:
    with _network(url):
        return answer.read1(_PIECE_BYTES)


def _description(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _described(part: Path) -> Any:
    try:
        return json.loads(_description(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextmanager
def _network(url: str) -> Iterator[None]:
    """Turn temporary errors of the network into _AttemptError and lasting ones into DownloadError."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        if error.code < 500 and error.code not in _TEMPORARY_CODES:
            raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from None
        raise _AttemptError(f"the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise _AttemptError(f"the connection failed ({reason})") from error
