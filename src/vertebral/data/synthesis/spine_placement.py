"""Place the vertebrae of a label map in a whole-body map."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vertebral.core.anatomy import BY_NAME, BY_VERSE_ID
from vertebral.core.errors import ReadError
from vertebral.core.volume import Affine, Volume
from vertebral.data.synthesis.body_map import BodyMap, UInt8
from vertebral.data.synthesis.body_warp import bend_to_spine
from vertebral.data.synthesis.tissues import TISSUE_ID


def place_in_body(subject: Volume, body: BodyMap) -> BodyMap:
    """Put a vertebra-only label map into `body`, which is bent to match the spine of the subject (`body_warp`).

    Levels that the subject lacks remain those of the body.

    Raises ReadError if `subject` has ids that are not levels, or fewer than two whole levels in common with `body`.
    """
    ras = subject.to_ras()
    unknown = sorted({int(v) for v in np.unique(ras.array)} - {0, *BY_VERSE_ID})
    if unknown:
        raise ReadError(f"label ids {unknown} are not VerSe ids: convert the label map to VerSe ids")
    own = _drop_cut_levels(ras.array)
    own_centres = _centroids_mm(own, ras.affine)
    body_centres = _centroids_mm(body.labels, body.affine)
    pairs = _matched_levels(own_centres, body_centres)
    if len(pairs) < 2:
        whole = ", ".join(BY_VERSE_ID[v].name for v in own_centres) or "none"
        raise ReadError(
            f"complete vertebrae {whole}: the body map must contain at least two of them to place the spine; "
            "choose another"
        )
    at_subject = np.array([own_centres[a] for a, _ in pairs])
    at_body = np.array([body_centres[b] for _, b in pairs])
    bent = bend_to_spine(body, at_subject, at_body)
    placed = resample_soft(own, ras.affine, bent.tissue.shape, bent.affine)
    return replace_vertebrae(bent, placed)


def resample_soft(labels: UInt8, affine: Affine, shape: tuple[int, ...], target: Affine) -> UInt8:
    """Smooth each label by half a voxel and sample it linearly, so that thick slices leave no steps."""
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


def replace_vertebrae(body: BodyMap, placed: UInt8) -> BodyMap:
    """Clear the vertebrae of the body between first and last level of the subject, then write the subject's own."""
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
    return BodyMap(tissue, labels, body.spacing_mm, body.affine)


def _drop_cut_levels(labels: NDArray[np.uint8]) -> UInt8:
    """Clear levels that touch the first or last axial slice: they are cut off."""
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
    """Return pairs of VerSe ids (subject, body) from tail to head; L6 is paired with L5 of the body, L1-L5 are not."""
    l5, l6 = BY_NAME["L5"].verse_id, BY_NAME["L6"].verse_id
    pairs = [(v, v) for v in own if v in body]
    if l6 in own and l5 in body:
        lumbar = {BY_NAME[f"L{n}"].verse_id for n in range(1, 6)}
        pairs = [*(p for p in pairs if p[0] not in lumbar), (l6, l5)]
    return sorted(pairs, key=lambda pair: own[pair[0]][2])
