"""Encapsulated STL: a surface in a DICOM object, in the frame of reference of the CT."""

from collections.abc import Sequence
from typing import cast

import highdicom as hd
import numpy as np
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedSTLStorage, ExplicitVRLittleEndian

from vertebral.core.about import DISCLAIMER
from vertebral.core.records import Surface
from vertebral.io.dicom_export.identity import Maker, algorithm, new_object
from vertebral.io.dicom_export.source import SourceSeries
from vertebral.io.meshes import stl_bytes

_CT_MODEL = Code("85040-4", "LN", "CT 3D CAM model")
_MILLIMETRE = Code("mm", "UCUM", "mm")


def make_stls(surfaces: Sequence[Surface], source: SourceSeries, maker: Maker) -> list[Dataset]:
    """Return one object per surface, all in one series and one model group; vertices are converted to LPS+ mm."""
    series_uid, group_uid = hd.UID(), hd.UID()
    return [
        _encapsulated(surface, source, maker, series_uid, group_uid, number)
        for number, surface in enumerate(surfaces, start=1)
    ]


def _encapsulated(
    surface: Surface, source: SourceSeries, maker: Maker, series_uid: str, group_uid: str, number: int
) -> Dataset:
    made = new_object(source, maker, "M3D", EncapsulatedSTLStorage, series_uid, number)
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.AcquisitionDateTime = None
    made.BurnedInAnnotation = "NO"
    made.DocumentTitle = f"Surface of {surface.name}"
    made.ConceptNameCodeSequence = [CodedConcept.from_code(_CT_MODEL)]
    made.MIMETypeOfEncapsulatedDocument = "model/stl"
    content = stl_bytes(surface, "LPS")
    made.EncapsulatedDocument, made.EncapsulatedDocumentLength = content + b"\0" * (len(content) % 2), len(content)
    made.SourceInstanceSequence = [source.reference(k) for k in _slices_of(surface, source)]
    series = Dataset()
    series.SeriesInstanceUID = source.first.SeriesInstanceUID
    series.ReferencedInstanceSequence = [source.reference(k) for k in _slices_of(surface, source)]
    made.ReferencedSeriesSequence = [series]
    made.MeasurementUnitsCodeSequence = [CodedConcept.from_code(_MILLIMETRE)]
    made.ModelModification, made.ModelMirroring = "NO", "NO"
    made.ModelGroupUID = group_uid
    made.ContentDescription = f"{surface.name}. {DISCLAIMER}"
    made.DerivationAlgorithmSequence = algorithm(maker)
    made.RecommendedDisplayCIELabValue = list(hd.color.CIELabColor.from_rgb(*surface.level.rgb).value)
    return cast(Dataset, made)


def _slices_of(surface: Surface, source: SourceSeries) -> list[int]:
    """Return the slices that the surface intersects, or the nearest one."""
    along = source.grid.to_voxel(surface.vertices_mm)[:, 2]
    first, last = (int(n) for n in np.rint(np.clip((along.min(), along.max()), 0, len(source.slices) - 1)))
    return list(range(first, last + 1))
