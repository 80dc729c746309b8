"""Pictures of single cases: overlays with errors in colour, and an example with rendered spines."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vertebral.core.anatomy import BY_VERSE_ID, Level
from vertebral.core.errors import RenderError, VertebralError
from vertebral.core.records import Surface
from vertebral.core.volume import Grid, Volume
from vertebral.evaluation.pair import LabelMapPair, read_pair
from vertebral.evaluation.pairing import CasePaths
from vertebral.evaluation.settings import Settings
from vertebral.io.ct.read import read_scan
from vertebral.stages.preview.comparison import Compared, cut_to_labels, draw_comparison, draw_figure
from vertebral.stages.preview.rendering import Picture, lateral_and_posterior, render, render_plainly
from vertebral.stages.reconstruct.contour import contour, low_passed

_AIR_HU = -200
_MARGIN_MM = 25.0
_RENDERED_PX = (360, 720)


def draw_case(paths: CasePaths, settings: Settings, title: str, subtitle: str, path: Path) -> str | None:
    """Draw CT, reference, prediction and errors to `path`; return why the CT is missing, or None."""
    compared, why = _compared(paths, settings)
    draw_comparison(compared, title, subtitle, path)
    return why


def draw_example(paths: CasePaths, settings: Settings, title: str, path: Path) -> None:
    """Draw input, reference, prediction and both spines in 3D, seen from the left, to `path`."""
    compared, _ = _compared(paths, settings)
    rendered = [_rendered(volume, compared.reference) for volume in (compared.reference, compared.prediction)]
    draw_figure(compared, rendered, title, path)


def _compared(paths: CasePaths, settings: Settings) -> tuple[Compared, str | None]:
    assert paths.prediction is not None
    pair = read_pair(paths.prediction, paths.reference, settings)
    box, grid = _wider(pair)
    reference, prediction = (_placed(labels, pair, box, grid) for labels in (pair.reference, pair.predicted))
    ct, why = _ct(paths, grid)
    return cut_to_labels(ct, reference, prediction), why


def _wider(pair: LabelMapPair) -> tuple[tuple[slice, slice, slice], Grid]:
    """Return the box of the labels within a grid with a margin around them, and that grid."""
    margin = [int(np.ceil(_MARGIN_MM / mm)) for mm in pair.grid.spacing_mm]
    affine = pair.grid.affine.copy()
    affine[:3, 3] = pair.grid.to_world(-np.array(margin))
    shape = tuple(n + 2 * extra for n, extra in zip(pair.grid.shape, margin, strict=True))
    i, j, k = (slice(extra, extra + n) for n, extra in zip(pair.grid.shape, margin, strict=True))
    return (i, j, k), Grid((shape[0], shape[1], shape[2]), affine)


def _placed(labels: np.ndarray, pair: LabelMapPair, box: tuple[slice, slice, slice], grid: Grid) -> Volume:
    array = np.zeros(grid.shape, np.uint8)
    array[box] = labels
    return Volume(array, grid.affine)


def _ct(paths: CasePaths, grid: Grid) -> tuple[Volume, str | None]:
    """Return the CT on `grid`, whose voxels must coincide with its own, and why it is missing; air outside it."""
    array = np.full(grid.shape, _AIR_HU, np.int16)
    if paths.ct is None:
        return Volume(array, grid.affine), "no CT given"
    try:
        scan = read_scan(paths.ct).volume.to_ras()
    except VertebralError as error:
        return Volume(array, grid.affine), str(error)
    start = scan.grid.to_voxel(grid.to_world(np.zeros(3)))
    first = np.rint(start).astype(int)
    if np.abs(start - first).max() > 0.05 or not np.allclose(scan.affine[:3, :3], grid.affine[:3, :3], atol=1e-3):
        return Volume(array, grid.affine), f"{paths.ct.name} is not on the grid of the reference"
    low = np.maximum(first, 0)
    high = np.minimum(first + grid.shape, scan.array.shape)
    inner = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
    array[inner] = np.clip(scan.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], -1024, 3071)
    return Volume(array, grid.affine), None


def _rendered(labels: Volume, frame: Volume) -> Picture | None:
    """Render the spine from the left at the scale of `frame`; None without a vertebra."""
    surfaces, framing = _surfaces(labels), _surfaces(frame)
    if not surfaces:
        return None
    view = lateral_and_posterior(framing or surfaces, _RENDERED_PX)[0]
    try:
        return render(surfaces, [view])[0]
    except RenderError:
        return render_plainly(surfaces, view)


def _surfaces(labels: Volume) -> Sequence[Surface]:
    """Make quick surfaces, good enough for a picture."""
    surfaces = []
    for value in np.unique(labels.array):
        if value:
            surfaces.append(_surface(labels, BY_VERSE_ID[int(value)]))
    return surfaces


def _surface(labels: Volume, level: Level) -> Surface:
    mask = labels.array == level.verse_id
    box = tuple(slice(int(hit.min()), int(hit.max()) + 1) for hit in np.nonzero(mask))
    field = np.pad(mask[box].astype(np.float32), 1)
    vertices, faces = contour(field)
    start = np.array([side.start - 1 for side in box])
    points = labels.grid.to_world(vertices + start)
    return Surface(level, low_passed(points, faces, 20, 0.05), faces)
