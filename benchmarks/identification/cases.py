"""The maps that the benchmark corrupts: on an isotropic RAS grid, unchanged or with one vertebra more or less."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import BY_NAME, BY_VERSE_ID, Level, sort_levels
from vertebral.core.errors import InputError
from vertebral.core.volume import Grid, Volume
from vertebral.io.ct.image_header import IMAGE_SUFFIXES, suffix_of
from vertebral.io.ct.read import read_labels
from vertebral.stages.preprocess import prepare_labels

Labels = NDArray[np.uint8]
SPACING_MM = 1.5
_MARGIN_VOXELS = 4
# Added on each side, so that nothing leaves the array when it moves by a vertebra.
_PADDING_VOXELS = (round(40 / SPACING_MM), round(40 / SPACING_MM), round(60 / SPACING_MM))


@dataclass(frozen=True)
class Case:
    """The `truth` and what a network `claims`: VerSe ids, uint8 (I, J, K), on one isotropic RAS grid with `affine`.

    `open_top` and `open_bottom`: the field of view extends beyond the outermost vertebra; otherwise it cuts it.
    """

    name: str
    truth: Labels
    claims: Labels
    affine: NDArray[np.float64]
    open_top: bool
    open_bottom: bool

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of the truth, from head to tail."""
        return sort_levels(BY_VERSE_ID[int(value)] for value in np.unique(self.truth) if value)

    def volume(self, array: Labels) -> Volume:
        """Return `array` as a volume on the grid of this case."""
        return Volume(array, self.affine)


def find_maps(sources: list[Path]) -> list[Path]:
    """Return the label maps among files and folders. Raises InputError if a source is missing or has none."""
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = [path for path in sorted(source.rglob("*")) if suffix_of(path, IMAGE_SUFFIXES)]
            inside = [path for path in inside if "_ct." not in path.name]
        elif source.exists():
            inside = [source]
        else:
            raise InputError(f"{source}: no such file or folder; give label maps with VerSe ids, or folders of them")
        if not inside:
            raise InputError(f"{source}: contains no label maps (NIfTI, NRRD or MetaImage); give another folder")
        found += inside
    return found


def load_case(path: Path) -> Case:
    """Read a label map and resample it to the grid of the benchmark. Raises InputError for fewer than 3 vertebrae."""
    labels = prepare_labels(read_labels(path), SPACING_MM)
    array = np.where(labels.array == BY_NAME["coccyx"].verse_id, 0, labels.array).astype(np.uint8)
    unknown = sorted({int(value) for value in np.unique(array)} - {0, *BY_VERSE_ID})
    if unknown:
        raise InputError(
            f"{path}: label {unknown[0]} is not a VerSe id; convert the map first, with `vertebral relabel`"
        )
    if len(np.unique(array)) < 4:
        raise InputError(f"{path}: fewer than three vertebrae, too few to judge their order; give a longer spine")
    name = path.name.removesuffix(suffix_of(path, IMAGE_SUFFIXES)).removesuffix("_seg-vert_msk")
    ends = [not array[:, :, edge].any() for edge in (-1, 0)]
    return framed(Case(name, array, array, labels.affine, ends[0], ends[1]))


def framed(case: Case) -> Case:
    """Crop to the vertebrae with a small margin, but with none where the field of view cuts a vertebra."""
    boxes = ndimage.find_objects((case.truth > 0).view(np.uint8) | (case.claims > 0).view(np.uint8))
    margins = [(_MARGIN_VOXELS, _MARGIN_VOXELS)] * 2
    margins.append((_MARGIN_VOXELS * case.open_bottom, _MARGIN_VOXELS * case.open_top))
    box = tuple(slice(s.start - low, s.stop + high) for s, (low, high) in zip(boxes[0], margins, strict=True))
    pad = [(max(0, -s.start), max(0, s.stop - n)) for s, n in zip(box, case.truth.shape, strict=True)]
    inner = tuple(slice(s.start + p[0], s.stop + p[0]) for s, p in zip(box, pad, strict=True))
    affine = case.affine.copy()
    affine[:3, 3] = Grid(case.truth.shape, case.affine).to_world(np.array([s.start for s in box]))
    truth, claims = (np.ascontiguousarray(np.pad(array, pad)[inner]) for array in (case.truth, case.claims))
    return replace(case, truth=truth, claims=claims, affine=affine)


