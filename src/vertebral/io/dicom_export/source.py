"""The CT series that results reference: its headers and its grid."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from vertebral.core.errors import GeometryError, InputError, ReadError
from vertebral.core.volume import Grid, Volume
from vertebral.io.ct.read import image_header
from vertebral.io.dicom.slices import Slice

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
# Attributes that may be empty, but not absent.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
_SEXES = ("M", "F", "O")


@dataclass(frozen=True)
class SourceSeries:
    """A CT series without its pixels.

    `headers` has one data set per file: one for each of the `slices` (in the order of K of `grid`), or a single one
    for an enhanced file with all slices as frames.
    """

    headers: tuple[Dataset, ...]
    slices: tuple[Slice, ...]
    grid: Grid
    path: Path

    @property
    def first(self) -> Dataset:
        """The header from which patient and study are copied."""
        return self.headers[0]

    @property
    def frame_of_reference(self) -> str:
        """The UID of the coordinate system of all positions."""
        return str(self.first.FrameOfReferenceUID)

    def reference(self, k: int) -> Dataset:
        """Return a new reference to the image (and frame) of slice `k`."""
        header = self.headers[0 if len(self.headers) == 1 else k]
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        frame = self.slices[k].frame
        if frame is not None:
            item.ReferencedFrameNumber = frame + 1
        return item


def read_source(path: Path, series: str | None = None) -> SourceSeries:
    """Read the headers of a CT series: a DICOM folder, one file of it, or a zip.

    Raises InputError if `path` is not DICOM; ReadError if the series cannot be read, or has no UIDs or frame of
    reference; GeometryError if its slices do not form a straight, evenly spaced stack (as with a tilted gantry), or
    have several frames of reference.
    """
    path = Path(path)
    with image_header(path, series) as found:
        if not found.slices:
            raise InputError(f"{path}: not DICOM: give the DICOM series of the CT, or omit the DICOM formats")
        headers = tuple(_header(file) for file in found.files)
    if len(headers) not in (1, len(found.slices)):
        raise ReadError(f"{path}: {len(headers)} multi-frame files; give a single one, or one file per slice")
    for slice_, header in zip(found.slices, headers, strict=False):
        _require_uids(header, f"{path}: slice {slice_.name}")
    frames = {str(header.FrameOfReferenceUID) for header in headers}
    if len(frames) > 1:
        raise GeometryError(
            f"{path}: its slices have {len(frames)} frames of reference; give a series with a single one"
        )
    return SourceSeries(headers, found.slices, found.grid, path)


def aligned(labels: Volume, source: SourceSeries) -> Volume:
    """Return `labels` with their axes in the order of `source.grid`: (columns, rows, slices).

    Axes are only permuted and flipped. Raises GeometryError, with both geometries, if the voxels are not the same.
    """
    turned = labels.reoriented(source.grid.axcodes)
    if not turned.grid.matches(source.grid, tolerance_mm=0.05):
        raise GeometryError(
            f"{source.path}: this series has {_described(source.grid)}, but the label map has "
            f"{_described(turned.grid)}: give the series that the labels were made from"
        )
    return turned


def _described(grid: Grid) -> str:
    shape = " x ".join(map(str, grid.shape))
    spacing = " x ".join(f"{mm:.4g}" for mm in grid.spacing_mm)
    origin = ", ".join(f"{mm:.1f}" for mm in grid.affine[:3, 3])
    return f"{shape} voxels ({grid.axcodes}) of {spacing} mm from ({origin}) mm"


def _header(file: Path) -> Dataset:
    """Return the header with all of `_MAY_BE_EMPTY`, and with invalid sexes, dates and times emptied."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they would print values of the header
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        header.decode()
        for keyword in _MAY_BE_EMPTY:
            if keyword not in header:
                setattr(header, keyword, None)
        header.SpecificCharacterSet = "ISO_IR 192"  # text was decoded above; results are written in UTF-8
        if header.PatientSex and header.PatientSex not in _SEXES:
            header.PatientSex = None
        for keyword, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
            try:
                kind(header[keyword].value)
            except (ValueError, TypeError):
                header[keyword].value = None
    return header


def _require_uids(header: Dataset, name: str) -> None:
    lacking = [keyword for keyword in _UIDS if not header.get(keyword)]
    if lacking:
        raise ReadError(
            f"{name} has no {', '.join(lacking)}, which a DICOM result must reference: export the series again with "
            "its UIDs (an anonymiser should replace them, not empty them)"
        )
