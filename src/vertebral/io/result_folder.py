"""A folder of results on disk: the names in it, how it appears all at once, and how it is read back."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebral.core.anatomy import BY_NAME, LEVELS, SPINE
from vertebral.core.errors import InputError, OutputExistsError, ReadError, VertebralError
from vertebral.core.records import Surface
from vertebral.io.meshes import read_glb
from vertebral.io.write import remove_drafts, write_json
from vertebral.runtime.hashing import file_sha256

MANIFEST = "manifest.json"
REPORT = "report.html"
LABELS_ENDING = "_seg-vert_msk.nii.gz"

_STAGING_PREFIX = ".partial-"
_MANIFEST_KEYS = {"input": dict, "levels": list, "warnings": list, "disclaimer": str}
# What changes where and how a result is made, and not what it is; networks are compared by the hash of their weights.
_NEUTRAL_OPTIONS = {"model", "device", "backend", "max_memory_gb", "overwrite"}


@dataclass(frozen=True)
class ResultNames:
    """The names of the files in a result; `stem` is that of the CT."""

    stem: str

    @property
    def labels(self) -> str:
        """The label map."""
        return f"{self.stem}{LABELS_ENDING}"

    @property
    def centroids(self) -> str:
        """The centroids in VerSe's format."""
        return f"{self.stem}_seg-subreg_ctd.json"

    @property
    def occupancies(self) -> str:
        """How much of each voxel belongs to which vertebra."""
        return f"{self.stem}_occupancy.npz"

    @property
    def spine(self) -> str:
        """All surfaces in one file."""
        return f"{self.stem}_spine.glb"

    @property
    def preview(self) -> str:
        """The picture."""
        return f"{self.stem}_preview.png"

    def measurements(self, suffix: str) -> str:
        """The measurements as `csv` (one row per vertebra) or `json` (all tables)."""
        return f"{self.stem}_measurements.{suffix}"

    def surface(self, name: str) -> str:
        """The surface of one level."""
        return f"{self.stem}_{name}.stl"

    @property
    def all(self) -> tuple[str, ...]:
        """Every name that `vertebral run` may write without `--format`, except the manifest."""
        surfaces = (self.surface(level.name) for level in (*LEVELS, SPINE))
        tables = (self.measurements(suffix) for suffix in ("csv", "json"))
        return (REPORT, self.labels, self.centroids, self.occupancies, self.spine, self.preview, *tables, *surfaces)


class Staging:
    """Results in the making: files are written to `folder`, hidden inside `out`, and moved to `out` at the end."""

    def __init__(self, out: Path, folder: Path, overwrite: bool) -> None:
        self.out, self.folder, self._overwrite = out, folder, overwrite

    def refuse(self, names: Iterable[str]) -> None:
        """Raise OutputExistsError if `out` holds one of `names` and may not be overwritten."""
        refuse_files([self.out / name for name in names], self._overwrite)

    def publish(self, last: str | None = None) -> list[Path]:
        """Move all files to `out`, `last` after the others; return their paths there, sorted by name."""
        names = sorted(path.name for path in self.folder.iterdir())
        self.refuse(names)
        for name in sorted(names, key=lambda name: name == last):
            (self.folder / name).replace(self.out / name)
        return [self.out / name for name in names]

    def publish_result(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Add the list of files to `manifest`, write it, and publish all; return the complete manifest.

        Files that the manifest of an earlier result in `out` lists are removed first. Raises OutputExistsError if `out`
        holds one of the files, or meanwhile another result, and may not be overwritten.
        """
        remove_drafts(self.folder)
        complete = {**manifest, "outputs": file_rows(self.folder)}
        write_json(complete, self.folder / MANIFEST)
        refuse_results(self.out, self._overwrite)
        self.refuse(path.name for path in self.folder.iterdir())
        earlier = find_result(self.out)
        (self.out / MANIFEST).unlink(missing_ok=True)
        for name in earlier.hashes if earlier is not None else ():
            (self.out / name).unlink(missing_ok=True)
        self.publish(last=MANIFEST)
        return complete


@contextmanager
def staging_in(out: Path, overwrite: bool = False) -> Iterator[Staging]:
    """Yield a fresh `Staging` for `out`; its folder, and `out` if it is new and stays empty, are removed afterwards.

    It is made before the work starts, so that a place that cannot be written to is refused at once. Raises InputError.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=out))
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); choose another --out") from error
    try:
        yield Staging(out, folder, overwrite)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            if any(parent.iterdir()):
                break
            parent.rmdir()


def remove_leftovers(out: Path) -> None:
    """Remove what `staging_in` left in `out` when its process was killed; no other process may be working there."""
    for folder in out.glob(f"{_STAGING_PREFIX}*") if out.is_dir() else ():
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an OSError, such as that of a full disk, into a VertebralError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise VertebralError(
            f"{out}: the results could not be written ({reason}); free space or choose another --out"
        ) from error


