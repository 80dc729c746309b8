"""Bodies to paint: tissue and level maps on one grid, and the placing of a vertebra-only label map in a body."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.anatomy import BY_NAME, BY_VERSE_ID
from vertebral.data.tissues import TISSUE_ID, level_of, tissue_of
from vertebral.errors import ReadError
from vertebral.io.read import read_labels
from vertebral.records import Box
from vertebral.volume import Affine, Grid, Volume

UInt8 = NDArray[np.uint8]
HALF_WIDTH_MM = 170.0


@dataclass(frozen=True)
class Body:
    """`tissue` and `labels` (VerSe ids) are uint8 (I, J, K), axes R, A, S, isotropic `spacing_mm`."""

    tissue: UInt8
    labels: UInt8
    spacing_mm: float
    affine: Affine


def load_body(path: Path, spacing_mm: float) -> Body:
    """Read a whole-body label map with a `.json` of names beside it ({id: name}, also under the key `labels`).

    Id 0 is air, whatever its name. Raises ReadError where names are missing or ids are above 255.
    """
    names_path = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    try:
        names = json.loads(names_path.read_text(encoding="utf-8"))
        table = {int(key): str(name) for key, name in names.get("labels", names).items() if int(key)}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ReadError(f"{path}: a body map needs {names_path.name} beside it with its names ({error})") from None
    labels_on_disk = read_labels(path)
    unnamed = sorted({int(v) for v in np.unique(labels_on_disk.array)} - {0, *table})
    if unnamed or max(table, default=0) > 255:
        raise ReadError(f"{path}: ids {unnamed or max(table)} have no name in {names_path.name}, or are above 255")
    volume = _nearest(labels_on_disk.to_ras(), spacing_mm)
    tissue_lut = np.zeros(256, np.uint8)
    label_lut = np.zeros(256, np.uint8)
    for value, name in table.items():
        tissue_lut[value] = tissue_of(name)
        level = level_of(name)
        label_lut[value] = level.verse_id if level else 0
    tissue, labels = tissue_lut[volume.array], label_lut[volume.array]
    if not (tissue == TISSUE_ID["fat"]).any():
        tissue = _clothe(tissue)
    return Body(_keep_trunk(tissue, labels), labels, spacing_mm, volume.affine)


def place_in_body(subject: Volume, body: Body) -> Body:
    """Put a vertebra-only label map into `body`, whose slices are stretched and shifted to the subject's spine.

    Each axial slice of the body moves so that its spine lies on the subject's, and slices are spread so that each
    vertebra lies at its namesake's height. Levels that the subject lacks stay the body's own.

    Raises ReadError where `subject` has ids that are no level, or fewer than two whole levels in common with `body`.
    """
    ras = subject.to_ras()
    unknown = sorted({int(v) for v in np.unique(ras.array)} - {0, *BY_VERSE_ID})
    if unknown:
        raise ReadError(f"label ids {unknown} are no VerSe levels: convert the label map to VerSe ids")
    own = _drop_cut_levels(ras.array)
    spacing = body.spacing_mm
    own_centres = _centroids_mm(own, ras.affine)
    body_centres = _centroids_mm(body.labels, body.affine)
    pairs = _matched_levels(own_centres, body_centres)
    if len(pairs) < 2:
        whole = ", ".join(BY_VERSE_ID[v].name for v in own_centres) or "none"
        raise ReadError(f"whole levels {whole}: two or more must be in the body too, for the spine to be placed in it")
    at_subject = np.array([own_centres[a] for a, _ in pairs])
    at_body = np.array([body_centres[b] for _, b in pairs])
    stretch = (at_subject[-1, 2] - at_subject[0, 2]) / (at_body[-1, 2] - at_body[0, 2])

    body_z = body.affine[2, 3] + spacing * np.arange(body.tissue.shape[2])
    z_range = np.interp(body_z[[0, -1]], at_body[:, 2], at_subject[:, 2])
    z_range[0] -= max(0.0, at_body[0, 2] - body_z[0]) * stretch
    z_range[1] += max(0.0, body_z[-1] - at_body[-1, 2]) * stretch
    z = np.arange(z_range[0], z_range[1], spacing)
    source_z = _extrapolate(z, at_subject[:, 2], at_body[:, 2], 1 / stretch)
    shift = np.stack([np.interp(z, at_subject[:, 2], at_subject[:, a] - at_body[:, a] * stretch) for a in (0, 1)])

    centre_x = float(np.median(at_subject[:, 0]))
    x = np.arange(centre_x - HALF_WIDTH_MM, centre_x + HALF_WIDTH_MM, spacing)
    depth = body.affine[1, 3] + spacing * np.array([0, body.tissue.shape[1] - 1])
    y = np.arange(depth[0] * stretch + shift[1].min(), depth[1] * stretch + shift[1].max(), spacing)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = x[0], y[0], z[0]
    tissue = np.zeros((len(x), len(y), len(z)), np.uint8)
    labels = np.zeros_like(tissue)
    for k in range(len(z)):
        plane = round((source_z[k] - body.affine[2, 3]) / spacing)
        if 0 <= plane < body.tissue.shape[2]:
            i = np.rint(((x - shift[0, k]) / stretch - body.affine[0, 3]) / spacing).astype(int)
            j = np.rint(((y - shift[1, k]) / stretch - body.affine[1, 3]) / spacing).astype(int)
            inside = ((i >= 0) & (i < body.tissue.shape[0]))[:, None] & ((j >= 0) & (j < body.tissue.shape[1]))
            window = np.ix_(i.clip(0, body.tissue.shape[0] - 1), j.clip(0, body.tissue.shape[1] - 1), [plane])
            tissue[:, :, k] = np.where(inside, body.tissue[window][:, :, 0], 0)
            labels[:, :, k] = np.where(inside, body.labels[window][:, :, 0], 0)
    placed = resample_soft(own, ras.affine, tissue.shape, affine)
    return replace_vertebrae(Body(tissue, labels, spacing, affine), placed)


def spine_box(body: Body, margin_mm: float, ids: Sequence[int] = ()) -> Box:
    """The box around the levels of `body` (those of `ids` where it has any of them) and `margin_mm` more, within it."""
    found = {v: box for v, box in enumerate(ndimage.find_objects(body.labels), start=1) if box is not None}
    boxes = [box for v, box in found.items() if v in ids] or list(found.values())
    margin = round(margin_mm / body.spacing_mm)
    parts = []
    for axis, size in enumerate(body.labels.shape):
        low = min((box[axis].start for box in boxes), default=0) - margin
        high = max((box[axis].stop for box in boxes), default=size) + margin
        parts.append(slice(max(0, low), min(size, high)))
    return parts[0], parts[1], parts[2]


def cropped(body: Body, box: Box) -> Body:
    """The part of `body` in `box`, in the same world frame."""
    affine = Grid(body.labels.shape, body.affine).cropped(box).affine
    return Body(body.tissue[box], body.labels[box], body.spacing_mm, affine)


def with_cortex(body: Body) -> Body:
    """Turn the outermost voxel of each bone (per vertebra) into cortex."""
    tissue = body.tissue.copy()
    for interior, cortex in (("bone_interior", "bone_cortex"), ("vertebra_interior", "vertebra_cortex")):
        inside = body.tissue == TISSUE_ID[interior]
        key = np.where(inside, body.labels.astype(np.int16) + 1, 0)
        edge = np.zeros(key.shape, bool)
        for axis in range(3):
            differs = np.diff(key, axis=axis) != 0
            edge |= np.pad(differs, [(0, 1) if a == axis else (0, 0) for a in range(3)])
            edge |= np.pad(differs, [(1, 0) if a == axis else (0, 0) for a in range(3)])
        tissue[inside & edge] = TISSUE_ID[cortex]
    return Body(tissue, body.labels, body.spacing_mm, body.affine)


def _nearest(volume: Volume, spacing_mm: float) -> Volume:
    grid = volume.grid.resampled(spacing_mm)
    index = [
        np.rint(np.arange(n) * spacing_mm / s).astype(int).clip(0, old - 1)
        for n, s, old in zip(grid.shape, volume.spacing_mm, volume.array.shape, strict=True)
    ]
    return Volume(volume.array[np.ix_(*index)], grid.affine)


def _clothe(tissue: UInt8) -> UInt8:
    """Give a map of organs alone a body: muscle near its structures, then a rim of fat and skin."""
    occupied = tissue > 0
    small = occupied[::3, ::3, ::3]
    # Padded by what closing erodes: a scan ends at its border, the body does not.
    closed = ndimage.binary_closing(np.pad(small, 4, mode="edge"), iterations=4)[4:-4, 4:-4, 4:-4]
    distance = ndimage.distance_transform_edt(~closed)
    hull = np.zeros(small.shape, bool)
    for k in range(small.shape[2]):
        hull[:, :, k] = ndimage.binary_fill_holes(distance[:, :, k] < 3)
    depth = ndimage.distance_transform_edt(hull)
    near = np.where(hull, np.where(depth > 3, TISSUE_ID["muscle"], TISSUE_ID["fat"]), 0).astype(np.uint8)
    near = near.repeat(3, 0).repeat(3, 1).repeat(3, 2)[: tissue.shape[0], : tissue.shape[1], : tissue.shape[2]]
    return np.where(occupied, tissue, near).astype(np.uint8)


def _keep_trunk(tissue: UInt8, labels: UInt8) -> UInt8:
    """Replace by air what an axial slice through the spine shows apart from the trunk: the hanging arms."""
    trunk = tissue.copy()
    for k in np.flatnonzero(labels.any((0, 1))):
        parts, _ = ndimage.label(tissue[:, :, k] > 0)
        keep = np.unique(parts[labels[:, :, k] > 0])
        trunk[:, :, k][~np.isin(parts, keep)] = 0
    return trunk


def _drop_cut_levels(labels: NDArray[np.uint8]) -> UInt8:
    """Clear levels that reach the first or last axial slice: their shape is not whole."""
    cut = np.union1d(labels[:, :, 0], labels[:, :, -1])
    return np.where(np.isin(labels, cut), 0, labels).astype(np.uint8)


def _centroids_mm(labels: UInt8, affine: Affine) -> dict[int, NDArray[np.float64]]:
    centres = {
        v: np.array(ndimage.center_of_mass(labels[box] == v)) + [s.start for s in box]
        for v, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None and v in BY_VERSE_ID
    }
    return {v: affine[:3, :3] @ centre + affine[:3, 3] for v, centre in centres.items()}


def _matched_levels(own: dict[int, NDArray[np.float64]], body: dict[int, NDArray[np.float64]]) -> list[tuple[int, int]]:
    """Pairs of VerSe ids (subject, body) from tail to head; L6 meets the body's L5 and L1-L5 spread between."""
    l5, l6 = BY_NAME["L5"].verse_id, BY_NAME["L6"].verse_id
    pairs = [(v, v) for v in own if v in body]
    if l6 in own and l5 in body:
        lumbar = {BY_NAME[f"L{n}"].verse_id for n in range(1, 6)}
        pairs = [*(p for p in pairs if p[0] not in lumbar), (l6, l5)]
    return sorted(pairs, key=lambda pair: own[pair[0]][2])


