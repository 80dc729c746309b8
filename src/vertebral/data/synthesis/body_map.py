"""Bodies to paint: tissues and vertebrae on one grid, read from a whole-body label map."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.errors import ReadError
from vertebral.core.records import Box
from vertebral.core.volume import Affine, Grid, Volume
from vertebral.data.synthesis.tissues import TISSUE_ID, level_of, tissue_of
from vertebral.io.ct.read import read_labels

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class BodyMap:
    """`tissue` and `labels` (VerSe ids) are uint8 (I, J, K), axes R, A, S, isotropic `spacing_mm`."""

    tissue: UInt8
    labels: UInt8
    spacing_mm: float
    affine: Affine


def load_body(path: Path, spacing_mm: float) -> BodyMap:
    """Read a whole-body label map and the `.json` of names next to it ({id: name}, also under the key `labels`).

    Id 0 is air, whatever its name. Raises ReadError if names are missing or ids exceed 255.
    """
    names_path = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    try:
        names = json.loads(names_path.read_text(encoding="utf-8"))
        table = {int(key): str(name) for key, name in names.get("labels", names).items() if int(key)}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ReadError(f"{path}: a body map needs its names in {names_path.name} next to it ({error})") from None
    labels_on_disk = read_labels(path)
    unnamed = sorted({int(v) for v in np.unique(labels_on_disk.array)} - {0, *table})
    if unnamed or max(table, default=0) > 255:
        raise ReadError(f"{path}: ids {unnamed or max(table)} have no name in {names_path.name}, or exceed 255")
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
    return BodyMap(_keep_trunk(tissue, labels), labels, spacing_mm, volume.affine)


def spine_box(body: BodyMap, margin_mm: float, ids: Sequence[int] = ()) -> Box:
    """Return the box around the levels of `body` (only `ids`, if it has any) and a margin of `margin_mm`, within it."""
    found = {v: box for v, box in enumerate(ndimage.find_objects(body.labels), start=1) if box is not None}
    boxes = [box for v, box in found.items() if v in ids] or list(found.values())
    margin = round(margin_mm / body.spacing_mm)
    parts = []
    for axis, size in enumerate(body.labels.shape):
        low = min((box[axis].start for box in boxes), default=0) - margin
        high = max((box[axis].stop for box in boxes), default=size) + margin
        parts.append(slice(max(0, low), min(size, high)))
    return parts[0], parts[1], parts[2]


def cropped(body: BodyMap, box: Box) -> BodyMap:
    """Return `body` cropped to `box`, in the same world frame."""
    affine = Grid(body.labels.shape, body.affine).cropped(box).affine
    return BodyMap(body.tissue[box], body.labels[box], body.spacing_mm, affine)


def with_cortex(body: BodyMap) -> BodyMap:
    """Turn the outermost voxels of each bone (per vertebra) into cortex."""
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
    return BodyMap(tissue, body.labels, body.spacing_mm, body.affine)


def _nearest(volume: Volume, spacing_mm: float) -> Volume:
    grid = volume.grid.resampled(spacing_mm)
    index = [
        np.rint(np.arange(n) * spacing_mm / s).astype(int).clip(0, old - 1)
        for n, s, old in zip(grid.shape, volume.spacing_mm, volume.array.shape, strict=True)
    ]
    return Volume(volume.array[np.ix_(*index)], grid.affine)


def _clothe(tissue: UInt8) -> UInt8:
    """Add a body to a map of organs alone: muscle near its structures, then a rim of fat."""
    occupied = tissue > 0
    small = occupied[::3, ::3, ::3]
    # Padded by as much as closing erodes: the body continues beyond the border of the scan.
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
    """Replace by air whatever is not connected to the trunk in an axial slice through the spine: the hanging arms."""
    trunk = tissue.copy()
    for k in np.flatnonzero(labels.any((0, 1))):
        parts, _ = ndimage.label(tissue[:, :, k] > 0)
        keep = np.unique(parts[labels[:, :, k] > 0])
        trunk[:, :, k][~np.isin(parts, keep)] = 0
    return trunk
