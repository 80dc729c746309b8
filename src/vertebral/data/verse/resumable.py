"""One file over HTTP: goes on where a connection broke, and starts anew where the server's file is another one."""

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
"""Waits between attempts that brought nothing new; after the last one the download fails."""

_PAUSES_OF_PROBE = 2
_TIMEOUT_S = 30
_PIECE_BYTES = 1 << 18
_PASSING_CODES = (408, 416, 425, 429)
_HEADERS = {"User-Agent": "vertebral", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class RemoteFile:
    """What a server says of a file. Two that are equal are taken for the same bytes."""

    url: str
    length: int
    etag: str | None
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """What `If-Range` may carry: a strong ETag, else the date."""
        strong = self.etag and not self.etag.startswith("W/")
        return self.etag if strong else self.last_modified


class StoppedError(Exception):
    """The download was told to stop; what is on disk stays for the next time."""


class _BrokenError(Exception):
    """An attempt failed in a way that another attempt may mend."""


class _Patience:
    """Pauses between the attempts at one file; progress makes it patient again."""

    def __init__(self, url: str, stop: threading.Event, pauses_s: Sequence[float]) -> None:
        self._url, self._stop, self._pauses_s = url, stop, pauses_s
        self._failures = self._furthest = 0

    def after(self, reason: object, reached: int = 0) -> None:
        """Wait after a failed attempt that got to `reached` bytes. Raises DownloadError once there were too many."""
        if reached > self._furthest:
            self._failures, self._furthest = 0, reached
        if self._failures == len(self._pauses_s):
            raise DownloadError(
                f"{self._url}: {reason}, {self._failures + 1} times in a row: try again later; "
                "what is already here is kept"
            )
        if self._stop.wait(self._pauses_s[self._failures]):
            raise StoppedError
        self._failures += 1


def probe(url: str, stop: threading.Event) -> RemoteFile:
    """Ask for length, ETag and date of the file at `url`. Raises DownloadError where there is none or no answer."""
    patience = _Patience(url, stop, PAUSES_S[:_PAUSES_OF_PROBE])
    while True:
        try:
            return _probe(url)
        except _BrokenError as error:
            patience.after(error)


def fetch(url: str, part: Path, report: Callable[[int, int], None], stop: threading.Event) -> RemoteFile:
    """Bring the file at `url` to `part`, or the rest of it where `part` holds its beginning.

    Beside `part` a small json tells which file it is the beginning of. `report(done, total)` counts bytes, and may
    raise. Every attempt begins by asking whether the server's file is still the same; if not, `part` is discarded.

    Raises DownloadError where the server has no such file, or after several attempts that brought nothing new.
    """
    patience = _Patience(url, stop, PAUSES_S)
    while True:
        try:
            remote = _probe(url)
            if _known(part) != asdict(remote) or size_of(part) > remote.length:
                discard(part)
                write_json(asdict(remote), _note(part))
            if size_of(part) < remote.length:
                _receive(remote, part, report)
            if size_of(part) == remote.length:
                return remote
            reason = f"the connection ended after {size_of(part)} of {remote.length} bytes"
        except _BrokenError as error:
            reason = str(error)
        patience.after(reason, size_of(part))


def size_of(part: Path) -> int:
    """Return the bytes of `part` that are there."""
    return part.stat().st_size if part.exists() else 0


def discard(part: Path) -> None:
    """Remove `part` and the note of what it is."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _known(part: Path) -> Any:
    try:
        return json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _probe(url: str) -> RemoteFile:
    with _network(url), urllib.request.urlopen(_request(url, "HEAD"), timeout=_TIMEOUT_S) as answer:
        length = answer.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise DownloadError(f"{url}: the server does not tell the length, so a download cannot be checked")
        return RemoteFile(url, int(length), answer.headers.get("ETag"), answer.headers.get("Last-Modified"))


def _receive(remote: RemoteFile, part: Path, report: Callable[[int, int], None]) -> None:
    """Append what `part` lacks, as far as the connection holds."""
    have = size_of(part)
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and remote.validator:
        headers["If-Range"] = remote.validator
    with _network(remote.url):
        answer = urllib.request.urlopen(_request(remote.url, "GET", headers), timeout=_TIMEOUT_S)
    with answer, part.open("ab") as stream:
        start = _first_byte(answer, remote, have)
        stream.truncate(start)
        done = start
        while piece := _piece(answer, remote):
            done += len(piece)
            if done > remote.length:
                stream.truncate(0)
                raise _BrokenError(f"the server sent more than the {remote.length} bytes that it had announced")
            stream.write(piece)
            report(done, remote.length)


def _first_byte(answer: http.client.HTTPResponse, remote: RemoteFile, have: int) -> int:
    """Return where in the file the answer begins. Raises _BrokenError where it is not the file asked for."""
    if answer.status == 206:
        expected = f"bytes {have}-{remote.length - 1}/{remote.length}"
        if (found := answer.headers.get("Content-Range")) != expected:
            raise _BrokenError(f"the server answered with {found!r} instead of {expected!r}")
        return have
    announced = answer.headers.get("Content-Length")
    if announced is not None and announced != str(remote.length):
        raise _BrokenError(f"the server announced {remote.length} bytes and then {announced}")
    return 0


def _piece(answer: http.client.HTTPResponse, remote: RemoteFile) -> bytes:
    with _network(remote.url):
        return answer.read1(_PIECE_BYTES)


def _request(url: str, method: str, headers: dict[str, str] | None = None) -> urllib.request.Request:
    return urllib.request.Request(url, headers=_HEADERS | (headers or {}), method=method)


@contextmanager
def _network(url: str) -> Iterator[None]:
    """Tell what may pass (_BrokenError) from what will not (DownloadError)."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        if error.code < 500 and error.code not in _PASSING_CODES:
            raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from None
        raise _BrokenError(f"the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(
            f"the connection failed ({getattr(error, 'reason', None) or error or type(error).__name__})"
        ) from error
