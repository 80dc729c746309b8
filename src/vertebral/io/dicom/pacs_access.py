"""Where a series lies on a DICOMweb server, and what opens the door (never from the command line, nor in a message)."""

import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from vertebral.core.errors import ConfigError

_SCHEMES = {"dicomweb": "http", "dicomwebs": "https"}
_PATH = re.compile(r"(?P<prefix>(?:/[^/]+)*)/studies/(?P<study>[0-9.]{1,64})/series/(?P<series>[0-9.]{1,64})/?")
_FORM = "dicomwebs://host[:port][/path]/studies/UID/series/UID (dicomweb:// without TLS)"
USER, PASSWORD, TOKEN = "VERTEBRAL_PACS_USER", "VERTEBRAL_PACS_PASSWORD", "VERTEBRAL_PACS_TOKEN"
CREDENTIALS, CA_BUNDLE = "VERTEBRAL_PACS_CREDENTIALS", "VERTEBRAL_PACS_CA"


@dataclass(frozen=True)
class Address:
    """A series on a server whose DICOMweb root is `base_url` (http or https, without user and password)."""

    base_url: str
    study_uid: str
    series_uid: str

    @property
    def is_private(self) -> bool:
        """True where nobody on the way can read what is sent: TLS, or the machine itself."""
        parts = urlsplit(self.base_url)
        if parts.scheme == "https" or parts.hostname == "localhost":
            return True
        try:
            return ipaddress.ip_address(parts.hostname or "").is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Access:
    """Credentials (user and password, or a bearer token, or none) and the certificates that a server's must lead to."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca_bundle: Path | None = None


def is_address(text: str) -> bool:
    """True where `text` names a DICOMweb server and no path."""
    return text.partition("://")[0].lower() in _SCHEMES and "://" in text


def parse_address(text: str) -> Address:
    """Parse `dicomweb[s]://host[:port][/path]/studies/UID/series/UID`. Raises ConfigError for anything else."""
    parts = urlsplit(text)
    scheme = _SCHEMES.get(parts.scheme.lower())
    if "@" in parts.netloc:
        raise ConfigError(
            f"an address with a user or password in it: leave them out, and set {USER} and {PASSWORD}, or a "
            f"file of credentials by {CREDENTIALS}"
        )
    found = _PATH.fullmatch(parts.path)
    try:
        port = parts.port
    except ValueError:
        port, found = None, None
    if scheme is None or not parts.hostname or found is None or parts.query or parts.fragment:
        raise ConfigError(f"{text}: not the address of a series; give {_FORM}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    return Address(f"{scheme}://{place}{found['prefix']}", found["study"], found["series"])


def read_access(
    credentials: Path | None = None, ca_bundle: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Access:
    """Gather credentials from the file `credentials`, that which the environment names, or the environment itself.

    The file holds lines `user = ...` and `password = ...`, or `token = ...`. Raises ConfigError where a file is
    missing, open to others, or holds something else; no message repeats what it holds.
    """
    file = credentials or (Path(environ[CREDENTIALS]) if environ.get(CREDENTIALS) else None)
    values = {"user": environ.get(USER, ""), "password": environ.get(PASSWORD, ""), "token": environ.get(TOKEN, "")}
    if file is not None:
        values = {"user": "", "password": "", "token": ""} | _credentials_in(file)
    if values["token"] and values["user"]:
        raise ConfigError("both a token and a user are set for the PACS: leave one out")
    if bool(values["user"]) != bool(values["password"]):
        raise ConfigError(f"a PACS user needs a password, and the other way round: set {USER} and {PASSWORD}")
    bundle = ca_bundle or (Path(environ[CA_BUNDLE]) if environ.get(CA_BUNDLE) else None)
    if bundle is not None and not bundle.exists():
        raise ConfigError(f"{bundle}: no such bundle of certificates: check the path")
    return Access(**values, ca_bundle=bundle)


def _credentials_in(file: Path) -> dict[str, str]:
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: no readable file of credentials: check the path and its mode") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{file}: others may read these credentials: chmod 600 it")
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or name not in ("user", "password", "token"):
            raise ConfigError(f"{file}: line {number} is none of user = ..., password = ..., token = ...")
        found[name] = value
    return found
