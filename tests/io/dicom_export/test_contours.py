"""Outlines by hand, and against the rule that a pixel is inside exactly where its centre is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from vertebral.io.dicom_export.contours import outlines


def filled(polygons, shape):
    """Even-odd and winding number of each pixel's centre, counted along a ray to the left."""
    columns, rows = np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij")
    crossings, winding = np.zeros(shape, int), np.zeros(shape, int)
    for polygon in polygons:
        for (c, r), (c2, r2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            assert (c == c2) != (r == r2)  # along pixel edges, and never in place
            if c == c2:
                crossed = (c < columns) & (min(r, r2) < rows) & (rows < max(r, r2))
                crossings += crossed
                winding += crossed * int(np.sign(r2 - r))
    return crossings % 2, np.abs(winding)


def mask(*rows):
    """From lines of text, as seen on the screen, to (columns, rows)."""
    return np.array([[sign == "#" for sign in row] for row in rows]).T


def test_one_pixel():
    assert outlines(mask("...", ".#.", "...")) == [[(1, 1), (2, 1), (2, 2), (1, 2)]]


def test_nothing():
    assert outlines(mask("..", "..")) == []


def test_straight_runs_have_no_points_between():
    assert len(outlines(mask("####", "####"))[0]) == 4


def test_parts_that_touch_at_a_corner_are_apart():
    assert len(outlines(mask("#.", ".#"))) == 2


def test_a_hole_is_joined_by_a_channel():
    (ring,) = outlines(mask("###", "#.#", "###"))
    assert len(ring) == 4 + 4 + 3  # both outlines, both ends of the channel, and the hole's corner again
    assert ring.count((0, 1)) == 2
    assert ring.count((1, 1)) == 2


@pytest.mark.parametrize(
    "shape",
    [
        ("#####", "#.#.#", "#####"),  # two holes in a row: the second meets the first
        ("#####", "#.#.#", "##.##", "#####"),  # holes that touch at corners
        ("#####", "#...#", "#.#.#", "#...#", "#####"),  # an island in a lake
    ],
)
def test_holes(shape):
    for fill in filled(outlines(mask(*shape)), mask(*shape).shape):
        assert np.array_equal(fill, mask(*shape))


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_any_mask_is_filled_again(pixels):
    polygons = outlines(pixels)
    for fill in filled(polygons, pixels.shape):
        assert np.array_equal(fill, pixels)
    assert len(polygons) == ndimage.label(pixels)[1]
