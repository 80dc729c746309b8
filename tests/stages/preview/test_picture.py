from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vertebral.core.anatomy import BY_NAME, BY_VERSE_ID
from vertebral.core.errors import GeometryError, RenderError
from vertebral.core.records import Surface
from vertebral.core.volume import Volume
from vertebral.stages.preview import picture as preview_picture
from vertebral.stages.preview import preview
from vertebral.stages.preview.picture import _spread
from vertebral.stages.preview.rendering import Picture, View
from vertebral.stages.reconstruct import surface_from_mask

AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])


def small_case() -> tuple[Volume, Volume, list[Surface]]:
    labels = np.zeros((24, 20, 18), np.uint8)
    for n, verse_id in enumerate((20, 19, 18)):
        labels[8:16, 6:14, 2 + 5 * n : 6 + 5 * n] = verse_id
    scan = Volume(np.where(labels > 0, 600, 0).astype(np.int16), AFFINE)
    surfaces = [surface_from_mask(labels == verse_id, AFFINE, BY_VERSE_ID[verse_id]) for verse_id in (18, 19, 20)]
    return scan, Volume(labels, AFFINE), surfaces


def no_renderer(surfaces: Sequence[Surface], views: Sequence[View]) -> tuple[Picture, ...]:
    raise RenderError("no EGL")


def red_renderer(surfaces: Sequence[Surface], views: Sequence[View]) -> tuple[Picture, ...]:
    return tuple(np.full((view.size_px[1], view.size_px[0], 3), (201, 3, 3), np.uint8) for view in views)


def drawn(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (1800, 1000)
        return np.asarray(image.convert("RGB")).astype(int)


def has_colour(picture: np.ndarray, rgb: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture - rgb).max(axis=2) <= 1).any())


@pytest.fixture(autouse=True)
def _quick_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_picture, "render", red_renderer)


def test_every_level_is_contoured_in_its_colour_in_both_slices(tmp_path: Path) -> None:
    preview(*small_case(), tmp_path / "preview.png", "a scan")
    picture = drawn(tmp_path / "preview.png")
    for name in ("T11", "T12", "L1"):
        assert has_colour(picture[:, :446], BY_NAME[name].rgb)
        assert has_colour(picture[:, 446:895], BY_NAME[name].rgb)
    assert has_colour(picture[:, 900:], (201, 3, 3))


def test_without_a_renderer_the_surfaces_are_drawn_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_picture, "render", no_renderer)
    preview(*small_case(), tmp_path / "preview.png", "a scan")
    picture = drawn(tmp_path / "preview.png")
    for columns in (slice(900, 1340), slice(1346, 1790)):
        panel = picture[120:900, columns]
        assert (panel.max(axis=2) > 100).mean() > 0.1


@pytest.mark.parametrize("axcodes", ["LPS", "SAR"])
def test_the_picture_does_not_depend_on_the_orientation_of_the_arrays(tmp_path: Path, axcodes: str) -> None:
    scan, labels, surfaces = small_case()
    scan.array[20:, 15:, 14:] = 900
    preview(scan, labels, surfaces, tmp_path / "ras.png", "a scan")
    preview(scan.reoriented(axcodes), labels.reoriented(axcodes), surfaces, tmp_path / "other.png", "a scan")
    assert (drawn(tmp_path / "ras.png") == drawn(tmp_path / "other.png")).all()


def test_without_labels_there_are_slices_and_a_sentence(tmp_path: Path) -> None:
    scan, labels, _ = small_case()
    nothing = Volume(np.zeros_like(labels.array), AFFINE)
    preview(scan, nothing, [], tmp_path / "preview.png", "an empty scan with a title that has no end " * 5)
    picture = drawn(tmp_path / "preview.png")
    assert picture[88:948, :895].max() > 150
    assert picture[500:540, 1200:1500].max() > 200  # "no vertebrae found"


def test_float_scans_and_thin_volumes_are_drawn(tmp_path: Path) -> None:
    labels = np.zeros((3, 40, 1), np.uint8)
    labels[1, 10:20] = 20
    scan = Volume(np.linspace(-2000, 4000, labels.size).reshape(labels.shape), AFFINE)
    preview(scan, Volume(labels, AFFINE), [], tmp_path / "preview.png", "thin")
    assert has_colour(drawn(tmp_path / "preview.png"), BY_NAME["L1"].rgb)


def test_labels_on_another_grid_are_refused(tmp_path: Path) -> None:
    scan, labels, surfaces = small_case()
    with pytest.raises(GeometryError, match="do not share a grid"):
        preview(scan, Volume(labels.array, np.eye(4)), surfaces, tmp_path / "preview.png", "a scan")
    assert list(tmp_path.iterdir()) == []


def test_names_are_spread_as_little_as_needed() -> None:
    assert _spread(np.array([0.0, 50, 100]), 16).tolist() == [0, 50, 100]
    assert _spread(np.array([10.0, 10, 100]), 16).tolist() == [2, 18, 100]
    assert _spread(np.array([]), 16).tolist() == []
