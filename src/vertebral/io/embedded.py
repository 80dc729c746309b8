# mypy: allow-untyped-calls
"""Volumes and surfaces for a browser: NIfTI and MZ3, compressed for a page or uncompressed for a server."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

from vertebral.core.records import Surface
from vertebral.core.volume import Volume
from vertebral.io.write import atomic_write

# Vertices are rounded to 1/64 mm: a power of two leaves most bits of a float32 zero, which compresses well.
_STEPS_PER_MM = 64
_MZ3_FACES, _MZ3_VERTICES = 1, 2


def nifti_bytes(volume: Volume, slope: float = 1.0, intercept: float = 0.0, are_labels: bool = False) -> bytes:
    """Return `volume` (I, J, K; uint8, int16 or float32) as gzipped NIfTI; a value is `slope * stored + intercept`."""
    head = _nifti_head(volume, slope, intercept, are_labels)
    return gzip.compress(head + volume.array.tobytes("F"), compresslevel=4, mtime=0)


def write_nifti(volume: Volume, path: Path, are_labels: bool = False) -> None:
    """Write `volume` (I, J, K; uint8, int16 or float32) as uncompressed `.nii`.

    Raises InputError if the folder is not writable.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        stream.write(_nifti_head(volume, 1.0, 0.0, are_labels))
        for plane in np.moveaxis(volume.array, 2, 0):
            stream.write(plane.tobytes("F"))


def _nifti_head(volume: Volume, slope: float, intercept: float, are_labels: bool) -> bytes:
    header = nib.Nifti1Header()
    if are_labels:
        header.set_intent("label")
    header.set_data_dtype(volume.array.dtype)
    header.set_data_shape(volume.array.shape)
    header.set_qform(volume.affine, code=1)
    header.set_sform(volume.affine, code=1)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = slope, intercept
    header["magic"], header["vox_offset"] = b"n+1", 352
    return bytes(header.binaryblock) + bytes(4)


def mz3_bytes(surface: Surface) -> bytes:
    """Return a surface as gzipped MZ3 (Surfice, NiiVue): int32 faces, float32 vertices in RAS+ mm, to 1/64 mm."""
    faces = surface.faces.astype("<i4")
    vertices = (np.rint(surface.vertices_mm * _STEPS_PER_MM) / _STEPS_PER_MM).astype("<f4")
    head = struct.pack("<2sHIII", b"MZ", _MZ3_FACES | _MZ3_VERTICES, len(faces), len(vertices), 0)
    return gzip.compress(head + faces.tobytes() + vertices.tobytes(), compresslevel=6, mtime=0)
