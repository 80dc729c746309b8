import itertools

import numpy as np
import pytest
import torch

from vertebral.data.synthesis.config import SynthesisConfig
from vertebral.data.synthesis.pose import draw_field_of_view, draw_pose, rotation, sample
from vertebral.data.synthesis.scanner import blur, scan

PATCH = (9, 9, 9)
STILL = SynthesisConfig(
    scale=(1, 1), anisotropy=0, rotation_deg=0, elastic_mm=0, mirror_probability=0, crop_probability=0
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pose(seed: int = 0, **changes: object) -> torch.Tensor:
    return draw_pose(PATCH, 2.0, seeded(seed), STILL.model_copy(update=changes))


def at(points: torch.Tensor, i: int, j: int, k: int) -> list[float]:
    """Where the voxel lies that is (i, j, k) voxels from the patch's centre."""
    return points[4 + i, 4 + j, 4 + k].tolist()  # type: ignore[no-any-return]


def test_a_still_pose_is_the_patchs_own_grid() -> None:
    points = pose()
    assert points.shape == (*PATCH, 3) and points.dtype == torch.float32
    assert at(points, 0, 0, 0) == [0, 0, 0]
    assert at(points, 1, 0, 0) == [2, 0, 0]
    assert at(points, -4, 2, 3) == [-8, 4, 6]


def test_an_even_patch_has_its_centre_between_voxels() -> None:
    points = draw_pose((4, 4, 4), 3.0, seeded(), STILL)
    assert points[1, 2, 3].tolist() == [-1.5, 1.5, 4.5]


def test_a_mirror_image_swaps_left_and_right_only() -> None:
    points = pose(mirror_probability=1.0)
    assert at(points, 1, 2, 3) == [-2, 4, 6]


def test_a_body_twice_as_large_is_sampled_twice_as_densely() -> None:
    """What lies 4 mm from the centre of the body shows 8 mm from the centre of the patch."""
    points = pose(scale=(2, 2))
    assert at(points, 4, -2, 1) == [4, -2, 1]


def test_anisotropy_stretches_the_axes_apart_from_each_other() -> None:
    points = pose(anisotropy=0.1)
    x, y, z = at(points, 4, 4, 4)
    assert len({x, y, z}) == 3
    assert all(8 / 1.1 <= value <= 8 / 0.9 for value in (x, y, z))
    assert at(points, 4, 0, 0) == pytest.approx([x, 0, 0])


def test_a_rotation_keeps_lengths_and_right_angles() -> None:
    points = pose(rotation_deg=30.0)
    axes = torch.tensor([at(points, 4, 0, 0), at(points, 0, 4, 0), at(points, 0, 0, 4)]) / 8
    assert torch.allclose(axes @ axes.T, torch.eye(3), atol=1e-6)
    assert float(torch.det(axes)) == pytest.approx(1, abs=1e-5)
    assert not torch.allclose(axes, torch.eye(3), atol=0.05)


@pytest.mark.parametrize(("axis", "fixed"), [(0, (4, 0, 0)), (1, (0, 4, 0)), (2, (0, 0, 4))])
def test_a_quarter_turn_about_each_axis(axis: int, fixed: tuple[int, int, int]) -> None:
    angles = [np.pi / 2 if a == axis else 0.0 for a in range(3)]
    matrix = rotation(angles)
    kept = torch.tensor(fixed, dtype=torch.float32)
    assert torch.allclose(matrix @ kept, kept, atol=1e-6)
    for other in {0, 1, 2} - {axis}:
        turned = matrix @ torch.eye(3)[other]
        assert turned.abs().argmax() not in (axis, other)
        assert float(turned.abs().max()) == pytest.approx(1)


def test_rotation_stays_within_its_limit() -> None:
    """Three turns of at most 10 degrees move a point by no more than 30."""
    for seed in range(20):
        tip = np.array(at(pose(seed, rotation_deg=10.0), 0, 0, 4)) / 8
        assert np.rad2deg(np.arccos(tip[2])) <= 30


def test_elastic_displacement_is_smooth_and_bounded_in_size() -> None:
    points, still = pose(elastic_mm=5.0), pose()
    moved = (points - still).norm(dim=-1)
    assert 0 < float(moved.max()) < 5 * 5
    neighbours = (points[1:] - points[:-1]).norm(dim=-1)
    assert float(neighbours.min()) > 0.5


def test_a_seed_is_a_pose() -> None:
    changes = {"rotation_deg": 15.0, "elastic_mm": 5.0, "scale": (0.8, 1.2), "mirror_probability": 0.5}
    assert torch.equal(pose(7, **changes), pose(7, **changes))
    assert not torch.equal(pose(7, **changes), pose(8, **changes))


def test_sampling_at_voxel_centres_gives_the_voxels() -> None:
    volume = torch.arange(2 * 3 * 4, dtype=torch.float32).reshape(2, 3, 4)
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in volume.shape), indexing="ij"), -1).float()
    for mode in ("bilinear", "nearest"):
        assert torch.allclose(sample(volume, index, mode, -1000.0), volume, atol=1e-3)


