# mypy: allow-untyped-calls
"""Read NRRD and MetaImage through SimpleITK; its LPS frame is converted to RAS."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from vertebral.core.errors import ReadError
from vertebral.core.volume import Affine, Array, Grid
from vertebral.io.ct.image_header import LPS_TO_RAS, ImageHeader, stem_of, suffix_of
from vertebral.io.ct.nifti import squeezed_shape

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

_READERS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}
_DATA_FILE = re.compile(rb"^(?:data ?file:|ElementDataFile\s*=)[ \t]*(.+?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_MOST_HEADER_BYTES = 1 << 16


def open_itk(path: Path) -> ImageHeader:
    """Read and check the header of a `.nrrd`, `.nhdr`, `.mha` or `.mhd` file.

    Raises ReadError for a damaged file and for anything but one real value per voxel on three axes, GeometryError for
    an invalid spacing or affine. `load` raises ReadError if the values are truncated or damaged.
    """
    import SimpleITK as sitk  # noqa: N813  # importing it takes half a second and 50 MB

    files = (path, *_detached(path))
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[suffix_of(path)])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ReadError(f"not a valid NRRD or MetaImage file ({_reason(error)}): export it again") from error
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    if reader.GetNumberOfComponents() != 1 or "complex" in kind or "vector" in kind:
        raise ReadError(
            f"voxels of type {kind}: a CT has one real number per voxel, not colours or complex values; give the CT"
        )
    grid = Grid(squeezed_shape(reader.GetSize()), _affine(reader))
    notes: tuple[str, ...] = ()
    if suffix_of(path) in (".nrrd", ".nhdr") and not reader.HasMetaDataKey("NRRD_space"):
        notes = (
            "the header has no orientation (no `space`): the axes were assumed to point left, posterior, superior",
        )

    def load() -> Array:
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise ReadError(f"truncated or damaged ({_reason(error)}): copy or export it again") from error
        return cast(Array, sitk.GetArrayFromImage(image).T.reshape(grid.shape, order="F"))

    name = _READERS[suffix_of(path)].removesuffix("ImageIO")
    return ImageHeader(grid, load, files, stem_of(path), notes, {"format": name, "stored_type": kind})


def _affine(reader: "sitk.ImageFileReader") -> Affine:
    """Return the RAS+ affine of the first three axes."""
    axes = reader.GetDimension()
    direction = np.asarray(reader.GetDirection()).reshape(axes, axes)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    return cast(Affine, LPS_TO_RAS @ affine)


def _detached(path: Path) -> tuple[Path, ...]:
    """Return the data files that a detached header names, in order."""
    if suffix_of(path) not in (".nhdr", ".mhd"):
        return ()
    with path.open("rb") as stream:
        head = stream.read(_MOST_HEADER_BYTES)
    found = _DATA_FILE.search(head)
    if found is None:
        raise ReadError("the header names no data file: export the image as one .nrrd or .mha file")
    named = found.group(1).decode("utf-8", "replace")
    if named.upper() == "LOCAL":
        return ()
    names = head[found.end() :].decode("utf-8", "replace").split("\n") if named.upper() == "LIST" else [named]
    files = tuple(path.parent / name.strip() for name in names if name.strip())
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise ReadError(
            f"its data file {missing.name!r} is missing: put it next to the header, or export one .nrrd or .mha file"
        )
    return files


def _reason(error: RuntimeError) -> str:
    """Return the last non-empty line of an ITK message, without memory addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\(0x[0-9a-f]+\)", "", lines[-1]).removeprefix("ITK ERROR: ") if lines else "no reason given"
