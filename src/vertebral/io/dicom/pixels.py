# mypy: allow-untyped-calls
"""Decode the pixels of DICOM slices to HU with pydicom, or with GDCM (in SimpleITK) if pydicom has no decoder."""

import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from vertebral.core.errors import ReadError
from vertebral.core.volume import Array
from vertebral.io.ct.hounsfield import PADDING_HU
from vertebral.io.dicom.slices import Slice


def load_slices(slices: Sequence[Slice]) -> Array:
    """Return the HU of `slices` as (columns, rows, slices): int32, or float32 if a rescale is not whole.

    Padding is set to `PADDING_HU`. Raises ReadError with the name of the slice if its pixels are missing, truncated, of
    another size than in the header, or compressed without an installed decoder.
    """
    whole = all(item.slope.is_integer() and item.intercept.is_integer() for item in slices)
    first = slices[0]
    stack = np.empty((len(slices), first.rows, first.columns), np.int32 if whole else np.float32)
    for path, group in groupby(enumerate(slices), key=lambda pair: pair[1].path):
        _fill(stack, path, list(group))
    return stack.transpose(2, 1, 0)


def _fill(stack: Array, path: Path, group: list[tuple[int, Slice]]) -> None:
    """Write the slices of one file into their places of `stack` (slices, rows, columns)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:  # a file without preamble: neither compressed nor swapped
                is_implicit = dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
            stored = dataset.pixel_array
    except (NotImplementedError, RuntimeError) as error:  # no decoder for this transfer syntax
        _fill_with_gdcm(stack, path, group, error)
        return
    except Exception as error:  # pydicom and its decoders raise many kinds for damaged files
        raise ReadError(
            f"slice {group[0][1].name} is truncated or damaged ({error}): export the series again"
        ) from error
    for place, item in group:
        plane = stored if item.frame is None else stored.reshape(-1, *stored.shape[-2:])[item.frame]
        _require_size(plane, item)
        hu = plane * item.slope + item.intercept
        if item.padding is not None:
            hu[(plane >= item.padding[0]) & (plane <= item.padding[1])] = PADDING_HU
        stack[place] = hu


def _fill_with_gdcm(stack: Array, path: Path, group: list[tuple[int, Slice]], reason: Exception) -> None:
    """As `_fill`, for a classic file; GDCM returns HU, with the rescale already applied."""
    import SimpleITK as sitk  # noqa: N813

    (place, item) = group[0]
    syntax = _transfer_syntax(path)
    remedy = "install a decoder (pip install pylibjpeg[all]) or export the series uncompressed"
    if item.frame is not None:
        raise ReadError(f"slice {item.name} is compressed ({syntax}) and no decoder is installed: {remedy}") from reason
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        hu = cast(NDArray[np.generic], sitk.GetArrayFromImage(reader.Execute())).astype(np.float64)
    except RuntimeError as error:
        raise ReadError(f"slice {item.name} cannot be decoded ({syntax}): {remedy}") from error
    hu = hu.reshape(hu.shape[-2:])
    _require_size(hu, item)
    if item.padding is not None:
        low, high = sorted(value * item.slope + item.intercept for value in item.padding)
        hu[(hu >= low - 1e-3) & (hu <= high + 1e-3)] = PADDING_HU
    stack[place] = hu


def _require_size(plane: Array, item: Slice) -> None:
    if plane.shape != (item.rows, item.columns):
        raise ReadError(
            f"slice {item.name} has pixels of shape {plane.shape}, but {(item.rows, item.columns)} in its header: "
            "export the series again"
        )


def _transfer_syntax(path: Path) -> str:
    meta = pydicom.dcmread(path, stop_before_pixels=True, force=True).file_meta
    return str(meta.TransferSyntaxUID.name) if "TransferSyntaxUID" in meta else "no transfer syntax"
