"""Bodies bent to columns whose points can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebral.data.synthesis.body_map import BodyMap
from vertebral.data.synthesis.body_warp import Points, bend_to_spine, thin_plate_warp


def column(heights_mm: Points, forward_mm: Points) -> Points:
    """Centroids from tail to head, (n, 3) RAS mm, in the sagittal plane x 0."""
    return np.column_stack([np.zeros_like(heights_mm), forward_mm, heights_mm])


UPRIGHT = column(np.arange(0, 241, 24.0), np.zeros(11))


def test_a_shift_shifts_all() -> None:
    warp = thin_plate_warp(UPRIGHT + np.array([30.0, -20, 500]), UPRIGHT)
    points = np.array([[0.0, 0, 0], [90, 40, 100], [-120, 130, 300], [10, 0, -200]])
    assert warp(points + np.array([30.0, -20, 500])) == pytest.approx(points, abs=1e-6)


def test_a_taller_subject_is_larger_in_all_directions() -> None:
    warp = thin_plate_warp(2 * UPRIGHT, UPRIGHT)
    assert warp(np.array([[60.0, 40, 200]])) == pytest.approx(np.array([[30, 20, 100]]), abs=1e-6)


def test_what_lies_before_a_leaning_spine_leans_with_it() -> None:
    """The subject leans forward by 20 degrees: 30 mm before a vertebra, square to the spine, stays so near it."""
    angle = np.radians(20)
    leaning = column(UPRIGHT[:, 2] * np.cos(angle), UPRIGHT[:, 2] * np.sin(angle))
    before = leaning[5] + 30 * np.array([0, np.cos(angle), -np.sin(angle)])
    x, y, z = thin_plate_warp(leaning, UPRIGHT)(before[None])[0]
    assert abs(x) < 0.1
    # The body is not scaled as a leaning spine is: 30 mm stay 30 mm to a tenth, and the height that of its vertebra.
    assert y == pytest.approx(30 / np.cos(angle), abs=2)
    assert z == pytest.approx(UPRIGHT[5, 2], abs=2)


@settings(max_examples=15, deadline=None)
@given(bow_mm=st.floats(-60, 60), waves=st.sampled_from([0.5, 1.0, 1.5]), side=st.booleans())
def test_centroids_meet_and_nothing_folds(bow_mm: float, waves: float, side: bool) -> None:
    heights = np.arange(0, 481, 24.0)
    bent = column(heights, bow_mm * np.sin(waves * np.pi * heights / 480))
    if side:
        bent = bent[:, [1, 0, 2]]
    warp = thin_plate_warp(bent, column(heights, np.zeros_like(heights)))
    assert np.linalg.norm(warp(bent) - column(heights, np.zeros_like(heights)), axis=1).max() < 1.5
    axes = (np.arange(-120, 121, 20.0), np.arange(-100, 141, 20.0), np.arange(-40, 521, 20.0))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    there = warp(points.reshape(-1, 3)).reshape(points.shape)
    jacobian = np.stack([np.gradient(there, 20.0, axis=axis) for axis in range(3)], axis=-1)
    assert np.linalg.det(jacobian).min() > 0


def test_the_bent_body_has_its_voxels_where_the_warp_says() -> None:
    """A bar across the middle of a body of 4 mm, moved by 20 mm up and 8 mm right, is found there; outside is air."""
    labels = np.zeros((40, 30, 80), np.uint8)
    labels[:, 14:16, 40:42] = 20
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -80, -58, -40
    body = BodyMap((labels > 0).astype(np.uint8), labels, 4.0, affine)
    bent = bend_to_spine(body, UPRIGHT + np.array([8.0, 0, 20]), UPRIGHT)
    voxels = np.argwhere(bent.labels == 20)
    centre = bent.affine[:3, :3] @ voxels.mean(0) + bent.affine[:3, 3]
    assert centre == pytest.approx([6, 0, 142], abs=2)
    assert bent.tissue.shape[0] * 4.0 == pytest.approx(340, abs=4)
    assert not bent.tissue[0].any() and not bent.tissue[-1].any()
