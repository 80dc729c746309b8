"""Measurements in a structured report, read back item by item."""

import pydicom
import pytest

from dicom_series import Series, labels_on
from vertebral.core.anatomy import BY_NAME
from vertebral.core.measurements import MeasurementRow, Measurements, flagged, good, missing
from vertebral.io.ct.read import read_scan
from vertebral.io.dicom_export.concepts import TABLES
from vertebral.io.dicom_export.identity import Maker, save
from vertebral.io.dicom_export.seg import make_seg
from vertebral.io.dicom_export.source import read_source
from vertebral.io.dicom_export.structured_report import make_report
from vertebral.stages.measure import measure


def row(table, name, levels, **figures):
    columns = dict.fromkeys(TABLES[table], missing("not measured"))
    return MeasurementRow(name, tuple(BY_NAME[level] for level in levels), {**columns, **figures})


MEASURED = Measurements(
    vertebrae=(
        row(
            "vertebrae",
            "T12",
            ["T12"],
            volume_ml=good(31.25),
            height_anterior_mm=good(24.126789),
            core_mean_hu=good(143.5),
            wedge_sagittal_deg=flagged(3.0, ["doubtful"]),
        ),
        row("vertebrae", "L1", ["L1"], height_middle_mm=flagged(20.0, ["doubtful"])),
    ),
    gaps=(row("gaps", "T12-L1", ["T12", "L1"], disc_height_middle_mm=good(7.5)),),
    regions=(row("regions", "lumbar_lordosis_L1_L5", ["L1", "L5"], angle_deg=good(-41.0)),),
    curves=(row("curves", "curve_1", ["T8", "L2"], angle_deg=good(12.5)),),
)


@pytest.fixture
def folder(tmp_path):
    return Series().write(tmp_path / "ct")


def written(folder, tmp_path, with_seg):
    source = read_source(folder)
    seg = make_seg(labels_on(read_scan(folder).volume), source, Maker()) if with_seg else None
    save(make_report(MEASURED, source, Maker(), seg), tmp_path / "sr.dcm")
    return pydicom.dcmread(tmp_path / "sr.dcm"), seg


def groups(report):
    """Return {tracking identifier: items of the measurement group}."""
    (container,) = [i for i in report.ContentSequence if named(i) == "Imaging Measurements"]
    found = {}
    for group in container.ContentSequence:
        (name,) = [i.TextValue for i in group.ContentSequence if named(i) == "Tracking Identifier"]
        found[name] = group.ContentSequence
    return found


def named(item):
    return item.ConceptNameCodeSequence[0].CodeMeaning


def numbers(items):
    """Return {code: (value, unit)} of a group."""
    return {
        item.ConceptNameCodeSequence[0].CodeValue: (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in items
        if item.ValueType == "NUM"
    }


def sites(items):
    return [i.ConceptCodeSequence[0].CodeValue for i in items if named(i) == "Finding Site"]


@pytest.mark.parametrize("with_seg", [True, False])
def test_good_figures_come_back_and_others_do_not(folder, tmp_path, with_seg):
    found = groups(written(folder, tmp_path, with_seg)[0])
    assert set(found) == {"T12", "T12-L1", "lumbar_lordosis_L1_L5", "curve_1"}
    assert numbers(found["T12"]) == {
        "118565006": (31.25, "cm3"),
        "height_ant": (24.127, "mm"),
        "core_mean": (143.5, "[hnsf'U]"),
    }
    assert numbers(found["T12-L1"]) == {"disc_height_mid": (7.5, "mm")}
    assert numbers(found["lumbar_lordosis_L1_L5"]) == {"region_angle": (-41.0, "deg")}
    assert numbers(found["curve_1"]) == {"285285000": (12.5, "deg")}


def test_levels_are_finding_sites(folder, tmp_path):
    found = groups(written(folder, tmp_path, False)[0])
    assert sites(found["T12"]) == ["23215003"]
    assert sites(found["T12-L1"]) == ["23215003", "66794005"]


def test_vertebrae_refer_to_their_segments(folder, tmp_path):
    report, seg = written(folder, tmp_path, True)
    (image,) = [i for i in groups(report)["T12"] if i.ValueType == "IMAGE"]
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID
    assert image.ReferencedSOPSequence[0].ReferencedSegmentNumber == 1


def test_what_the_header_says(folder, tmp_path):
    report, _ = written(folder, tmp_path, False)
    assert report.SOPClassUID.name == "Comprehensive SR Storage"
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99VERTEBRAL"
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert len(evidence.ReferencedSOPSequence) == 9


def test_concepts_name_columns_of_measure(folder):
    """Each concept stands for a column that is there, with the column's own unit."""
    measured = measure(labels_on(read_scan(folder).volume))
    units = {"ml": "cm3", "cm2": "cm2", "mm": "mm", "deg": "deg", "hu": "[hnsf'U]", "percent": "%"}
    for table, rows in measured.tables.items():
        for column, concept in TABLES[table].items():
            assert column in rows[0].figures
            assert len(concept.name.value) <= 16
            assert len(concept.name.meaning) <= 64
            assert concept.unit.value == units.get(column.rpartition("_")[2], "{ratio}")


def test_codes_are_used_once():
    names = [concept.name.value for table in TABLES.values() for concept in table.values()]
    assert len(set(names)) == len(names)
