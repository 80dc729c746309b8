"""A prediction and its reference on one grid and in one label scheme."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_VERSE_ID, SPINE, Level, sort_levels
from vertebral.core.errors import GeometryError
from vertebral.core.label_schemes import to_verse
from vertebral.core.volume import Array, Grid, Volume
from vertebral.evaluation.settings import LEAST_SHARED, Settings
from vertebral.io.ct.read import read_labels

Labels = NDArray[np.uint8]
_VERTEBRAE = np.array([value in BY_VERSE_ID and BY_VERSE_ID[value].is_vertebra for value in range(256)])
_KEPT = np.where(_VERTEBRAE, np.arange(256), 0).astype(np.uint8)


@dataclass(frozen=True)
class LabelMapPair:
    """VerSe ids (uint8, I x J x K, RAS) of `predicted` and `reference`, cropped to the box that contains both.

    `grid` is that of the box. `cut` are the reference levels that touch a border of the whole image, `diagonal_mm` is
    its diagonal, `ignored` are the predicted levels that were left out. `one_label`: a map has a single label for the
    whole spine.
    """

    predicted: Labels
    reference: Labels
    grid: Grid
    cut: tuple[Level, ...]
    diagonal_mm: float
    ignored: tuple[Level, ...]
    one_label: bool
    notes: tuple[str, ...]


def read_pair(prediction: Path, reference: Path, settings: Settings) -> LabelMapPair:
    """Read two label maps and pair them. Raises ReadError and GeometryError with the names of the files."""
    predicted, expected = read_labels(prediction), read_labels(reference)
    try:
        return pair(predicted, expected, settings)
    except GeometryError as error:
        raise GeometryError(f"{prediction}: {error} ({reference})") from None


def pair(predicted: Volume, reference: Volume, settings: Settings) -> LabelMapPair:
    """Reorient both to RAS, convert them to VerSe ids and keep only vertebrae.

    Raises GeometryError if the grids differ and `settings.resample` is False.
    """
    notes: list[str] = []
    theirs = reference.to_ras()
    ours = predicted.to_ras()
    if not ours.grid.matches(theirs.grid):
        if not settings.resample:
            raise GeometryError(
                f"its grid ({_about(ours.grid)}) differs from that of the reference ({_about(theirs.grid)}): "
                "resample one of them, or add --resample nearest"
            )
        ours = Volume(_nearest(ours, theirs.grid), theirs.affine)
        notes.append("resampled to the grid of the reference")
    box = _box(ours.array, theirs.array)
    grid = theirs.grid.cropped(box)
    found = _vertebrae(ours.array[box], settings.scheme, "prediction", notes)
    truth = _vertebrae(theirs.array[box], settings.reference_scheme, "reference", notes)
    ignored = _outside(found, truth, grid) if settings.ignore_outside_reference else ()
    if ignored:
        found[np.isin(found, [level.verse_id for level in ignored])] = 0
    return LabelMapPair(
        found,
        truth,
        grid,
        _at_the_border(truth, box, theirs.grid.shape),
        float(np.linalg.norm(np.array(theirs.grid.shape) * theirs.spacing_mm)),
        ignored,
        bool((found == SPINE.verse_id).any() or (truth == SPINE.verse_id).any()),
        tuple(notes),
    )


def vertebrae(voxels: NDArray[np.int64]) -> tuple[Level, ...]:
    """Return the levels that have voxels, from head to tail; `voxels` (256,) are counts by VerSe id."""
    return sort_levels(BY_VERSE_ID[int(value)] for value in np.flatnonzero(voxels) if _VERTEBRAE[value])


def _about(grid: Grid) -> str:
    return f"{'x'.join(map(str, grid.shape))} at {'x'.join(f'{mm:.3g}' for mm in grid.spacing_mm)} mm"


def _vertebrae(array: Array, scheme: str, whose: str, notes: list[str]) -> Labels:
    """Return the VerSe ids of vertebrae (C order); a map in VerSe's scheme may label the spine as a whole."""
    converted = to_verse(array, scheme)
    kept = np.ascontiguousarray(_KEPT[converted.array])
    unknown = dict(converted.ignored)
    if scheme == "verse" and unknown.pop(SPINE.verse_id, 0):
        kept[array == SPINE.verse_id] = SPINE.verse_id
    if unknown:
        notes.append(f"{whose}: ignored {sum(unknown.values())} voxels whose ids are not in scheme {scheme}")
    return kept


def _nearest(labels: Volume, grid: Grid) -> Array:
    """Return the value of the nearest voxel of `labels` for each voxel of `grid`; 0 outside. Plane by plane along I."""
    to_source = np.linalg.inv(labels.affine) @ grid.affine
    result = np.zeros(grid.shape, labels.array.dtype)
    j, k = np.arange(grid.shape[1])[:, None], np.arange(grid.shape[2])[None, :]
    for i in range(grid.shape[0]):
        index, inside = [], np.ones((grid.shape[1], grid.shape[2]), bool)
        for row, length in zip(to_source[:3], labels.array.shape, strict=True):
            place = np.floor(row[0] * i + row[1] * j + row[2] * k + row[3] + 0.5 + 1e-9).astype(np.int64)
            inside &= (place >= 0) & (place < length)
            index.append(np.clip(place, 0, length - 1))
        result[i] = np.where(inside, labels.array[index[0], index[1], index[2]], 0)
    return result


def _outside(found: Labels, truth: Labels, grid: Grid) -> tuple[Level, ...]:
    """Return the predicted vertebrae above or below the whole reference that share almost no voxel with it."""
    heights = [_height_mm(truth, level, grid) for level in vertebrae(np.bincount(truth.ravel()))]
    if not heights:
        return ()
    left_out = []
    for level in vertebrae(np.bincount(found.ravel())):
        inside = found == level.verse_id
        height = _height_mm(found, level, grid)
        beyond = height > max(heights) or height < min(heights)
        if beyond and np.count_nonzero(truth[inside]) < LEAST_SHARED * np.count_nonzero(inside):
            left_out.append(level)
    return tuple(left_out)


def _height_mm(labels: Labels, level: Level, grid: Grid) -> float:
    return float(grid.to_world(np.argwhere(labels == level.verse_id).mean(0))[2])


def _box(found: Labels, truth: Labels) -> tuple[slice, slice, slice]:
    """Return the bounding box of both maps; a single voxel if both are empty."""
    sides = []
    for axis in range(3):
        others = tuple(n for n in range(3) if n != axis)
        hit = np.flatnonzero(found.any(others) | truth.any(others))
        sides.append(slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 1))
    return sides[0], sides[1], sides[2]


def _at_the_border(truth: Labels, box: tuple[slice, slice, slice], shape: tuple[int, int, int]) -> tuple[Level, ...]:
    """Return the levels on a face of the box that is also a face of the image."""
    values: set[int] = set()
    for axis, (side, length) in enumerate(zip(box, shape, strict=True)):
        faces = [edge for edge, there in ((0, side.start == 0), (-1, side.stop == length)) if there]
        for edge in faces:
            values.update(np.unique(truth.take(edge, axis)).tolist())
    return sort_levels(BY_VERSE_ID[value] for value in values if _VERTEBRAE[value])