def refuse_results(out: Path, overwrite: bool) -> None:
    """Raise OutputExistsError if `out` is a file, or holds a manifest and may not be overwritten."""
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out}: is a file; give a folder as --out")
    if (out / MANIFEST).exists() and not overwrite:
        raise OutputExistsError(f"{out}: already holds results; add --overwrite, or choose another --out")


def refuse_files(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise OutputExistsError if one of `paths` exists and may not be overwritten; a folder never may."""
    for path in paths:
        if path.is_dir():
            raise OutputExistsError(f"{path}: is a folder, where a file is to be written; choose another --out")
        if path.exists() and not overwrite:
            raise OutputExistsError(f"{path}: already exists; add --overwrite, or choose another --out")


@dataclass(frozen=True)
class StoredResult:
    """A result on disk: its manifest, and the SHA-256 of each of its files by name."""

    folder: Path
    manifest: dict[str, Any]
    hashes: dict[str, str]

    @property
    def names(self) -> ResultNames:
        """The names of its files."""
        labels = next(name for name in self.hashes if name.endswith(LABELS_ENDING))
        return ResultNames(labels.removesuffix(LABELS_ENDING))

    @property
    def labels_path(self) -> Path:
        """The label map."""
        return self.folder / self.names.labels

    def is_unchanged(self, name: str) -> bool:
        """Return True if the file exists and is as the manifest says."""
        path = self.folder / name
        return name in self.hashes and path.is_file() and file_sha256(path) == self.hashes[name]

    @property
    def missing_files(self) -> list[str]:
        """The files that the manifest lists and the folder lacks; the report can be made again and does not count."""
        return [name for name in self.hashes if name != REPORT and not (self.folder / name).is_file()]

    def surfaces(self) -> tuple[Surface, ...]:
        """Read the surfaces of all levels, RAS+ mm; none where nothing was found."""
        return read_glb(self.folder / self.names.spine) if self.names.spine in self.hashes else ()

    def is_made_from(self, input_sha256: str, options: Mapping[str, Any], weights: Sequence[str | None]) -> bool:
        """Return True if this is the complete result of the same input, options and weights (coarse, refiner)."""
        try:
            made_from = self.manifest["input"]["sha256"], _deciding(self.manifest["options"])
            used = [model and model["sha256"] for model in (self.manifest["model"], self.manifest["refiner"])]
        except (KeyError, TypeError, AttributeError):
            return False
        same = made_from == (input_sha256, _deciding(options)) and used == list(weights)
        return same and not self.missing_files


def open_result(folder: Path) -> StoredResult:
    """Read the manifest of a result. Raises InputError where there is none, ReadError where it is not one of ours."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: contains no {MANIFEST}; give a folder that `vertebral run` wrote, or a label map")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        hashes = {str(row["file"]): str(row.get("sha256")) for row in manifest["outputs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(
            f"{path}: not a manifest of `vertebral run` ({error!r}); give a folder that it wrote"
        ) from error
    is_plain = all(Path(name).name == name for name in hashes)
    if not is_plain or not any(name.endswith(LABELS_ENDING) for name in hashes):
        raise ReadError(f"{path}: not a manifest of `vertebral run`; give a folder that it wrote")
    return StoredResult(folder, manifest, hashes)


def find_result(folder: Path) -> StoredResult | None:
    """Return the result in `folder`, or None where there is none that can be read."""
    try:
        return open_result(folder)
    except InputError:
        return None


def open_complete_result(folder: Path) -> StoredResult:
    """As `open_result`. Also raises ReadError or InputError if the manifest lacks a key, or a file that it lists."""
    result = open_result(folder)
    strange = [key for key, kind in _MANIFEST_KEYS.items() if not isinstance(result.manifest.get(key), kind)]
    rows = [] if strange else result.manifest["levels"]
    if not all(isinstance(row, dict) and row.get("level") in BY_NAME for row in rows):
        strange = ["levels"]
    if strange:
        raise ReadError(
            f"{folder / MANIFEST}: not a manifest of `vertebral run` (its {strange[0]!r} is missing or damaged); "
            "run it again"
        )
    if result.missing_files:
        raise InputError(
            f"{folder / result.missing_files[0]}: listed in the manifest, but missing: run `vertebral run` again"
        )
    return result


def update_file(result: StoredResult, name: str) -> None:
    """Enter one file of the folder, as it is now, in the manifest of the result."""
    others = [row for row in result.manifest["outputs"] if row["file"] != name]
    rows = sorted([*others, file_row(result.folder / name)], key=lambda row: str(row["file"]))
    write_json({**result.manifest, "outputs": rows}, result.folder / MANIFEST)


def file_row(path: Path) -> dict[str, Any]:
    """Return what a manifest records of a file."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def file_rows(folder: Path) -> list[dict[str, Any]]:
    """Return what a manifest records of all files in `folder`, by name."""
    return [file_row(path) for path in sorted(folder.iterdir())]


def _deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _NEUTRAL_OPTIONS}
