"""Shared by commands whose input is a path or the address of a series on a PACS."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vertebral.core.errors import ConfigError
from vertebral.runtime.stage_timer import Progress, no_progress

Credentials = Annotated[
    Path | None,
    typer.Option("--pacs-credentials", help="File with `user = ...` and `password = ...`, or `token = ...`."),
]
CaBundle = Annotated[Path | None, typer.Option("--pacs-ca", help="File of CA certificates to verify the PACS.")]
Store = Annotated[bool, typer.Option("--store", help="Send the DICOM results to the PACS that the CT came from.")]


@dataclass(frozen=True)
class LocalCt:
    """A CT on this machine, and a function that sends results to the PACS it came from (None if from no PACS)."""

    path: Path
    send: Callable[[Sequence[Path]], None] | None


@contextmanager
def fetched(
    source: str, credentials: Path | None, ca_bundle: Path | None, progress: Progress = no_progress
) -> Iterator[LocalCt]:
    """Yield `source` as a local path; a series on a PACS is fetched into a private folder, deleted at the end."""
    from vertebral.io.dicom.pacs_access import is_address, parse_address, read_access

    if not is_address(source):
        yield LocalCt(Path(source), None)
        return
    import hashlib
    import tempfile

    from vertebral.io.dicom.dicomweb import fetch_series, store_files

    address, access = parse_address(source), read_access(credentials, ca_bundle)
    # Results are named after this folder; a UID can identify a patient, so a hash of it is used.
    name = "ct_" + hashlib.sha256(address.series_uid.encode()).hexdigest()[:8]
    with tempfile.TemporaryDirectory(prefix="vertebral-") as root:
        progress("fetch", 0.0)
        fetch_series(address, access, Path(root) / name, lambda share: progress("fetch", share))
        yield LocalCt(
            Path(root) / name,
            lambda files: store_files(address, access, files, lambda share: progress("store", share)),
        )


def check_store(store: bool, source: str | None, formats: Sequence[str]) -> None:
    """Raise ConfigError for --store without a PACS, or without anything to send."""
    if not store:
        return
    if source is None or "://" not in source:
        raise ConfigError("--store: the CT is not on a PACS; give its address, dicomwebs://host/studies/UID/series/UID")
    from vertebral.workflows.config import DICOM_FORMATS

    if not set(formats) & set(DICOM_FORMATS):
        raise ConfigError(f"--store: nothing to send; add --format with one or more of {', '.join(DICOM_FORMATS)}")


def formats_of(text: str | None) -> tuple[str, ...]:
    """Return the formats of a comma-separated option."""
    return () if text is None else tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