def without_t12(case: Case) -> Case | None:
    """Return the spine without T12: L1 and everything below moves up into its place. None without T10 to L2."""
    if not _has(case, "T10", "T11", "T12", "L1", "L2"):
        return None
    truth = np.where(case.truth == BY_NAME["T12"].verse_id, 0, case.truth).astype(np.uint8)
    moved = _with_lower_moved(case, truth, "L1", _centre(case, "T12") - _centre(case, "L1"))
    return framed(replace(moved, name=f"{case.name} without T12"))


def with_t13(case: Case) -> Case | None:
    """Return the spine with T12 twice; the second is T13, claimed half as T12, half as L1: networks lack its class."""
    if not _has(case, "T10", "T11", "T12", "L1", "L2"):
        return None
    return _with_one_more(case, "T12", "T13", ("T12", "L1"), _centre(case, "L1") - _centre(case, "T12"))


def with_l6(case: Case) -> Case | None:
    """Return the spine with L5 twice; the second is L6, claimed as L5, and the first is claimed half L4, half L5."""
    if not _has(case, "L2", "L3", "L4", "L5") or _has(case, "L6"):
        return None
    longer = _with_one_more(case, "L5", "L6", ("L5", "L5"), _centre(case, "L5") - _centre(case, "L4"))
    first = longer.truth == BY_NAME["L5"].verse_id
    return replace(longer, claims=_halved(longer.claims, first, ("L4", "L5")))


def _has(case: Case, *names: str) -> bool:
    return set(names) <= {level.name for level in case.levels}


def _centre(case: Case, name: str) -> NDArray[np.float64]:
    return np.asarray(np.argwhere(case.truth == BY_NAME[name].verse_id).mean(0))


def _with_one_more(case: Case, name: str, new: str, claimed: tuple[str, str], step: NDArray[np.float64]) -> Case:
    below = next((level.name for level in case.levels if level.rank > BY_NAME[new].rank), "coccyx")
    moved = _with_lower_moved(case, case.truth, below, step)
    own = _shifted(_padded(case.truth == BY_NAME[name].verse_id), step) & (moved.truth == 0)
    truth = np.where(own, BY_NAME[new].verse_id, moved.truth).astype(np.uint8)
    claims = _halved(truth, own, claimed)
    return framed(replace(moved, name=f"{case.name} with {new}", truth=truth, claims=claims))


def _halved(labels: Labels, own: NDArray[np.bool_], names: tuple[str, str]) -> Labels:
    """Give the upper half of `own` the first name and the lower half the second."""
    height = np.median(np.nonzero(own)[2])
    upper = np.arange(labels.shape[2]) > height
    ids = [BY_NAME[name].verse_id for name in names]
    return np.where(own, np.where(upper, ids[0], ids[1]), labels).astype(np.uint8)


def _with_lower_moved(case: Case, truth: Labels, first: str, step: NDArray[np.float64]) -> Case:
    """Move `first` and everything below it by `step` voxels; the moved voxels overwrite the others."""
    lower = [level.verse_id for level in case.levels if level.rank >= BY_NAME[first].rank]
    moving = np.isin(truth, lower)
    low = _shifted(_padded(np.where(moving, truth, 0)), step)
    joined = np.where(low > 0, low, _padded(np.where(moving, 0, truth))).astype(np.uint8)
    affine = case.affine.copy()
    affine[:3, 3] = Grid(case.truth.shape, case.affine).to_world(-np.array(_PADDING_VOXELS))
    return replace(case, truth=joined, claims=joined, affine=affine)


def _padded(array: NDArray[Any]) -> NDArray[Any]:
    return np.pad(array, [(n, n) for n in _PADDING_VOXELS])


def _shifted(array: NDArray[Any], step: NDArray[np.float64]) -> NDArray[Any]:
    return np.roll(array, tuple(int(n) for n in np.rint(step)), axis=(0, 1, 2))
