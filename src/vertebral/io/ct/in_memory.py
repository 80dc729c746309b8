# mypy: allow-untyped-calls
"""Images that another library holds in memory: to a `Scan` or a label map, and back."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from vertebral.core.errors import InputError, ReadError
from vertebral.core.records import Scan
from vertebral.core.volume import Array, Volume
from vertebral.io.ct.hounsfield import to_hounsfield, to_labels
from vertebral.io.ct.image_header import LPS_TO_RAS

_STEM = "ct"


def scan_of(image: Any) -> Scan:
    """Return a CT in HU from a `Scan`, a `Volume`, a nibabel image or a SimpleITK image; the image is not changed.

    A `Volume` is (I, J, K) with an affine to RAS+ mm. The values are checked as those of a file are. Raises ReadError
    if they cannot be HU, InputError for any other object.
    """
    if isinstance(image, Scan):
        return image
    volume = _volume_of(image)
    if volume.array.dtype.kind not in "iuf":
        raise ReadError(f"voxels of type {volume.array.dtype}: a CT has one real number per voxel")
    array, notes = to_hounsfield(volume.array.copy())
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes() + volume.affine.tobytes()).hexdigest()
    return Scan(Volume(array, volume.affine), Path(_STEM), digest, _STEM, notes, {"format": type(image).__name__})


def labels_of(image: Any) -> Volume:
    """Return a label map (uint8, or uint16 if a label is over 255) from a `Volume`, a nibabel or a SimpleITK image."""
    volume = _volume_of(image)
    return Volume(to_labels(volume.array), volume.affine)


def to_nibabel(volume: Volume) -> Any:
    """Return a `nibabel.Nifti1Image` with the values and the affine of `volume`."""
    import nibabel as nib

    image = nib.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm")
    return image


def to_sitk(volume: Volume) -> Any:
    """Return a `SimpleITK.Image` with the values of `volume`, its frame turned from RAS+ to LPS+."""
    import SimpleITK as sitk  # noqa: N813

    affine = LPS_TO_RAS @ volume.affine  # the matrix is its own inverse
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.T))
    image.SetSpacing(volume.spacing_mm)
    image.SetDirection((affine[:3, :3] / np.asarray(volume.spacing_mm)).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _volume_of(image: Any) -> Volume:
    if isinstance(image, Volume):
        return image
    if hasattr(image, "get_fdata") and hasattr(image, "affine"):
        return Volume(_native(np.asanyarray(image.dataobj)), image.affine)
    if hasattr(image, "GetDirection") and hasattr(image, "GetOrigin"):
        return _from_sitk(image)
    raise InputError(
        f"an object of type {type(image).__name__} is not an image: give a path, Volume, nibabel or SimpleITK image"
    )


def _from_sitk(image: Any) -> Volume:
    import SimpleITK as sitk  # noqa: N813

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"a SimpleITK image of {image.GetDimension()} axes and {image.GetNumberOfComponentsPerPixel()} values per "
            "voxel is not a CT: give one 3D volume with one value per voxel"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(image.GetDirection()).reshape(3, 3) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return Volume(sitk.GetArrayFromImage(image).T, LPS_TO_RAS @ affine)


def _native(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
