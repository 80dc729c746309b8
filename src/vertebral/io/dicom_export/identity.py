"""Identity of a DICOM object: patient, study, equipment, algorithm."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from vertebral.core.about import DISCLAIMER, __version__
from vertebral.io.dicom_export.source import SourceSeries
from vertebral.io.write import atomic_write
from vertebral.runtime.silence import silenced

NAME = "vertebral"
SERIES_NUMBERS = {"SEG": 9101, "RTSTRUCT": 9102, "M3D": 9103, "SR": 9104}


@dataclass(frozen=True)
class Maker:
    """The model that made the result; `weights_sha256` is empty if unknown."""

    model: str = "unknown"
    weights_sha256: str = ""


def equipment(maker: Maker) -> dict[str, Any]:
    """Return highdicom's arguments for the equipment; the hash of the weights serves as serial number."""
    return {
        "manufacturer": NAME,
        "manufacturer_model_name": NAME,
        "software_versions": __version__,
        "device_serial_number": maker.weights_sha256[:16] or "unknown",
    }


def algorithm(maker: Maker) -> hd.AlgorithmIdentificationSequence:
    """Return the identification of the algorithm, with the model as parameters."""
    parameters = {"model": maker.model} | ({"weights": maker.weights_sha256[:32]} if maker.weights_sha256 else {})
    return hd.AlgorithmIdentificationSequence(
        NAME, codes.DCM.ArtificialIntelligence, __version__, source=NAME, parameters=parameters
    )


def series_arguments(modality: str) -> dict[str, Any]:
    """Return highdicom's arguments for a new series with one object."""
    return {
        "series_instance_uid": hd.UID(),
        "series_number": SERIES_NUMBERS[modality],
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "series_description": f"{NAME} {modality}. {DISCLAIMER}",
    }


def new_object(source: SourceSeries, maker: Maker, modality: str, sop_class: str, series_uid: str, number: int) -> Any:
    """Return an object of the patient and study of `source`, without the attributes specific to its modality."""
    first = source.first
    with quiet():
        made = hd.base.SOPClass(
            study_instance_uid=first.StudyInstanceUID,
            modality=modality,
            sop_class_uid=sop_class,
            specific_character_set=first.SpecificCharacterSet,
            patient_id=first.PatientID,
            patient_name=first.PatientName,
            patient_birth_date=first.PatientBirthDate,
            patient_sex=first.PatientSex,
            **{**series_arguments(modality), "series_instance_uid": series_uid, "instance_number": number},
            **equipment(maker),
        )
        made.copy_patient_and_study_information(first)
    made.FrameOfReferenceUID = source.frame_of_reference
    made.PositionReferenceIndicator = first.get("PositionReferenceIndicator")
    return made


def save(dataset: Dataset, path: Path) -> None:
    """Write a DICOM file atomically. Raises InputError if the folder is not writable."""
    with atomic_write(path) as temporary, quiet():
        dataset.save_as(temporary, enforce_file_format=True)


def quiet() -> AbstractContextManager[None]:
    """Suppress warnings of pydicom and highdicom about header values, because they can contain names."""
    return silenced("highdicom", logging.CRITICAL + 1)