def test_sampling_between_voxels_and_beyond_the_border() -> None:
    volume = torch.tensor([0.0, 10.0, 20.0])[:, None, None].expand(3, 2, 2)
    points = torch.tensor([[0.5, 0, 0], [1.25, 1, 0.5], [2.5, 0, 0], [3.5, 0, 0], [-9, 0, 0]])
    voxels = points[None, None]
    # Half a voxel outside it is half air.
    linear = sample(volume, voxels, "bilinear", -1000.0)
    assert linear.shape == (1, 1, 5)
    assert linear.flatten().tolist() == pytest.approx([5, 12.5, -490, -1000, -1000])
    assert sample(volume, voxels, "nearest", 0.0).flatten().tolist()[:2] == [0, 10]
    assert sample(volume, voxels, "nearest", 7.0).flatten().tolist()[3:] == [7, 7]


def test_a_still_scanner_changes_little() -> None:
    config = STILL.model_copy(update={"slice_mm": (1.0, 1.0), "noise_hu": (0.0, 0.0)})
    hu = torch.full((12, 12, 12), 100.0)
    for seed in range(5):
        made = scan(hu, 2.0, seeded(seed), config)
        assert float(made.std()) < 1e-3
        assert 100 * 0.95 - 15 <= float(made.mean()) <= 100 * 1.05 + 15
    assert (hu == 100).all(), "the input was changed"


def test_thick_slices_blur_one_axis() -> None:
    config = STILL.model_copy(update={"slice_mm": (6.0, 6.0), "noise_hu": (0.0, 0.0)})
    point = torch.zeros((21, 21, 21))
    point[10, 10, 10] = 1000
    wide = dict.fromkeys(range(3), 0)
    for seed in range(30):
        made = scan(point, 1.0, seeded(seed), config)
        lines = [made[:, 10, 10], made[10, :, 10], made[10, 10, :]]
        widths = [int((line > line.min() + 0.3 * (line.max() - line.min())).sum()) for line in lines]
        assert sorted(widths)[:2] == [1, 1] and max(widths) >= 5, widths
        wide[widths.index(max(widths))] += 1
    assert wide[2] > wide[0] + wide[1]


def test_noise_has_the_level_drawn() -> None:
    config = STILL.model_copy(update={"slice_mm": (1.0, 1.0), "noise_hu": (30.0, 30.0)})
    level = float(scan(torch.zeros((20, 20, 20)), 2.0, seeded(), config).std())
    assert 29 <= level <= 30 * 2


def test_blur_keeps_the_sum_and_the_place() -> None:
    point = torch.zeros((5, 5, 31))
    point[2, 2, 15] = 1.0
    made = blur(point, 2.0, 2)
    line = made[2, 2]
    assert float(made.sum()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(line, line.flip(0), atol=1e-7)
    spread = (torch.arange(31) - 15.0).square() @ line
    weights = [np.exp(-(k**2) / 8) for k in range(-5, 6)]
    assert float(spread) == pytest.approx(np.average(np.arange(-5, 6) ** 2, weights=weights), abs=1e-3)
    assert torch.equal(blur(point, 0.2, 2), point)


def test_the_whole_patch_is_shown_unless_cropped() -> None:
    assert draw_field_of_view(PATCH, seeded(), STILL) == (slice(0, 9),) * 3


def test_a_crop_takes_a_slab_at_one_end_of_one_axis() -> None:
    config = STILL.model_copy(update={"crop_probability": 1.0})
    shape = (20, 30, 40)
    ends = set()
    for seed in range(60):
        shown = draw_field_of_view(shape, seeded(seed), config)
        cut = [a for a in range(3) if shown[a] != slice(0, shape[a])]
        assert len(cut) == 1
        (axis,) = cut
        start, stop = shown[axis].start, shown[axis].stop
        assert (start == 0) != (stop == shape[axis])
        assert 0.05 <= 1 - (stop - start) / shape[axis] <= 0.5
        ends.add((axis, start == 0))
    assert ends == set(itertools.product(range(3), (True, False)))
