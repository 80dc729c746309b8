"""Pose and look of patches, worked by hand on small ones."""

import numpy as np
import pytest
import torch

from vertebral.data.patches import augmentation
from vertebral.data.patches.augmentation import change_look, draw_knots, in_slabs, sampling_grid, with_other_scale
from vertebral.data.patches.config import AugmentConfig
from vertebral.data.synthesis.implants import with_metal

pytestmark = pytest.mark.usefixtures("one_thread")
NEVER = dict.fromkeys(
    [f"{name}_probability" for name in ("affine", "elastic", "mirror", "intensity", "noise", "blur")]
    + ["low_resolution_probability", "metal_probability"],
    0.0,
)
WINDOW = (-100.0, 1000.0)


def only(**changes: object) -> AugmentConfig:
    """Nothing happens but what is asked for."""
    return AugmentConfig.model_validate({**NEVER, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grid(patch: tuple[int, int, int], spacing_mm: float = 1.0, seed: int = 0, **changes: object) -> torch.Tensor:
    knots = draw_knots(patch, spacing_mm, seeded(seed), only(**changes))
    assert knots is not None
    return sampling_grid(knots, patch)


def look(hu: torch.Tensor, seed: int = 0, labels: torch.Tensor | None = None, **changes: object) -> torch.Tensor:
    labels = torch.zeros(hu.shape, dtype=torch.uint8) if labels is None else labels
    return change_look(hu, labels, 1.0, WINDOW, seeded(seed), only(**changes))


def test_without_a_change_of_pose_there_is_no_grid() -> None:
    assert draw_knots((8, 8, 8), 1.0, seeded(), only()) is None


def test_a_still_pose_is_the_patchs_own_grid() -> None:
    """Five voxels reach from -2 to 2, four from -1.5 to 1.5."""
    points = grid((5, 4, 3), affine_probability=1, rotation_deg=0, scale=(1, 1))
    expected = np.stack(np.meshgrid(np.arange(5) - 2, np.arange(4) - 1.5, np.arange(3) - 1, indexing="ij"), -1)
    assert points.dtype == torch.float32
    assert np.allclose(points.numpy(), expected, atol=1e-6)


def test_a_body_twice_as_large_is_sampled_twice_as_densely() -> None:
    points = grid((5, 5, 5), affine_probability=1, rotation_deg=0, scale=(2, 2))
    assert points[4, 0, 2].tolist() == pytest.approx([1, -1, 0])


def test_a_rotation_keeps_lengths_right_angles_and_hands() -> None:
    points = grid((9, 9, 9), affine_probability=1, rotation_deg=30, scale=(1, 1))
    axes = torch.stack([points[8, 4, 4], points[4, 8, 4], points[4, 4, 8]]) / 4
    assert torch.allclose(axes @ axes.T, torch.eye(3), atol=1e-5)
    assert float(torch.det(axes)) == pytest.approx(1, abs=1e-5)
    assert not torch.allclose(axes, torch.eye(3), atol=0.05)


def test_no_rotation_turns_a_spine_over() -> None:
    for seed in range(20):
        points = grid((3, 3, 3), seed=seed, affine_probability=1)
        for axis in range(3):
            ahead = points.select(axis, 2)[..., axis] - points.select(axis, 0)[..., axis]
            assert float(ahead.min()) > 0


def test_an_affine_map_is_exact_between_its_corners() -> None:
    knots = draw_knots((11, 7, 5), 1.0, seeded(3), only(affine_probability=1))
    assert knots is not None and knots.shape == (2, 2, 2, 3)
    points = sampling_grid(knots, (11, 7, 5)).double()
    steps = points.diff(dim=0), points.diff(dim=1), points.diff(dim=2)
    for step in steps:
        assert float((step - step[0, 0, 0]).abs().max()) < 1e-5
    assert points.mean((0, 1, 2)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def test_between_knots_the_map_is_linear() -> None:
    """Knots at voxels 0, 2 and 4; only the middle one along the second axis is moved, by (0, 3, 6)."""
    knots = torch.zeros((2, 3, 2, 3))
    knots[:, 1] = torch.tensor([0.0, 3.0, 6.0])
    points = sampling_grid(knots, (3, 5, 4))
    for place, share in enumerate((0, 0.5, 1, 0.5, 0)):
        assert torch.allclose(points[:, place], share * torch.tensor([0.0, 3.0, 6.0]).expand(3, 4, 3))


def test_elastic_displacement_has_knots_so_many_mm_apart() -> None:
    """Of 96 mm with knots every 45 mm: 96 / 45 and two more, at 48 voxels of 2 mm."""
    knots = draw_knots((48, 48, 24), 2.0, seeded(), only(elastic_probability=1, elastic_mm=5))
    # Steps of 22 voxels (44 mm).
    assert knots is not None and knots.shape == (4, 4, 3, 3)
    still = draw_knots((48, 48, 24), 2.0, seeded(), only(elastic_probability=1, elastic_mm=0))
    assert still is not None
    moved_mm = 2 * (knots - still).norm(dim=-1)
    assert 0.1 < float(moved_mm.mean()) < 3 * 5
    points = sampling_grid(knots, (48, 48, 24))
    assert float((points[1:] - points[:-1])[..., 0].min()) > 0, "the map folds"


def test_a_seed_is_a_pose() -> None:
    config = AugmentConfig(affine_probability=1, elastic_probability=1)
    one, again, other = (draw_knots((9, 9, 9), 1.0, seeded(seed), config) for seed in (4, 4, 5))
    assert one is not None and again is not None and other is not None
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_a_look_that_is_ruled_out_is_the_same_image() -> None:
    hu = torch.rand((4, 4, 4)) * 500
    assert look(hu) is hu


def test_what_the_window_clipped_keeps_its_value() -> None:
    hu = torch.full((6, 6, 6), 300.0)
    hu[0], hu[5] = WINDOW
    for seed in range(5):
        made = look(hu, seed, intensity_probability=1, noise_probability=1, noise_hu=(30, 30))
        assert (made[0] == WINDOW[0]).all() and (made[5] == WINDOW[1]).all()
        assert (made[1:5] != 300).all()


def test_noise_has_the_level_asked_for() -> None:
    hu = torch.full((24, 24, 24), 300.0)
    made = look(hu, noise_probability=1, noise_hu=(25, 25))
    assert float((made - hu).std()) == pytest.approx(25, rel=0.03)
    assert float((made - hu).mean()) == pytest.approx(0, abs=1)
    assert (hu == 300).all(), "the input was changed"


def test_another_scale_keeps_the_order_of_hu_and_stays_near() -> None:
    hu = torch.linspace(*WINDOW, 12).reshape(12, 1, 1)
    for seed in range(30):
        made = with_other_scale(hu, WINDOW, seeded(seed)).flatten()
        assert (made.diff() > 0).all()
        assert -120 <= float(made[0]) <= -80 and 870 <= float(made[-1]) <= 1130
        assert float((made - hu.flatten()).abs().max()) < 250


def test_a_gamma_bends_about_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gamma 2, gain 1, no offset: in the middle of the window half becomes a quarter."""
    drawn = iter([float(np.log(2)), 1.0, 0.0])
    monkeypatch.setattr(augmentation, "uniform", lambda *_: next(drawn))
    made = with_other_scale(torch.tensor([-100.0, 450.0, 1000.0]), WINDOW, seeded())
    assert made.tolist() == pytest.approx([-100, 175, 1000], abs=1e-3)


def test_slabs_by_hand() -> None:
    """Slabs of two voxels from the first one on have middles 0.5, 2.5 and 4.5; beyond the last it stays level."""
    line = torch.tensor([0.0, 2.0, 4.0, 10.0, 6.0, 6.0])
    made = in_slabs(line.reshape(1, 6, 1), 2.0, 1, 0.0).flatten()
    assert made.tolist() == pytest.approx([1, 1 + 6 * 0.25, 1 + 6 * 0.75, 7 - 0.25, 7 - 0.75, 6], abs=1e-5)


def test_slabs_with_a_phase() -> None:
    """Half a slab of two starts before: the first holds one voxel only, then pairs, then one."""
    line = torch.tensor([8.0, 2.0, 4.0, 6.0])
    made = in_slabs(line.reshape(1, 1, 4), 2.0, 2, 0.5).flatten()
    # Means 8, 3, 6 with middles 0, 1.5, 3.
    assert made.tolist() == pytest.approx([8, 8 - 5 / 1.5, 3 + 1, 6], abs=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_keep_what_is_constant_or_constant_along_the_axis(axis: int) -> None:
    hu = torch.rand((7, 8, 9)).movedim(axis, 0)[:1].expand(11, -1, -1).movedim(0, axis).contiguous()
    for thickness in (1.5, 3.7, 20.0):
        assert torch.allclose(in_slabs(hu, thickness, axis, 0.3), hu, atol=1e-5)


def test_slabs_thinner_than_a_voxel_change_nothing() -> None:
    hu = torch.rand((3, 3, 3))
    assert in_slabs(hu, 1.0, 0, 0.5) is hu


def test_low_resolution_takes_one_axis() -> None:
    hu = 400 * torch.rand((16, 16, 16))
    axes = set()
    for seed in range(12):
        made = look(hu, seed, low_resolution_probability=1, slice_mm=(4, 4))
        rough = [float(made.diff(dim=axis).abs().mean()) for axis in range(3)]
        assert sorted(rough)[0] < 0.5 * sorted(rough)[1]
        axes.add(rough.index(min(rough)))
    assert axes == {0, 1, 2}


def test_blur_is_in_mm() -> None:
    hu = torch.zeros((15, 15, 15))
    hu[7, 7, 7] = 1000
    labels = torch.zeros(hu.shape, dtype=torch.uint8)
    fine, coarse = (
        change_look(hu, labels, mm, WINDOW, seeded(), only(blur_probability=1, blur_mm=(1, 1))) for mm in (1.0, 2.0)
    )
    peak = 1 / (1 + 2 * np.exp(-0.5) + 2 * np.exp(-2) + 2 * np.exp(-4.5))
    assert float(fine[7, 7, 7]) == pytest.approx(1000 * peak**3, rel=1e-4)
    assert float(coarse[7, 7, 7]) > float(fine[7, 7, 7])


def bone() -> torch.Tensor:
    labels = torch.zeros((64, 64, 96), dtype=torch.uint8)
    labels[28:36, 28:36, 20:76] = 20
    return labels


def test_metal_goes_through_bone_and_streaks_lie_in_its_planes() -> None:
    hu, labels = torch.full((64, 64, 96), 50.0), bone()
    for seed in range(8):
        made = with_metal(hu, labels, 1.0, seeded(seed))
        metal = made >= 2500
        assert (hu == 50).all(), "the input was changed"
        assert 30 < int(metal.sum()) < 12000 and float(made[metal].max()) <= 3000 + 600
        assert (metal & (labels > 0)).any()
        planes = metal.any(dim=0).any(dim=0)
        elsewhere = torch.nonzero(~planes).flatten()
        beside = elsewhere[
            (elsewhere < torch.nonzero(planes).min() - 4) | (elsewhere > torch.nonzero(planes).max() + 4)
        ]
        assert (made[:, :, beside] == 50).all()


def test_streaks_fall_off_with_the_distance() -> None:
    hu, labels = torch.full((100, 100, 12), 50.0), torch.zeros((100, 100, 12), dtype=torch.uint8)
    labels[50, 50] = 20
    near, far = [], []
    distance = ((torch.arange(100)[:, None] - 50) ** 2 + (torch.arange(100)[None] - 50) ** 2).sqrt()
    for seed in range(10):
        change = (with_metal(hu, labels, 1.0, seeded(seed)) - 50).abs().amax(dim=2)
        near.append(float(change[(distance > 8) & (distance < 12)].mean()))
        far.append(float(change[(distance > 60) & (distance < 65)].mean()))
    assert np.mean(near) > 3 * np.mean(far) > 0


def test_without_bone_there_is_no_metal() -> None:
    hu = torch.full((8, 8, 8), 50.0)
    assert with_metal(hu, torch.zeros(hu.shape, dtype=torch.uint8), 1.0, seeded()) is hu


def test_metal_ends_at_the_window_and_air_shows_no_streaks() -> None:
    hu = torch.full((64, 64, 96), 50.0)
    hu[:20] = WINDOW[0]
    for seed in range(4):
        made = look(hu, seed, bone(), metal_probability=1)
        assert float(made.max()) == WINDOW[1] and float(made.min()) >= WINDOW[0]
        assert set(made[:20].unique().tolist()) <= set(WINDOW)
        assert len(made[20:].unique()) > 100


def test_a_seed_is_a_look() -> None:
    config = AugmentConfig.model_validate(dict.fromkeys(NEVER, 1.0))
    hu, labels = 500 * torch.rand((64, 64, 96)), bone()
    one, again, other = (change_look(hu, labels, 1.0, WINDOW, seeded(seed), config) for seed in (4, 4, 5))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.dtype == torch.float32
