"""Pair predictions with references by their file names."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vertebral.core.errors import InputError
from vertebral.evaluation.case import FailedCase, RunRecord
from vertebral.io.ct.image_header import IMAGE_SUFFIXES, suffix_of
from vertebral.io.names import case_of, subject_of
from vertebral.io.result_folder import MANIFEST

_IMAGE_FOLDERS = {"images", "imagesTr", "imagesTs", "rawdata"}
_USUAL_ENDING = "_seg-vert_msk"


@dataclass(frozen=True)
class CasePaths:
    """The files of a case. `prediction` is None if it is missing; `ct` is used only for pictures."""

    case: str
    subject: str
    prediction: Path | None
    reference: Path
    ct: Path | None = None

    def failed(self, reason: str) -> FailedCase:
        """Return this case as failed. Folder names are removed from `reason`, because reports are passed on."""
        for path in (self.prediction, self.reference, self.ct):
            if path is not None:
                reason = reason.replace(str(path), path.name)
        return FailedCase(self.case, self.subject, reason)


def find_cases(
    prediction: Path, reference: Path, ct: Path | None = None, subject: str | None = None
) -> tuple[list[CasePaths], list[Path]]:
    """Pair the label maps of two files or folders (searched recursively) by case.

    The case is the common part of `<case>.nii.gz`, `<case>_seg-vert_msk.nii.gz`, `<case>_ct.nii.gz` and similar names.
    Two files are a pair whatever their names. `ct` defaults to the folder of the reference. `subject` is the pattern of
    `subject_of`. Returns the cases, and the predictions without a reference.

    Raises InputError if a path is missing, a folder has no label map, or two label maps belong to one case.
    """
    if reference.is_file() and prediction.is_file():
        found = {case_of(reference): prediction}
    else:
        found = _label_maps(prediction)
    expected = {case_of(reference): reference} if reference.is_file() else _label_maps(reference)
    scans = _scans(ct or (reference if reference.is_dir() else None))
    if ct is not None and ct.is_file() and len(expected) == 1:
        scans = dict.fromkeys(expected, ct)
    cases = [
        CasePaths(case, subject_of(case, subject), found.get(case), path, scans.get(case))
        for case, path in sorted(expected.items())
    ]
    return cases, [path for case, path in sorted(found.items()) if case not in expected]


def read_run(prediction: Path) -> RunRecord:
    """Read the manifest next to a prediction; an empty record if there is none that lists this file."""
    try:
        manifest = json.loads((prediction.parent / MANIFEST).read_text(encoding="utf-8"))
        if prediction.name not in {row["file"] for row in manifest["outputs"]}:
            return RunRecord()
        levels = [row for row in manifest.get("levels", ()) if row.get("confidence") is not None]
        return RunRecord(
            model=manifest.get("model", {}).get("name"),
            seconds=round(sum(manifest["seconds"].values()), 3) if manifest.get("seconds") else None,
            memory_gb=manifest.get("peak_memory_gb"),
            confidences=tuple((str(row["level"]), float(row["confidence"])) for row in levels),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return RunRecord()


def _label_maps(place: Path) -> dict[str, Path]:
    if not place.exists():
        raise InputError(f"{place}: no such file or folder; check the path")
    if place.is_file():
        return {case_of(place): place}
    found: dict[str, list[Path]] = defaultdict(list)
    for path in _images(place):
        if not _is_scan(path, place):
            found[case_of(path)].append(path)
    if not found:
        raise InputError(f"{place}: contains no label maps (NIfTI, NRRD or MetaImage); give another folder")
    return {case: _only(case, paths) for case, paths in found.items()}


def _only(case: str, paths: list[Path]) -> Path:
    usual = [path for path in paths if path.name.removesuffix(suffix_of(path, IMAGE_SUFFIXES)).endswith(_USUAL_ENDING)]
    chosen = usual or paths
    if len(chosen) > 1:
        names = ", ".join(str(path) for path in sorted(chosen)[:3])
        raise InputError(f"{len(chosen)} label maps belong to case {case} ({names}); give a folder with one per case")
    return chosen[0]


def _scans(place: Path | None) -> dict[str, Path]:
    if place is None or not place.is_dir():
        return {}
    return {case_of(path).removesuffix("_0000"): path for path in _images(place) if _is_scan(path, place)}


def _images(folder: Path) -> Iterable[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if suffix_of(path, IMAGE_SUFFIXES) and path.is_file() and not hidden:
            yield path


def _is_scan(path: Path, root: Path) -> bool:
    stem = path.name.removesuffix(suffix_of(path, IMAGE_SUFFIXES))
    return stem.endswith("_ct") or bool(_IMAGE_FOLDERS & set(path.relative_to(root).parts[:-1]))
