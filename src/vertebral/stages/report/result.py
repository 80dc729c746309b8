"""The page of a result that is on disk."""

from collections.abc import Mapping
from pathlib import Path

from vertebral.core.errors import InputError
from vertebral.core.measurements import Measurements
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_scan
from vertebral.io.result_folder import REPORT, StoredResult
from vertebral.stages.report.contents import Contents, contents
from vertebral.stages.report.html import read_page


def read_ct_of(result: StoredResult, path: Path) -> Volume:
    """Read the CT (HU) that a result was made from. Raises InputError if `path` is another one."""
    scan = read_scan(path)
    if scan.sha256 != result.manifest["input"]["sha256"]:
        raise InputError(f"{path}: not the CT that {result.folder} was made from (its SHA-256 differs): give that one")
    return scan.volume


def contents_of(result: StoredResult, measurements: Measurements, volumes: Mapping[str, bytes]) -> Contents:
    """Put together the page of a result; `volumes` are those of `page_volumes`."""
    files = [name for name in result.hashes if name != REPORT]
    return contents(result.manifest, files, result.surfaces(), measurements, volumes)


def stored_contents(result: StoredResult) -> Contents | None:
    """Return what the page in the folder holds if it is unchanged since the manifest was written, else None."""
    return read_page(result.folder / REPORT) if result.is_unchanged(REPORT) else None
