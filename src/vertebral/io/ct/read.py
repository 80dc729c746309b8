"""Read a CT or a label map from a path: find the format, refuse what is not a CT, name the file in every error."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

from vertebral.core.errors import GeometryError, ReadError
from vertebral.core.records import Scan
from vertebral.core.volume import Grid, Volume
from vertebral.io.ct.archive import extracted
from vertebral.io.ct.hounsfield import to_hounsfield, to_labels
from vertebral.io.ct.image_header import IMAGE_SUFFIXES, NIFTI_SUFFIXES, ImageHeader, stem_of, suffix_of
from vertebral.io.ct.itk import open_itk
from vertebral.io.ct.nifti import open_nifti
from vertebral.io.dicom.series import is_dicom, open_dicom, series_uid_of
from vertebral.runtime.hashing import files_sha256

_WORKING_BYTES_PER_VOXEL = 12

_LEAST_SPACING_MM, _MOST_SPACING_MM = 0.02, 20.0
_FORMATS = (
    "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), a DICOM folder, or a zip of one of these"
)


def working_memory_gb(grid: Grid) -> float:
    """Estimate the memory to process an image of `grid`: 12 bytes per voxel, in GB (1e9 bytes)."""
    return prod(grid.shape) * _WORKING_BYTES_PER_VOXEL / 1e9


def read_scan(
    path: Path,
    series: str | None = None,
    max_memory_gb: float | None = None,
    need_gb: Callable[[Grid], float] = working_memory_gb,
) -> Scan:
    """Read a CT in HU on its own grid, from NIfTI, NRRD, MetaImage, DICOM (folder or one file of it), or a zip of one.

    If a DICOM folder contains several CT series, `series` selects one by its SeriesInstanceUID or the start of it; the
    path of one file selects its series too. The array is (I, J, K) int16, or float32 if HU are not whole. `sha256` is
    over the bytes of the file; with a detached header, over its data too; for DICOM, over the files of the series in
    the order of the stack. Before any values are read, the result of `need_gb` is compared with `max_memory_gb` (1 GB =
    1e9 bytes), or with the free memory if that is None.

    Raises ReadError if this is not a CT that can be read faithfully, and GeometryError for an invalid grid.
    """
    path = Path(path)
    with image_header(path, series) as header:
        _require_plausible(header.grid)
        _require_memory(header.grid, max_memory_gb, need_gb(header.grid))
        array, notes = to_hounsfield(header.load())
        sha256 = files_sha256(_files(path, header))
        volume = Volume(array, header.grid.affine)
        return Scan(volume, path, sha256, header.stem, (*header.notes, *notes), header.metadata)


def read_sha256(path: Path, series: str | None = None) -> str:
    """Return the `sha256` of `read_scan` without reading values. Raises as `read_scan` does for a header."""
    with image_header(path, series) as header:
        return files_sha256(_files(path, header))


def read_labels(path: Path) -> Volume:
    """Read a label map on its own grid from NIfTI, NRRD or MetaImage: (I, J, K) uint8, uint16 if a label is over 255.

    Raises ReadError for another format, for values that are negative, not whole or above 65535, and for more than three
    axes; GeometryError for an invalid grid.
    """
    path = Path(path)
    with _named(path):
        if path.is_file() and not suffix_of(path, IMAGE_SUFFIXES):
            raise ReadError(f"label maps are read from {', '.join(IMAGE_SUFFIXES)}: convert it to one of these")
        with _header_of(path, None) as header:
            _require_plausible(header.grid)
            _require_memory(header.grid, None, working_memory_gb(header.grid))
            return Volume(to_labels(header.load()), header.grid.affine)


def read_geometry(path: Path) -> Grid:
    """Read shape and affine from the header of any image that `read_scan` accepts, without checking values.

    Raises ReadError for an unreadable header, and GeometryError for an invalid grid.
    """
    with image_header(path) as header:
        _require_plausible(header.grid)
        return header.grid


def _files(path: Path, header: ImageHeader) -> tuple[Path, ...]:
    """Return the files that identify a scan: all files of the image, or the zip file itself."""
    return (path,) if suffix_of(path) == ".zip" else header.files


@contextmanager
def image_header(path: Path, series: str | None = None) -> Iterator[ImageHeader]:
    """Yield the header of any image that `read_scan` accepts; unpacked files exist until the end of the block.

    Raises ReadError for an unreadable header, and GeometryError for an invalid grid.
    """
    with _named(path), _header_of(path, series) as header:
        yield header


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the path before the message of an error, and the message on one line."""
    try:
        yield
    except (ReadError, GeometryError) as error:
        raise type(error)(f"{path}: {' '.join(str(error).split())}") from error
    except PermissionError as error:
        raise ReadError(
            f"{path}: no permission to read {error.filename}: change its permissions or its owner"
        ) from error


