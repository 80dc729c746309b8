"""The page of a result that lies on disk already."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebral.core.errors import InputError, ReadError
from vertebral.core.measurements import Measurements
from vertebral.core.records import Surface
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.manifest import LABELS_ENDING, MANIFEST, file_row
from vertebral.io.meshes import read_glb
from vertebral.io.write import write_json
from vertebral.runtime.hashing import file_sha256
from vertebral.stages.report.contents import Contents, contents
from vertebral.stages.report.html import PAGE, read_page

_SPINE = "_spine.glb"


@dataclass(frozen=True)
class Result:
    """A folder that `vertebral run` wrote: its manifest, and the names of the files that it lists."""

    folder: Path
    manifest: dict[str, Any]
    files: tuple[str, ...]

    @property
    def labels_path(self) -> Path:
        """The label map."""
        return self.folder / next(name for name in self.files if name.endswith(LABELS_ENDING))

    def surfaces(self) -> tuple[Surface, ...]:
        """The meshes of all levels, RAS+ mm; none where nothing was found."""
        spine = next((name for name in self.files if name.endswith(_SPINE)), None)
        return read_glb(self.folder / spine) if spine is not None else ()


def open_result(folder: Path) -> Result:
    """Read the manifest of a result. Raises InputError where there is none, or files that it lists are missing."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: holds no {MANIFEST}; give a folder that `vertebral run` wrote")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(str(row["file"]) for row in manifest["outputs"])
        known = all(key in manifest for key in ("input", "levels", "warnings", "disclaimer"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(f"{path}: not a manifest of `vertebral run` ({error!r})") from error
    if (
        not known
        or not any(name.endswith(LABELS_ENDING) for name in files)
        or any(Path(name).name != name for name in files)
    ):
        raise ReadError(f"{path}: not a manifest of `vertebral run`: give a folder that it wrote")
    missing = [name for name in files if not (folder / name).is_file() and name != PAGE]
    if missing:
        raise InputError(f"{folder / missing[0]}: is missing: run `vertebral run` again")
    return Result(folder, manifest, files)


def read_ct(path: Path, result: Result) -> Volume:
    """Read the CT that a result was made from (HU). Raises InputError where it is another one."""
    scan = read_scan(path)
    if scan.sha256 != result.manifest["input"]["sha256"]:
        raise InputError(f"{path}: not the CT that {result.folder} was made from (its SHA-256 differs): give that one")
    return scan.volume


def contents_of(result: Result, measurements: Measurements, volumes: Mapping[str, bytes]) -> Contents:
    """Put together the page of a result; `volumes` are those of `page_volumes`."""
    files = [name for name in result.files if name != PAGE]
    return contents(result.manifest, files, result.surfaces(), measurements, volumes)


def stored_contents(result: Result) -> Contents | None:
    """What the page in the folder holds, if it is the one that the manifest lists, unchanged; None otherwise."""
    hashes = {row["file"]: row.get("sha256") for row in result.manifest["outputs"]}
    path = result.folder / PAGE
    if PAGE not in hashes or not path.is_file() or file_sha256(path) != hashes[PAGE]:
        return None
    return read_page(path)


def list_page(result: Result) -> None:
    """Enter the page that lies in the folder, as it is now, in the manifest of the result."""
    path = result.folder / PAGE
    others = [other for other in result.manifest["outputs"] if other["file"] != PAGE]
    outputs = sorted([*others, file_row(path)], key=lambda other: str(other["file"]))
    write_json({**result.manifest, "outputs": outputs}, result.folder / MANIFEST)


def result_labels(result: Result) -> Volume:
    """The label map of a result, VerSe ids, on the CT's grid."""
    return read_labels(result.labels_path)
