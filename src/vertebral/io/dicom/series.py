"""Read a CT series from DICOM files: choose its files and stack their slices. LPS is converted to RAS."""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)

from vertebral.core.errors import ReadError
from vertebral.io.ct.image_header import ImageHeader
from vertebral.io.dicom.geometry import stacked
from vertebral.io.dicom.pixels import load_slices
from vertebral.io.dicom.slices import HEADER_KEYWORDS, Slice, functional_places, numbers, slices_of, value_of

_CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_SCOUT_WORDS = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
_WITHOUT_PREAMBLE = re.compile(rb"[\x02\x08]\x00[\x00-\x18]\x00", re.DOTALL)
_HU_TYPES = ("", "HU", "HU_MOD", "US")


@dataclass(frozen=True)
class _Header:
    """A file of a CT series without its pixels; `name` is its path in the folder, for messages."""

    path: Path
    name: str
    dataset: Dataset

    @property
    def series_uid(self) -> str:
        return str(self.dataset.get("SeriesInstanceUID", "") or "")


def is_dicom(path: Path) -> bool:
    """Return True if `path` begins like a DICOM file, with or without the usual preamble."""
    return _has_preamble(path) or _WITHOUT_PREAMBLE.match(_start(path)) is not None


def _has_preamble(path: Path) -> bool:
    return _start(path)[128:] == b"DICM"


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(132)


def series_uid_of(path: Path) -> str:
    """Return the SeriesInstanceUID of one DICOM file (empty if it has none). Raises ReadError for a damaged file."""
    return _Header(path, path.name, _dataset(path, path.name)).series_uid


def open_dicom(files: Sequence[Path], root: Path, name: str, series: str | None = None) -> ImageHeader:
    """Choose the CT series among `files` (in `root`; other files are ignored), and check that it is a regular volume.

    `name` is the user's name of the folder, for the stem. `series` is a SeriesInstanceUID or the start of one. The
    array is (I, J, K) = (columns, rows, slices). Raises ReadError if there is no CT series or more than one, and if a
    slice is missing, duplicate, different from the others or cannot be decoded; GeometryError if the slices do not form
    a straight, evenly spaced stack.
    """
    headers, others = _ct_headers(files, root)
    if not headers:
        raise ReadError(f"no CT series: {_listed(others, len(files))}; give the folder of a CT series")
    chosen = _chosen(headers, series)
    for header in chosen:
        _require_hounsfield(header)
    unordered = [item for header in chosen for item in slices_of(header.path, header.name, header.dataset)]
    slices, grid, notes = stacked(unordered)
    stem, stem_notes = _safe_stem(name, chosen[0].dataset)
    paths = tuple(dict.fromkeys(item.path for item in slices))
    metadata = _metadata(chosen[0].dataset, slices)
    return ImageHeader(grid, lambda: load_slices(slices), paths, stem, notes + stem_notes, metadata, tuple(slices))


def _ct_headers(files: Sequence[Path], root: Path) -> tuple[list[_Header], Counter[str]]:
    """Return the CT slices among `files`, and the number of each other kind of DICOM file."""
    headers, others = [], Counter[str]()
    for path in files:
        if not path.is_file() or not is_dicom(path):
            continue
        name = path.relative_to(root).as_posix()
        dataset = _dataset(path, name)
        kind = _other_kind(dataset)
        if kind:
            others[kind] += 1
        else:
            headers.append(_Header(path, name, dataset))
    return headers, others


def _dataset(path: Path, name: str) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(HEADER_KEYWORDS))
    except Exception as error:  # pydicom raises many kinds for damaged files
        if not _has_preamble(path):
            return Dataset()  # a file of another format that happens to begin like DICOM
        raise ReadError(f"the DICOM file {name} is damaged ({error}): export it again or remove it") from error
    is_directory = dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    is_cut = dataset.get("SOPClassUID") in (None, *_CT_CLASSES) and not dataset.get("Modality")
    if dataset.preamble is not None and is_cut and not is_directory:
        raise ReadError(f"the DICOM file {name} is damaged (it has no Modality): export it again or remove it")
    return dataset


def _other_kind(dataset: Dataset) -> str:
    """Return what a file is if it is not a CT slice, or an empty string for a slice."""
    modality, sop_class = str(dataset.get("Modality", "") or ""), dataset.get("SOPClassUID") or None
    if modality != "CT":
        return modality or "file without modality"
    if sop_class is not None and sop_class not in _CT_CLASSES:
        return f"CT {sop_class.name}"
    is_image = "Rows" in dataset and (
        "ImagePositionPatient" in dataset or "PerFrameFunctionalGroupsSequence" in dataset
    )
    if sop_class is None and not is_image:
        return "CT without an image position"
    words = dataset.get("ImageType") or ()
    return "CT scout" if _SCOUT_WORDS.intersection([words] if isinstance(words, str) else words) else ""