def _extrapolate(
    at: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], slope: float
) -> NDArray[np.float64]:
    value: NDArray[np.float64] = np.interp(at, x, y)
    return np.asarray(value + slope * (np.minimum(0, at - x[0]) + np.maximum(0, at - x[-1])))


def resample_soft(labels: UInt8, affine: Affine, shape: tuple[int, ...], target: Affine) -> UInt8:
    """Each label smoothed by half a voxel and sampled linearly, so that thick slices give no steps."""
    result = np.zeros(shape, np.uint8)
    best = np.full(shape, 0.5, np.float32)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    to_voxel = np.linalg.inv(affine[:3, :3])
    origin, step = target[:3, 3], float(target[0, 0])
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        crop = np.pad((labels[box] == value).astype(np.float32), 3)
        crop = ndimage.gaussian_filter(crop, np.maximum(0.5, 0.5 * step / spacing))
        start = np.array([s.start for s in box]) - 3.0
        corners = start + np.argwhere(np.ones((2, 2, 2))) * (np.array(crop.shape) - 1)
        world = corners @ affine[:3, :3].T + affine[:3, 3]
        low = np.maximum(0, np.floor((world.min(0) - origin) / step).astype(int))
        high = np.minimum(shape, np.ceil((world.max(0) - origin) / step).astype(int) + 1)
        if (high <= low).any():
            continue
        offset = to_voxel @ (origin + low * step - affine[:3, 3]) - start
        soft = ndimage.affine_transform(crop, to_voxel * step, offset, tuple(high - low), order=1)
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        wins = soft > best[window]
        result[window][wins] = value
        best[window][wins] = soft[wins]
    return result