@contextmanager
def _header_of(path: Path, series: str | None) -> Iterator[ImageHeader]:
    """Read the header with the reader for this path; unpacked files exist until the end of the block."""
    if not path.exists():
        raise ReadError("no such file or folder: check the path")
    if path.is_dir():
        yield _open_folder(path, path.resolve().name, series)
    elif path.stat().st_size == 0:
        raise ReadError("the file is empty: copy or export it again")
    elif suffix_of(path) == ".zip":
        with extracted(path) as folder:
            yield _open_folder(folder, stem_of(path), series)
    elif suffix_of(path, IMAGE_SUFFIXES):
        yield _open_image(path, series)
    elif is_dicom(path):
        siblings = sorted(other for other in path.parent.iterdir() if other.is_file())
        yield open_dicom(siblings, path.parent, path.resolve().parent.name, series or series_uid_of(path))
    else:
        raise ReadError(f"not a supported image: give {_FORMATS}")


def _open_image(path: Path, series: str | None) -> ImageHeader:
    if series is not None:
        raise ReadError(f"--series {series} applies only to DICOM: omit it")
    return open_nifti(path) if suffix_of(path, NIFTI_SUFFIXES) else open_itk(path)


def _open_folder(folder: Path, name: str, series: str | None) -> ImageHeader:
    """Read the header of the CT series, or else of the only image file, in `folder`, which the user calls `name`."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and "__MACOSX" not in file.parts)
    if not files:
        raise ReadError("the folder is empty: give the folder of a CT series")
    images = [file for file in files if suffix_of(file, IMAGE_SUFFIXES) and not file.name.startswith(".")]
    if not images or any(is_dicom(file) for file in files):
        return open_dicom(files, folder, name, series)
    if len(images) > 1:
        shown = _some_names(images, folder)
        raise ReadError(
            f"no DICOM, but {len(images)} images ({shown}): give one of these files, or add --jobs to run all"
        )
    header = _open_image(images[0], series)
    return ImageHeader(header.grid, header.load, header.files, stem_of(Path(name)), header.notes, header.metadata)


def _some_names(files: Sequence[Path], folder: Path) -> str:
    names = [file.relative_to(folder).as_posix() for file in files]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _require_plausible(grid: Grid) -> None:
    if min(grid.spacing_mm) < _LEAST_SPACING_MM or max(grid.spacing_mm) > _MOST_SPACING_MM:
        spacing = " x ".join(f"{mm:g}" for mm in grid.spacing_mm)
        limits = f"{_LEAST_SPACING_MM:g} to {_MOST_SPACING_MM:g} mm"
        raise GeometryError(
            f"spacing {spacing} mm is outside the range of a patient CT ({limits}): check that the header is in mm"
        )


def _require_memory(grid: Grid, max_memory_gb: float | None, need_gb: float) -> None:
    have_gb = free_memory_gb() if max_memory_gb is None else max_memory_gb
    if have_gb is not None and need_gb > have_gb:
        size = " x ".join(map(str, grid.shape))
        limit = "are free" if max_memory_gb is None else "are allowed"
        raise ReadError(
            f"{size} voxels need about {need_gb:.2g} GB of memory, but only {have_gb:.2g} GB {limit}: "
            "crop the scan to the spine or use a machine with more memory"
        )


def free_memory_gb() -> float | None:
    """Return the memory still available to a process, by the system or its container (cgroup v2); None if unknown."""
    free = [_meminfo_available(Path("/proc/meminfo")), _cgroup_available(Path("/sys/fs/cgroup"))]
    known = [number for number in free if number is not None]
    if not known:
        names = getattr(os, "sysconf_names", {})
        if "SC_AVPHYS_PAGES" not in names:
            return None
        known = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return min(known) / 1e9


def _meminfo_available(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _cgroup_available(folder: Path) -> int | None:
    """Return the limit minus the use of a container (cgroup v2); the file cache counts as free."""
    try:
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - used + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return None