def _listed(others: Counter[str], file_count: int) -> str:
    if not others:
        return f"none of the {file_count} files is DICOM"
    return "found " + ", ".join(f"{count} x {kind}" for kind, count in sorted(others.items()))


def _chosen(headers: list[_Header], wanted: str | None) -> list[_Header]:
    """Return the headers of the series `wanted`, or of the only one."""
    groups: dict[str, list[_Header]] = {}
    for header in headers:
        groups.setdefault(header.series_uid, []).append(header)
    if wanted is None and len(groups) == 1:
        return headers
    table = "; ".join(_described(uid, group) for uid, group in sorted(groups.items()))
    if wanted is None:
        raise ReadError(f"{len(groups)} CT series: choose one with --series UID (or the start of one): {table}")
    found = [uid for uid in groups if uid == wanted] or [uid for uid in groups if uid.startswith(wanted)]
    if len(found) != 1:
        problem = "matches no series" if not found else f"matches {len(found)} series"
        raise ReadError(f"--series {wanted} {problem}: choose one with --series UID: {table}")
    return groups[found[0]]


def _described(uid: str, group: list[_Header]) -> str:
    """Describe a series without its free text, which can contain names."""
    first = group[0].dataset
    places = functional_places(first, 0)
    count = sum(int(header.dataset.get("NumberOfFrames", 1) or 1) for header in group)
    spacing = " x ".join(f"{n:g}" for n in numbers(places, "PixelSpacing", 2, group[0].name))
    thickness, kernel = value_of(places, "SliceThickness"), _text(places, "ConvolutionKernel") or "?"
    thick = "?" if thickness is None else f"{float(thickness):g}"
    return f"{uid or '(no UID)'} ({count} slices, {thick} mm thick, pixels {spacing} mm, kernel {kernel})"


def _require_hounsfield(header: _Header) -> None:
    samples = header.dataset.get("SamplesPerPixel", 1)
    if samples != 1:
        raise ReadError(
            f"slice {header.name} has {samples} samples per pixel (colours): give the CT itself, not a screenshot"
        )
    kind = _text(functional_places(header.dataset, 0), "RescaleType").upper()
    if kind not in _HU_TYPES:
        raise ReadError(f"slice {header.name} has values of type {kind}, not HU: give the series in Hounsfield units")


def _safe_stem(name: str, dataset: Dataset) -> tuple[str, tuple[str, ...]]:
    """Return a file stem from the folder's `name`, or one without it if it contains the patient's name or id."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._").removesuffix("_ct") or "ct"
    identity = " ".join(str(dataset.get(keyword, "") or "") for keyword in ("PatientName", "PatientID"))
    words = [word.lower() for word in re.split(r"[^0-9A-Za-z]+", identity) if len(word) >= 3]
    removed = str(dataset.get("PatientIdentityRemoved", "") or "").upper() == "YES"
    if removed or not any(word in name.lower() for word in words):
        return stem, ()
    uid = str(dataset.get("SeriesInstanceUID", "") or "")
    stem = "ct_" + hashlib.sha256(uid.encode()).hexdigest()[:8]
    return stem, (f"the folder name contains the patient's name or id: results are named {stem} instead",)


def _text(places: Sequence[Dataset], keyword: str) -> str:
    value = value_of(places, keyword)
    if value is None:
        return ""
    return value if isinstance(value, str) else " ".join(map(str, value)) if hasattr(value, "__iter__") else str(value)


def _metadata(dataset: Dataset, slices: Sequence[Slice]) -> dict[str, Any]:
    """Return technical facts only: no names, ids, dates or UIDs."""
    places = functional_places(dataset, 0)
    thickness, kvp = value_of(places, "SliceThickness"), value_of(places, "KVP")
    return {
        "format": "DICOM",
        "modality": "CT",
        "slices": len(slices),
        "manufacturer": _text(places, "Manufacturer"),
        "model": _text(places, "ManufacturerModelName"),
        "kernel": _text(places, "ConvolutionKernel"),
        "kvp": None if kvp is None else float(kvp),
        "slice_thickness_mm": None if thickness is None else float(thickness),
    }
