"""Address of a series on a DICOMweb server, and credentials (never on the command line, never in a message)."""

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
class SeriesAddress:
    """A series on a server; `base_url` is its DICOMweb root (http or https, without user and password)."""

    base_url: str
    study_uid: str
    series_uid: str

    @property
    def is_private(self) -> bool:
        """Whether nobody in between can read the traffic: TLS, or this machine itself."""
        parts = urlsplit(self.base_url)
        if parts.scheme == "https" or parts.hostname == "localhost":
            return True
        try:
            return ipaddress.ip_address(parts.hostname or "").is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Access:
    """Credentials (user and password, or a bearer token, or none) and the CA bundle to verify the server."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca_bundle: Path | None = None


def is_address(text: str) -> bool:
    """Return True if `text` is the address of a DICOMweb server, not a path."""
    return text.partition("://")[0].lower() in _SCHEMES and "://" in text


def parse_address(text: str) -> SeriesAddress:
    """Parse `dicomweb[s]://host[:port][/path]/studies/UID/series/UID`. Raises ConfigError for anything else."""
    parts = urlsplit(text)
    scheme = _SCHEMES.get(parts.scheme.lower())
    if "@" in parts.netloc:
        raise ConfigError(
            f"the address contains a user or password: remove them, and set {USER} and {PASSWORD}, or the path of a "
            f"credentials file in {CREDENTIALS}"
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
    return SeriesAddress(f"{scheme}://{place}{found['prefix']}", found["study"], found["series"])


def read_access(
    credentials: Path | None = None, ca_bundle: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Access:
    """Read credentials from the file `credentials`, from the file named in the environment, or from the environment.

    The file has lines `user = ...` and `password = ...`, or `token = ...`. Raises ConfigError if a file is missing,
    readable by others, or has other lines; no message repeats its contents.
    """
    file = credentials or (Path(environ[CREDENTIALS]) if environ.get(CREDENTIALS) else None)
    values = {"user": environ.get(USER, ""), "password": environ.get(PASSWORD, ""), "token": environ.get(TOKEN, "")}
    if file is not None:
        values = {"user": "", "password": "", "token": ""} | _credentials_in(file)
    if values["token"] and values["user"]:
        raise ConfigError("both a token and a user are set for the PACS: remove one")
    if bool(values["user"]) != bool(values["password"]):
        raise ConfigError(f"a PACS user needs a password, and a password a user: set both {USER} and {PASSWORD}")
    bundle = ca_bundle or (Path(environ[CA_BUNDLE]) if environ.get(CA_BUNDLE) else None)
    if bundle is not None and not bundle.exists():
        raise ConfigError(f"{bundle}: no such CA bundle: check the path")
    return Access(**values, ca_bundle=bundle)


def _credentials_in(file: Path) -> dict[str, str]:
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot read the credentials: check the path and its permissions") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{file}: other users can read these credentials: run chmod 600 on it")
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (word.strip() for word in line.partition("="))
        if not equals or name not in ("user", "password", "token"):
            raise ConfigError(f"{file}: line {number} must be user = ..., password = ... or token = ...")
        found[name] = value
    return found
