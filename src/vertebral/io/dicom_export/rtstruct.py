"""RT Structure Set: one region per level, as closed planar contours on the slices of the source series."""

from typing import Any, cast

import highdicom as hd
import numpy as np
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage
from scipy.ndimage import find_objects

from vertebral.core.anatomy import Level
from vertebral.core.records import Box
from vertebral.core.volume import Array, Volume
from vertebral.io.dicom_export.codes import level_code
from vertebral.io.dicom_export.contours import outlines
from vertebral.io.dicom_export.identity import Maker, algorithm, new_object
from vertebral.io.dicom_export.seg import levels_in
from vertebral.io.dicom_export.source import SourceSeries, aligned

_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"  # required here by the standard, although retired elsewhere


def make_rtstruct(labels: Volume, source: SourceSeries, maker: Maker) -> Dataset:
    """Return a structure set with a region for each level, from head to tail; see `outlines` for holes.

    Points are in patient coordinates (LPS+ mm), in the plane of the slice that the contour references, rounded to
    0.0001 mm. The data set uses implicit VR, because a contour can exceed the 64 KiB of explicit VR. Raises as
    `make_seg`.
    """
    levels = levels_in(labels)
    array = aligned(labels, source).array
    boxes = find_objects(array)
    made = new_object(source, maker, "RTSTRUCT", RTStructureSetStorage, hd.UID(), 1)
    made.OperatorsName = None
    made.StructureSetLabel = "VERTEBRAE"
    made.StructureSetName = "Vertebrae, one region each"
    made.StructureSetDate, made.StructureSetTime = made.InstanceCreationDate, made.InstanceCreationTime
    made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source)]
    made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
    for number, level in enumerate(levels, start=1):
        made.StructureSetROISequence.append(_region(number, level, source, maker))
        made.ROIContourSequence.append(_contours(number, level, array, boxes[level.verse_id - 1], source))
        made.RTROIObservationsSequence.append(_observation(number, level))
    made.ApprovalStatus = "UNAPPROVED"
    return cast(Dataset, made)


def _frame_of_reference(source: SourceSeries) -> Dataset:
    series = _item(
        SeriesInstanceUID=source.first.SeriesInstanceUID,
        ContourImageSequence=[source.reference(k) for k in range(len(source.slices))],
    )
    study = _item(
        ReferencedSOPClassUID=_DETACHED_STUDY,
        ReferencedSOPInstanceUID=source.first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=source.frame_of_reference, RTReferencedStudySequence=[study])


def _region(number: int, level: Level, source: SourceSeries, maker: Maker) -> Dataset:
    return _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=source.frame_of_reference,
        ROIName=level.name,
        ROIGenerationAlgorithm="AUTOMATIC",
        ROIDerivationAlgorithmIdentificationSequence=algorithm(maker),
    )


def _observation(number: int, level: Level) -> Dataset:
    return _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        ROIObservationLabel=level.name,
        RTROIInterpretedType="ORGAN",
        ROIInterpreter=None,
        RTROIIdentificationCodeSequence=[CodedConcept.from_code(level_code(level))],
    )


def _contours(number: int, level: Level, array: Array, box: Box, source: SourceSeries) -> Dataset:
    columns, rows, planes = box
    mask = array[box] == level.verse_id
    found: list[Dataset] = []
    for k in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
        for polygon in outlines(mask[:, :, k]):
            corners = np.add(polygon, (columns.start, rows.start))
            found.append(_contour(len(found) + 1, corners, planes.start + k, source))
    return _item(ReferencedROINumber=number, ROIDisplayColor=list(level.rgb), ContourSequence=found)


def _contour(number: int, corners: NDArray[np.integer], k: int, source: SourceSeries) -> Dataset:
    slice_ = source.slices[k]
    # Pixel corners; the centre of a pixel is at its integer index.
    along = (corners - 0.5) * slice_.pixel_mm
    points_mm = slice_.position_mm + along @ slice_.axes
    return _item(
        ContourNumber=number,
        ContourImageSequence=[source.reference(k)],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(corners),
        ContourData=[f"{value:.4f}" for value in points_mm.ravel().tolist()],
    )


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
