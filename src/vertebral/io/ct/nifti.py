# mypy: allow-untyped-calls
"""Read NIfTI-1 and NIfTI-2; the header is checked as it is on disk, before nibabel repairs it."""

import gzip
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import array_from_file
from nibabel.wrapstruct import WrapStructError

from vertebral.core.errors import GeometryError, ReadError
from vertebral.core.volume import Affine, Array, Grid
from vertebral.io.ct.hounsfield import rescale
from vertebral.io.ct.image_header import ImageHeader, stem_of

_QUIET = logging.getLogger("vertebral.io.ct.nifti")
_QUIET.disabled = True  # nibabel logs each repair of a header

_HEADER_BYTES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MOST_TRAILING_BYTES = 1 << 24
_OTHER_UNITS = {1: "metre", 3: "micrometre"}


def open_nifti(path: Path) -> ImageHeader:
    """Read and check the header of a `.nii` or `.nii.gz` file.

    Raises ReadError for a damaged file and for anything but one real value per voxel on three axes, GeometryError for
    an invalid spacing or affine. `load` raises ReadError if the values are truncated or damaged.
    """
    with _readable(path):
        header = _header(path)
    spacing_on_disk = np.asarray(header["pixdim"][1:4], np.float64)
    with _readable(path):
        header.check_fix(logger=_QUIET)
        dtype, offset, (slope, intercept) = header.get_data_dtype(), header.get_data_offset(), header.get_slope_inter()
    if dtype.kind not in "iuf":
        raise ReadError(
            f"voxels of type {_type_name(dtype)}: a CT has one real number per voxel, not colours or complex values; "
            "give the CT"
        )
    full_shape = tuple(int(n) for n in header.get_data_shape())
    affine, notes = _affine(header, spacing_on_disk)
    grid = Grid(squeezed_shape(full_shape), affine)

    def load() -> Array:
        raw = _values(path, full_shape, dtype, offset).reshape(grid.shape, order="F")
        native = raw.astype(raw.dtype.newbyteorder("="), copy=False)
        return rescale(native, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept)

    codes = {name: int(header[name]) for name in ("qform_code", "sform_code")}
    return ImageHeader(
        grid, load, (path,), stem_of(path), notes, {"format": "NIfTI", "stored_type": dtype.name, **codes}
    )


def squeezed_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return `shape` without trailing axes of length 1 after the third. Raises ReadError unless three axes remain."""
    if len(shape) == 0 or min(shape) < 1:
        raise ReadError(f"shape {shape}: the image has no voxels; export it again")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise ReadError(
            f"shape {shape} has {len(shape)} axes: give one 3D volume, not a time series or several channels"
        )
    if len(shape) < 3 or min(shape) < 2:
        raise ReadError(f"shape {shape} is a single slice: give a volume, with two or more voxels along three axes")
    return cast(tuple[int, int, int], shape)


def _header(path: Path) -> Any:
    with _stream(path, gzip.open) as stream:
        start = stream.read(4)
        size = int.from_bytes(start, "little")
        kind = _HEADER_BYTES.get(size) or _HEADER_BYTES.get(int.from_bytes(start, "big"))
        if kind is None:
            raise ReadError("not a NIfTI file (it does not begin with a NIfTI header): check the file")
        stream.seek(0)
        header = kind.from_fileobj(stream, check=False)
    if bytes(header["magic"])[:3].rstrip(b"\0") not in (b"n+1", b"n+2"):
        raise ReadError(
            "a header without voxel data (Analyze, or a .hdr/.img pair): convert both files to one .nii.gz file"
        )
    return header


def _affine(header: Any, spacing_on_disk: Array) -> tuple[Affine, tuple[str, ...]]:
    """Return the affine that nibabel chooses (sform, else qform, else spacing alone), and notes if it is uncertain."""
    unit = _OTHER_UNITS.get(int(header["xyzt_units"]) & 7)
    if unit:
        raise GeometryError(f"the unit of length in the header is the {unit}, not the millimetre: save the CT in mm")
    has_qform, has_sform = int(header["qform_code"]) > 0, int(header["sform_code"]) > 0
    if not has_sform and not (np.isfinite(spacing_on_disk).all() and (spacing_on_disk > 0).all()):
        raise GeometryError(
            f"spacing {spacing_on_disk.tolist()} mm: every axis needs a spacing above 0; correct the header"
        )
    try:
        affine = header.get_best_affine()
    except (HeaderDataError, ValueError) as error:
        raise GeometryError(
            f"the orientation in the header is invalid ({error}): correct the qform or the sform"
        ) from error
    if has_sform and has_qform:
        return affine, _disagreement(header, affine)
    if not has_sform and not has_qform:
        note = "the header has no orientation (qform_code and sform_code are 0): only its spacing was used"
        return affine, (note + ", so left and right, or front and back, may be swapped: check the result",)
    return affine, ()


def _disagreement(header: Any, sform: Affine) -> tuple[str, ...]:
    try:
        qform = header.get_qform()
    except (HeaderDataError, ValueError):
        return ("the qform is invalid; the sform was used",)
    far = np.maximum(np.asarray(header.get_data_shape()[:3]) - 1, 0)
    corners = np.array(np.meshgrid(*[(0, n) for n in far], [1])).reshape(4, -1)
    distance_mm = float(np.linalg.norm((sform - qform) @ corners, axis=0).max())
    with np.errstate(invalid="ignore", divide="ignore"):
        axes = [affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) for affine in (sform, qform)]
        angle_deg = float(np.rad2deg(np.arccos(np.clip((axes[0] * axes[1]).sum(axis=0), -1, 1))).max())
    if distance_mm <= 0.1 and angle_deg <= 0.5:
        return ()
    return (f"qform and sform disagree by up to {distance_mm:.1f} mm and {angle_deg:.1f} degrees; the sform was used",)


def _values(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> Array:
    with _readable(path), _stream(path, igzip.open) as stream:
        values = array_from_file(shape, dtype, stream, offset, order="F", mmap=False)
        trailing = 0
        while isinstance(stream, gzip.GzipFile) and (piece := stream.read(1 << 20)):  # to the end: that checks the CRC
            trailing += len(piece)
            if trailing > _MOST_TRAILING_BYTES:
                raise ReadError("the file is longer than its header says; export it again")
    return values


@contextmanager
def _stream(path: Path, unpacked: Callable[[Path, str], Any]) -> Iterator[io.BufferedIOBase]:
    """Open a file, unpacked. Python's gzip reads up to a damaged byte; ISA-L's is twice as fast, but does not."""
    with unpacked(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        yield stream


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Convert the errors of nibabel, gzip and the system for a damaged file to ReadError."""
    try:
        yield
    except gzip.BadGzipFile as error:
        raise ReadError(
            f"damaged, or not gzip-compressed as its name implies ({error}): copy or export it again"
        ) from error
    except (  # type: ignore[misc]  # isal's stub calls its error an instance
        OSError,
        EOFError,
        isal_zlib.IsalError,
        HeaderDataError,
        WrapStructError,
        ValueError,
        OverflowError,
    ) as error:
        raise ReadError(f"truncated or damaged ({error}): copy or export it again") from error


def _type_name(dtype: np.dtype[Any]) -> str:
    return "RGB" if dtype.names else dtype.name