def replace_vertebrae(body: Body, placed: UInt8) -> Body:
    """Clear the body's vertebrae between the subject's first and last level, then write the subject's own."""
    tissue, labels = body.tissue.copy(), body.labels.copy()
    ranks = [BY_VERSE_ID[int(v)].rank for v in np.unique(placed) if v]
    replaced = [v for v, level in BY_VERSE_ID.items() if min(ranks) <= level.rank <= max(ranks)]
    stale = np.isin(labels, replaced)
    tissue[stale] = TISSUE_ID["muscle"]
    labels[stale] = 0
    mask = placed > 0
    gap = ndimage.binary_closing(mask, iterations=4) & ~mask & (tissue != TISSUE_ID["canal"])
    rows = np.arange(mask.shape[1])[None, :, None]
    centre = (mask * rows).sum((0, 1)) / np.maximum(1, mask.sum((0, 1)))
    known = np.flatnonzero(mask.any((0, 1)))
    centre = np.interp(np.arange(mask.shape[2]), known, centre[known])
    tissue[gap] = TISSUE_ID["muscle"]
    tissue[gap & (rows > centre[None, None, :])] = TISSUE_ID["disc"]
    tissue[mask] = TISSUE_ID["vertebra_interior"]
    labels[mask] = placed[mask]
    return Body(tissue, labels, body.spacing_mm, body.affine)
