# mypy: allow-untyped-calls
"""What goes to disk: each file is whole or not there at all."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np

from vertebral.core.errors import GeometryError, InputError, ReadError, VertebralError
from vertebral.core.volume import Array, Grid, Volume

Centroid = tuple[int, tuple[float, float, float]]

_DRAFT = ".vertebral-"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, with its full suffix, to write to; it becomes `path` if the block succeeds.

    It is removed if the block raises. An existing `path` is replaced. The mode is that of any new file under the umask.
    Raises InputError where the folder is missing or cannot be written to, VertebralError where the block wrote nothing.
    """
    path = Path(path)
    temporary = path.parent / f"{_DRAFT}{uuid.uuid4().hex[:12]}{_full_suffix(path)}"
    try:
        temporary.touch(mode=0o666, exist_ok=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): choose another output folder") from error
    try:
        yield temporary
        if not temporary.is_file() or temporary.stat().st_size == 0:
            raise VertebralError(f"{path}: the file was not written, or is empty; check the free disk space")
        _flush(temporary)
        _replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove what `atomic_write` left in `folder` where its process was killed; nobody may be writing there."""
    for draft in folder.glob(f"{_DRAFT}*"):
        draft.unlink()


def write_labels(labels: Volume, path: Path) -> None:
    """Write a label map (I, J, K) of whole numbers from 0 to 255 as uint8 NIfTI (`.nii.gz` or `.nii`).

    Raises InputError for other values or another suffix.
    """
    _write_nifti(labels, path, np.uint8)


def write_image(volume: Volume, path: Path) -> None:
    """Write a CT (I, J, K) as int16 HU NIfTI (`.nii.gz` or `.nii`); HU are rounded to whole numbers.

    Raises InputError for values that are not finite or beyond int16, and for another suffix.
    """
    rounded = Volume(np.rint(volume.array), volume.affine) if volume.array.dtype.kind == "f" else volume
    _write_nifti(rounded, path, np.int16)


def write_json(value: Any, path: Path) -> None:
    """Write `value` as indented UTF-8 JSON. numpy numbers, arrays and paths are converted, NaN becomes null.

    Raises VertebralError for infinities and for types that JSON cannot represent.
    """
    try:
        text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise VertebralError(f"{path}: cannot be written as JSON: {error}") from error
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_centroids(entries: Sequence[Centroid], grid: Grid, path: Path) -> None:
    """Write (VerSe id, (R, A, S) mm) pairs as VerSe's JSON: voxel units of `grid`, its axcodes as `direction`."""
    records: list[dict[str, Any]] = [{"direction": list(grid.axcodes)}]
    for label, point_mm in entries:
        x, y, z = (round(float(coordinate), 4) for coordinate in grid.to_voxel(np.asarray(point_mm)))
        records.append({"label": int(label), "X": x, "Y": y, "Z": z})
    write_json(records, path)


def read_centroids(path: Path, grid: Grid) -> list[Centroid]:
    """Read VerSe's JSON into (VerSe id, (R, A, S) mm) pairs, in the order of the file.

    `grid` is that of the image; another `direction` means the same image with permuted and flipped axes. Raises
    ReadError for any other format.
    """
    path = Path(path)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        axcodes = "".join(next(record["direction"] for record in records if "direction" in record))
        labelled = [record for record in records if "label" in record]
        points = [(int(r["label"]), np.array([float(r[axis]) for axis in "XYZ"])) for r in labelled]
        frame = Volume(np.broadcast_to(np.uint8(0), grid.shape), grid.affine).reoriented(axcodes).grid
    except (OSError, ValueError, KeyError, TypeError, StopIteration, GeometryError) as error:
        raise ReadError(f"{path}: not a centroid file in VerSe's format ({error!r}): check the file") from error
    return [(label, cast(tuple[float, float, float], tuple(frame.to_world(point).tolist()))) for label, point in points]


def _write_nifti(volume: Volume, path: Path, dtype: type[np.generic]) -> None:
    path = Path(path)
    if not path.name.endswith((".nii.gz", ".nii")):
        raise InputError(f"{path}: not a NIfTI name: use a name that ends in .nii.gz")
    image = nib.Nifti1Image(_cast(volume.array, dtype, path), volume.affine)
    image.header["descrip"] = b"vertebral"
    image.header.set_xyzt_units("mm")
    image.set_qform(volume.affine, code=1)
    image.set_sform(volume.affine, code=1)
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def _cast(array: Array, dtype: type[np.generic], path: Path) -> Array:
    """Return `array` as `dtype`. Raises InputError if that changes a value."""
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):
        result = array.astype(dtype)
    if not np.array_equal(result, array):
        name = np.dtype(dtype).name
        raise InputError(
            f"{path}: values from {array.min()} to {array.max()} do not all fit {name}: nothing was written"
        )
    return result


def plain(value: Any, finite: bool = False) -> Any:
    """Return `value` in plain JSON types, with NaN as None; with `finite`, infinities too."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, finite) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, finite) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist(), finite)
    if isinstance(value, float) and (np.isnan(value) or (finite and np.isinf(value))):
        return None
    return str(value) if isinstance(value, Path) else value


def _full_suffix(path: Path) -> str:
    """Return the suffix that identifies the format: the last one, or the last two for `.gz`."""
    suffixes = path.suffixes
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _replace(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): choose another output folder") from error
