"""Against MONAI and SimpleITK, on random shapes. Where the definitions differ, the test says how."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import binary_erosion, gaussian_filter

from mask_surfaces import hd95_mm, surface_of
from vertebral.evaluation.metrics import dice, distances
from vertebral.evaluation.surfaces import find_surface_voxels

SPACING_MM = (0.7, 1.3, 2.5)


def shapes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two blobs that overlap in part, each with islands; clear of the border, where MONAI sees no surface."""
    rng = np.random.default_rng(seed)
    common = gaussian_filter(rng.standard_normal((24, 22, 18)), 2.5)
    masks = []
    for _ in range(2):
        own = common + 0.4 * gaussian_filter(rng.standard_normal(common.shape), 1.5)
        mask = np.zeros(common.shape, bool)
        mask[2:-2, 2:-2, 2:-2] = (own > np.quantile(own, 0.8))[2:-2, 2:-2, 2:-2]
        masks.append(mask)
    return masks[0], masks[1]


def one_hot(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("seed", range(6))
def test_monai_agrees(seed: int) -> None:
    ours, theirs = shapes(seed)
    apart = distances(surface_of(ours), surface_of(theirs), ours.shape, SPACING_MM)
    given = one_hot(ours), one_hot(theirs)
    assert hd95_mm(ours, theirs, SPACING_MM) == apart.hd95_mm
    hd95 = compute_hausdorff_distance(*given, include_background=False, percentile=95, spacing=SPACING_MM)
    assert apart.hd95_mm == pytest.approx(float(hd95), abs=1e-4)
    assd = compute_average_surface_distance(*given, include_background=False, symmetric=True, spacing=SPACING_MM)
    assert apart.assd_mm == pytest.approx(float(assd), abs=1e-4)
    for tolerance_mm in (1, 2, 3):
        nsd = compute_surface_dice(
            *given, class_thresholds=[tolerance_mm], include_background=False, spacing=SPACING_MM
        )
        assert apart.share_within(tolerance_mm) == pytest.approx(float(nsd), abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_simpleitk_and_scipy_agree(seed: int) -> None:
    """Surfaces by erosion, distances by a distance map of them."""
    ours, theirs = shapes(seed)
    images = [image(mask) for mask in (ours, theirs)]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    assert dice(ours, theirs) == pytest.approx(overlap.GetDiceCoefficient(1))
    surfaces = [mask & ~binary_erosion(mask) for mask in (ours, theirs)]
    maps = [sitk.SignedMaurerDistanceMap(image(surface), False, False, True) for surface in surfaces]
    far = [np.abs(sitk.GetArrayFromImage(of).T) for of in maps]
    there, back = far[1][surfaces[0]], far[0][surfaces[1]]
    apart = distances(surface_of(ours), surface_of(theirs), ours.shape, SPACING_MM)
    assert apart.hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4)
    assert apart.assd_mm == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-4)


def image(mask: np.ndarray) -> sitk.Image:
    made = sitk.GetImageFromArray(mask.astype(np.uint8).T)
    made.SetSpacing(SPACING_MM)
    return made


@pytest.mark.parametrize("seed", range(3))
def test_one_pass_over_all_labels_finds_the_surface_of_each(seed: int) -> None:
    """Labels that touch, islands and the border of the array; slabs of one plane change nothing."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal((20, 17, 13)), 1.5)
    labels = np.digitize(field, np.quantile(field, (0.3, 0.5, 0.7, 0.9))).astype(np.uint8)
    each = find_surface_voxels(labels).surfaces(np.arange(256, dtype=np.uint8))
    assert sorted(each) == [1, 2, 3, 4]
    for value, surface in each.items():
        np.testing.assert_array_equal(surface, surface_of(labels == value))
    joined = np.zeros(256, np.uint8)
    joined[[1, 2, 4]] = 1, 1, 2
    both = find_surface_voxels(labels).surfaces(joined)
    np.testing.assert_array_equal(both[1], surface_of(np.isin(labels, (1, 2))))
    np.testing.assert_array_equal(both[2], surface_of(labels == 4))


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = shapes(1)
    whole = surface_of(ours)
    monkeypatch.setattr("vertebral.evaluation.surfaces._SLAB_VOXELS", 1)
    np.testing.assert_array_equal(surface_of(ours), whole)
