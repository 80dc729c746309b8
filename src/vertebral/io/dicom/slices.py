"""One record per slice, from a classic file with one slice or from a frame of an enhanced (multi-frame) file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from vertebral.core.errors import ReadError

HEADER_KEYWORDS = (
    *("SOPClassUID", "ImageType", "Modality", "Manufacturer", "ManufacturerModelName", "SeriesInstanceUID"),
    *("PatientName", "PatientID", "PatientIdentityRemoved"),  # only to keep them out of file names
    *(
        "SliceThickness",
        "KVP",
        "ConvolutionKernel",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "NumberOfFrames",
    ),
    *("SamplesPerPixel", "Rows", "Columns", "PixelSpacing", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


@dataclass(frozen=True)
class Slice:
    """A slice without its pixels; its geometry is in DICOM's LPS+ frame.

    `frame` is its index in a multi-frame file, None in a classic one. `axes` (2, 3) are the unit directions of
    increasing column and row index, `pixel_mm` the distances between columns and between rows. `padding` is the range
    of stored values that mark padding, if any.
    """

    path: Path
    name: str
    frame: int | None
    position_mm: NDArray[np.float64]
    axes: NDArray[np.float64]
    pixel_mm: tuple[float, float]
    columns: int
    rows: int
    slope: float
    intercept: float
    padding: tuple[int, int] | None


def slices_of(path: Path, name: str, dataset: Dataset) -> list[Slice]:
    """Return the slices of one CT file. Raises ReadError with the attribute that is missing or wrong."""
    if "PerFrameFunctionalGroupsSequence" in dataset:
        frames: list[int | None] = list(range(len(dataset.PerFrameFunctionalGroupsSequence)))
    elif int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise ReadError(
            f"{name} has several frames without functional groups: export one file per slice, or an enhanced CT"
        )
    else:
        frames = [None]
    return [_slice(path, name, dataset, frame) for frame in frames]


def functional_places(dataset: Dataset, frame: int | None) -> list[Dataset]:
    """Return the data sets in which to look up an attribute: groups of `frame`, shared groups, the file itself."""
    places: list[Dataset] = []
    if frame is not None and "PerFrameFunctionalGroupsSequence" in dataset:
        groups = [
            dataset.PerFrameFunctionalGroupsSequence[frame],
            *dataset.get("SharedFunctionalGroupsSequence", [])[:1],
        ]
        places = [item.value[0] for group in groups for item in group if item.VR == "SQ" and item.value]
    return [*places, dataset]


def value_of(places: Sequence[Dataset], keyword: str) -> Any | None:
    """Return the first value of `keyword` in `places` that is not empty, or None."""
    values = (place.get(keyword) for place in places)
    return next((value for value in values if value is not None and value != "" and value != []), None)


def numbers(places: Sequence[Dataset], keyword: str, count: int, name: str) -> NDArray[np.float64]:
    """Return the `count` numbers of `keyword`. Raises ReadError with the `name` of the slice if they are not there."""
    value = value_of(places, keyword)
    if value is None:
        raise ReadError(f"slice {name} has no {keyword}: export the series again with its full header")
    try:
        result = np.atleast_1d(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        result = np.empty(0)
    if result.shape != (count,) or not np.isfinite(result).all():
        raise ReadError(f"slice {name} has {keyword} {value}, not {count} finite number(s): export the series again")
    return result


def _slice(path: Path, name: str, dataset: Dataset, frame: int | None) -> Slice:
    shown = name if frame is None else f"{name} frame {frame + 1}"
    places = functional_places(dataset, frame)
    orientation = numbers(places, "ImageOrientationPatient", 6, shown).reshape(2, 3)
    lengths = np.linalg.norm(orientation, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(float(orientation[0] @ orientation[1])) > 0.01:
        cosines = orientation.ravel().tolist()
        raise ReadError(
            f"slice {shown} has ImageOrientationPatient {cosines}: not two perpendicular directions; "
            "export the series again"
        )
    between_rows, between_columns = (float(n) for n in numbers(places, "PixelSpacing", 2, shown))
    if min(between_rows, between_columns) <= 0:
        raise ReadError(
            f"slice {shown} has PixelSpacing {between_rows:g}, {between_columns:g} mm, not above 0: "
            "export the series again"
        )
    return Slice(
        path=path,
        name=shown,
        frame=frame,
        position_mm=numbers(places, "ImagePositionPatient", 3, shown),
        axes=orientation / lengths[:, None],
        pixel_mm=(between_columns, between_rows),
        columns=int(numbers(places, "Columns", 1, shown)[0]),
        rows=int(numbers(places, "Rows", 1, shown)[0]),
        slope=float(numbers(places, "RescaleSlope", 1, shown)[0]),
        intercept=float(numbers(places, "RescaleIntercept", 1, shown)[0]),
        padding=_padding(dataset, shown),
    )


def _padding(dataset: Dataset, name: str) -> tuple[int, int] | None:
    if dataset.get("PixelPaddingValue") is None:
        return None
    first = int(numbers([dataset], "PixelPaddingValue", 1, name)[0])
    last = first
    if dataset.get("PixelPaddingRangeLimit") is not None:
        last = int(numbers([dataset], "PixelPaddingRangeLimit", 1, name)[0])
    if dataset.get("PixelRepresentation") == 1:  # some writers store a signed padding value as unsigned
        first, last = (value - 65536 if value > 32767 else value for value in (first, last))
    return min(first, last), max(first, last)
