"""Structured report (TID 1500) of the measurements of good quality."""

from collections.abc import Mapping

import highdicom as hd
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from vertebral.core.measurements import Figure, MeasurementRow, Measurements
from vertebral.io.dicom_export.codes import ANATOMICAL_STRUCTURE, level_code
from vertebral.io.dicom_export.concepts import SCHEME, TABLES, Concept
from vertebral.io.dicom_export.identity import NAME, Maker, equipment, quiet, series_arguments
from vertebral.io.dicom_export.source import SourceSeries

_DECIMALS = 3
_PROCEDURE = codes.LN.CTUnspecifiedBodyRegion
_DEVICE_UID = "2.25.278713270943207263047434722397164113270"


def make_report(measured: Measurements, source: SourceSeries, maker: Maker, seg: Dataset | None) -> Dataset:
    """Return a comprehensive SR with one group per vertebra, gap, region and curve that has figures of quality `good`.

    Missing or flagged figures are left out, because the report cannot carry their caveats. With `seg`, made from the
    same labels, the group of each vertebra references its segment (TID 1411), otherwise only its level (TID 1501).
    """
    segments = {} if seg is None else {item.SegmentLabel: int(item.SegmentNumber) for item in seg.SegmentSequence}
    with quiet():
        groups = [
            _group(row, found, source, seg, segments.get(row.name) if table == "vertebrae" else None)
            for table, rows in measured.tables.items()
            for row in rows
            if (found := _found(row.figures, TABLES[table]))
        ]
        content = sr.MeasurementReport(
            observation_context=_observer(maker),
            procedure_reported=_PROCEDURE,
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        return sr.ComprehensiveSR(
            evidence=[*source.headers, *([] if seg is None else [seg])],
            content=content[0],
            is_complete=True,
            is_final=False,
            is_verified=False,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name="vertebral: columns of its measurements")],
            specific_character_set=source.first.SpecificCharacterSet,
            **series_arguments("SR"),
            **equipment(maker),
        )


def _found(figures: Mapping[str, Figure], concepts: Mapping[str, Concept]) -> list[sr.Measurement]:
    return [
        sr.Measurement(
            name=concept.name,
            value=round(float(figure.value), _DECIMALS),
            unit=concept.unit,
            derivation=concept.derivation,
        )
        for column, concept in concepts.items()
        if (figure := figures[column]).quality == "good" and isinstance(figure.value, int | float)
    ]


def _group(
    row: MeasurementRow, found: list[sr.Measurement], source: SourceSeries, seg: Dataset | None, segment: int | None
) -> sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    sites = [sr.FindingSite(level_code(level)) for level in row.levels]
    if seg is None or segment is None:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=hd.UID(), identifier=row.name),
            finding_category=ANATOMICAL_STRUCTURE,
            finding_sites=sites,
            measurements=found,
        )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=seg.SegmentSequence[segment - 1].TrackingUID, identifier=row.name
        ),
        referenced_segment=sr.ReferencedSegment(
            seg.SOPClassUID,
            seg.SOPInstanceUID,
            segment,
            source_series=sr.SourceSeriesForSegmentation(source.first.SeriesInstanceUID),
        ),
        finding_type=level_code(row.levels[0]),
        finding_category=ANATOMICAL_STRUCTURE,
        finding_sites=sites,
        measurements=found,
    )


def _observer(maker: Maker) -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_DEVICE_UID,
        name=NAME,
        manufacturer_name=NAME,
        model_name=NAME,
        serial_number=equipment(maker)["device_serial_number"],
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )
