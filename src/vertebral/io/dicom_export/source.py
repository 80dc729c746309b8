"""The CT series that results refer to: its headers, and the grid that its slices form."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from vertebral.core.errors import GeometryError, InputError, ReadError
from vertebral.core.volume import Grid, Volume
from vertebral.io.ct.read import opened
from vertebral.io.dicom.slices import Slice

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
# Attributes that the standard allows to be empty, but not to be absent.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
_SEXES = ("M", "F", "O")


@dataclass(frozen=True)
class SourceSeries:
    """A CT series without its pixels.

    `headers` has one data set a file: one for each of the `slices` (in the order of K of `grid`), or a single one of
    an enhanced file that holds them all as frames.
    """

    headers: tuple[Dataset, ...]
    slices: tuple[Slice, ...]
    grid: Grid
    path: Path

    @property
    def first(self) -> Dataset:
        """The header that patient and study are taken from."""
        return self.headers[0]

    @property
    def frame_of_reference(self) -> str:
        """The UID of the coordinate system that all positions are in."""
        return str(self.first.FrameOfReferenceUID)

    def reference(self, k: int) -> Dataset:
        """Return a new item that points at the image, and frame, of slice `k`."""
        header = self.headers[0 if len(self.headers) == 1 else k]
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        frame = self.slices[k].frame
        if frame is not None:
            item.ReferencedFrameNumber = frame + 1
        return item


def read_source(path: Path, series: str | None = None) -> SourceSeries:
    """Read the headers of a CT series from what `read_scan` takes as DICOM: a folder, one file of it, or a zip.

    Raises InputError where `path` is no DICOM; ReadError where the series lacks what a result must refer to (its UIDs,
    its frame of reference), or cannot be read; GeometryError where its slices form no straight, even stack, as with a
    tilted gantry, or lie in several frames of reference.
    """
    path = Path(path)
    with opened(path, series) as found:
        if not found.slices:
            raise InputError(f"{path}: is no DICOM: give the DICOM series of the CT, or leave the DICOM formats out")
        headers = tuple(_header(file) for file in found.files)
    if len(headers) not in (1, len(found.slices)):
        raise ReadError(
            f"{path}: {len(headers)} multi-frame files; DICOM results are made for one, or for single slices"
        )
    for slice_, header in zip(found.slices, headers, strict=False):
        _require_uids(header, f"{path}: slice {slice_.name}")
    frames = {str(header.FrameOfReferenceUID) for header in headers}
    if len(frames) > 1:
        raise GeometryError(f"{path}: its slices lie in {len(frames)} frames of reference; give a series with one")
    return SourceSeries(headers, found.slices, found.grid, path)


def aligned(labels: Volume, source: SourceSeries) -> Volume:
    """Return `labels` with their axes in the order of `source.grid`: (columns, rows, slices).

    Axes are permuted and flipped only. Raises GeometryError, with both geometries, where the voxels are not the same.
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
    """Return the header with what may be empty present, and without sexes, dates and times that are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they would show values of the header
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        header.decode()
        for keyword in _MAY_BE_EMPTY:
            if keyword not in header:
                setattr(header, keyword, None)
        header.SpecificCharacterSet = "ISO_IR 192"  # text was decoded above; what is made from it is UTF-8
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
            f"{name} has no {', '.join(lacking)}, which a DICOM result must refer to: export the series again with its "
            "UIDs (an anonymiser should replace them, not empty them)"
        )
