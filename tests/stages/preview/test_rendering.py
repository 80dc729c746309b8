import sys
from typing import Any

import numpy as np
import pytest

from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import RenderError
from vertebral.core.records import Surface
from vertebral.stages.preview import rendering
from vertebral.stages.preview.rendering import BACKGROUND_RGB, lateral_and_posterior, render, render_plainly
from vertebral.stages.reconstruct import surface_from_mask

SIZE = (120, 160)


def block(name: str, low: tuple[int, int, int], high: tuple[int, int, int]) -> Surface:
    mask = np.ones([b - a for a, b in zip(low, high, strict=True)], bool)
    affine = np.eye(4)
    affine[:3, 3] = low
    return surface_from_mask(mask, affine, BY_NAME[name])


# Blue to the patient's right, in front and above; yellow to the left, behind and below.
BLUE, YELLOW = block("C2", (20, 20, 30), (32, 32, 42)), block("C3", (0, 0, 0), (12, 12, 12))


def seen(picture: np.ndarray) -> np.ndarray:
    return (picture.astype(int) != BACKGROUND_RGB).any(axis=2)


def centre_of(picture: np.ndarray, blue: bool) -> tuple[float, float]:
    red, blueness = picture[..., 0].astype(int), picture[..., 2].astype(int)
    rows, columns = np.nonzero(seen(picture) & ((blueness > red) == blue))
    return float(columns.mean()), float(rows.mean())


def test_views_frame_all_surfaces_at_one_scale() -> None:
    lateral, posterior = lateral_and_posterior([BLUE, YELLOW], SIZE)
    assert lateral.mm_per_px == posterior.mm_per_px
    for view in (lateral, posterior):
        for surface in (BLUE, YELLOW):
            pixels = view.pixels(surface.vertices_mm)
            assert (pixels[:, :2] > 0).all()
            assert (pixels[:, :2] < SIZE).all()


def test_the_lateral_view_has_anterior_on_the_left_and_the_posterior_view_right_on_the_right() -> None:
    lateral, posterior = lateral_and_posterior([BLUE, YELLOW], SIZE)
    side, back = render_plainly([BLUE, YELLOW], lateral), render_plainly([BLUE, YELLOW], posterior)
    assert side.shape == back.shape == (160, 120, 3)
    assert centre_of(side, blue=True)[0] < centre_of(side, blue=False)[0]
    assert centre_of(back, blue=True)[0] > centre_of(back, blue=False)[0]
    for picture in (side, back):
        assert centre_of(picture, blue=True)[1] < centre_of(picture, blue=False)[1]


def test_the_nearer_surface_hides_the_farther() -> None:
    near, far = block("C3", (0, 0, 0), (12, 12, 12)), block("C2", (20, 0, 0), (32, 12, 12))
    lateral, posterior = lateral_and_posterior([near, far], SIZE)
    side = render_plainly([near, far], lateral)  # seen from the left: C3 is nearer
    assert not (seen(side) & (side[..., 2].astype(int) > side[..., 0])).any()
    assert centre_of(render_plainly([near, far], posterior), blue=True)[0] > SIZE[0] / 2


def test_the_plain_renderer_leaves_no_holes_in_large_triangles() -> None:
    corners = np.array([[0.0, 0, 0], [90, 0, 0], [0, 90, 0], [0, 0, 90]])
    surface = Surface(BY_NAME["L1"], corners, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    (view, _) = lateral_and_posterior([surface], SIZE)
    covered = seen(render_plainly([surface], view))
    assert covered.sum() == pytest.approx(90 * 90 / 2 / view.mm_per_px**2, rel=0.06)
    assert (np.diff(covered.astype(int), axis=1) == 1).sum(axis=1).max() == 1


def test_vtk_and_the_plain_renderer_agree() -> None:
    views = lateral_and_posterior([BLUE, YELLOW], SIZE)
    try:
        pictures = render([BLUE, YELLOW], views)
    except RenderError as error:
        pytest.skip(f"this machine renders nothing: {error}")
    for view, picture in zip(views, pictures, strict=True):
        mine, theirs = seen(render_plainly([BLUE, YELLOW], view)), seen(picture)
        assert picture.dtype == np.uint8
        assert (mine & theirs).sum() / (mine | theirs).sum() > 0.95


def test_a_renderer_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(command: list[str], **options: Any) -> Any:
        return real_run([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"], **options)

    real_run = rendering.subprocess.run
    monkeypatch.setattr(rendering.subprocess, "run", dies)
    with pytest.raises(RenderError, match="ended with code -11"):
        render([YELLOW], lateral_and_posterior([YELLOW], SIZE))


def test_a_renderer_that_hangs_is_an_error() -> None:
    with pytest.raises(RenderError, match="did not finish"):
        render([YELLOW], lateral_and_posterior([YELLOW], SIZE), timeout_s=0.001)
