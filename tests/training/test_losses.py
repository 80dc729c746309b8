import math

import pytest
import torch
from monai.losses import DiceCELoss

from vertebral.models.config import OFFSET_UNIT_MM
from vertebral.training.losses import DiceCEConfig, hard_dice, offset_loss, segmentation_loss, supervised_loss

SHAPE = (4, 5, 6)


def random_case(classes: int, batch: int, present: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((batch, classes, *SHAPE), generator=generator)
    target = torch.randint(0, present, (batch, *SHAPE), generator=generator).to(torch.uint8)
    return logits, target


def two_voxels(first: list[float], second: list[float]) -> torch.Tensor:
    """Logits whose softmax is `first` and `second`."""
    return torch.tensor([first, second]).log().T[None, :, :, None, None]


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.3])
@pytest.mark.parametrize(("classes", "batch", "present"), [(2, 1, 2), (5, 3, 5), (27, 2, 9)])
def test_the_plain_loss_is_monais_dice_ce_in_value_and_gradient(
    classes: int, batch: int, present: int, weight: float
) -> None:
    logits, target = random_case(classes, batch, present)
    monai = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, lambda_ce=weight)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    value = segmentation_loss(ours, target, DiceCEConfig(cross_entropy_weight=weight))
    expected = monai(theirs, target[:, None].long())
    value.backward()
    expected.backward()
    assert ours.grad is not None and theirs.grad is not None
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-7, rtol=1e-4)


def test_channels_last_logits_give_the_same_loss() -> None:
    logits, target = random_case(4, 2, 4)
    last = logits.contiguous(memory_format=torch.channels_last_3d)
    assert float(segmentation_loss(last, target, DiceCEConfig())) == pytest.approx(
        float(segmentation_loss(logits, target, DiceCEConfig())), abs=1e-6
    )


def test_two_voxels_by_hand() -> None:
    """Background 0.8 : bone 0.2 where it is background, 0.4 : 0.6 where it is bone: Dice 2 * 0.6 / (0.8 + 1)."""
    logits, target = two_voxels([0.8, 0.2], [0.4, 0.6]), torch.tensor([[[[0]], [[1]]]], dtype=torch.uint8)
    cross_entropy = -(math.log(0.8) + math.log(0.6)) / 2
    dice = 1 - 1.2 / 1.8
    assert float(segmentation_loss(logits, target, DiceCEConfig())) == pytest.approx(dice + cross_entropy, abs=1e-4)
    only_dice = DiceCEConfig(cross_entropy_weight=0)
    assert float(segmentation_loss(logits, target, only_dice)) == pytest.approx(dice, abs=1e-4)


def test_absent_classes_count_in_the_mean_or_do_not() -> None:
    """Class 2 is absent and has probability 0.1 twice: its Dice is 0."""
    logits = two_voxels([0.7, 0.2, 0.1], [0.3, 0.6, 0.1])
    target = torch.tensor([[[[0]], [[1]]]], dtype=torch.uint8)
    dice = 1.2 / 1.8
    everywhere = DiceCEConfig(cross_entropy_weight=0)
    present = DiceCEConfig(cross_entropy_weight=0, dice_over="present")
    assert float(segmentation_loss(logits, target, everywhere)) == pytest.approx(1 - dice / 2, abs=1e-4)
    assert float(segmentation_loss(logits, target, present)) == pytest.approx(1 - dice, abs=1e-4)


def test_the_hierarchy_splits_spine_from_level() -> None:
    """Bone has 0.7 = 0.5 + 0.2, of which the right level has 5 / 7; the other voxel has 0.4 of spine."""
    logits = two_voxels([0.6, 0.3, 0.1], [0.3, 0.5, 0.2])
    target = torch.tensor([[[[0]], [[1]]]], dtype=torch.uint8)
    spine_dice = 2 * 0.7 / (0.4 + 0.7 + 1)
    level = -math.log(5 / 7)
    with_it, without = (DiceCEConfig(hierarchy_weight=weight) for weight in (2.0, 0.0))
    difference = segmentation_loss(logits, target, with_it) - segmentation_loss(logits, target, without)
    assert float(difference) == pytest.approx(2 * (1 - spine_dice + level), abs=1e-4)


@pytest.mark.parametrize("config", [DiceCEConfig(), DiceCEConfig(hierarchy_weight=1, dice_over="present")])
def test_a_patch_of_background_alone_has_a_finite_loss(config: DiceCEConfig) -> None:
    logits, _ = random_case(4, 1, 1)
    logits.requires_grad_()
    loss = segmentation_loss(logits, torch.zeros((1, *SHAPE), dtype=torch.uint8), config)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_a_perfect_prediction_has_no_loss() -> None:
    _, target = random_case(4, 1, 4)
    logits = 50 * torch.nn.functional.one_hot(target.long(), 4).movedim(-1, 1).float()
    config = DiceCEConfig(hierarchy_weight=1, dice_over="present")
    assert float(segmentation_loss(logits, target, config)) == pytest.approx(0, abs=1e-5)


def test_half_precision_logits_are_summed_in_single() -> None:
    logits, target = random_case(5, 1, 5)
    half = segmentation_loss(logits.bfloat16(), target, DiceCEConfig())
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(segmentation_loss(logits, target, DiceCEConfig())), rel=0.01)


def way_to_centroid(target: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """(3, I, J, K) in units of `OFFSET_UNIT_MM`, voxel by voxel."""
    offsets = torch.zeros((3, *target.shape))
    for value in target.unique():
        voxels = (target == value).nonzero().float()
        for voxel in voxels.long().tolist():
            way = (voxels.mean(0) - torch.tensor(voxel)) * spacing_mm / OFFSET_UNIT_MM
            offsets[(slice(None), *voxel)] = way
    return offsets


def test_offsets_point_to_the_centroid_of_the_own_vertebra() -> None:
    _, target = random_case(4, 1, 4)
    right = way_to_centroid(target[0], spacing_mm=2.5)[None]
    assert float(offset_loss(right, target, 2.5)) == pytest.approx(0, abs=1e-6)
    # A voxel of background may point anywhere.
    right[:, :, target[0] == 0] = 9
    assert float(offset_loss(right, target, 2.5)) == pytest.approx(0, abs=1e-6)


def test_the_offset_loss_by_hand() -> None:
    """Two voxels of one vertebra, 4 mm apart: each centroid lies 2 mm away, 0.1 units of 20 mm. None is predicted."""
    target = torch.zeros((1, 2, 2, 2), dtype=torch.uint8)
    target[0, :, 1, 1] = 3
    offsets = torch.zeros((1, 3, 2, 2, 2))
    # Smooth L1 with beta 0.1 at a distance of 0.1 is 0.05, along one of three axes.
    assert OFFSET_UNIT_MM == 20
    assert float(offset_loss(offsets, target, 4.0)) == pytest.approx(0.05 / 3)
    both = torch.cat([target, torch.zeros_like(target)])
    assert float(offset_loss(offsets.expand(2, -1, -1, -1, -1), both, 4.0)) == pytest.approx(0.05 / 6)


def test_a_small_vertebra_counts_as_much_as_a_large_one() -> None:
    """One voxel, which lies at its own centroid and is predicted 20 mm away; a hundred voxels predicted right."""
    target = torch.zeros((1, 5, 5, 8), dtype=torch.uint8)
    target[0, :, :, :4] = 1
    target[0, 2, 2, 6] = 2
    i, j, k = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (5, 5, 8)), indexing="ij")
    offsets = (torch.stack([2 - i, 2 - j, 1.5 - k]) / OFFSET_UNIT_MM)[None]
    offsets[0, :, 2, 2, 6] = torch.tensor([0.0, 0.0, 1.0])
    # Smooth L1 with beta 0.1 at a distance of 1 is 0.95, along one of three axes; the other vertebra has none.
    assert float(offset_loss(offsets, target, 1.0)) == pytest.approx(0.95 / 3 / 2)


def test_offsets_of_a_patch_without_bone_have_no_loss_but_a_gradient() -> None:
    offsets = torch.ones((1, 3, *SHAPE), requires_grad=True)
    loss = offset_loss(offsets, torch.zeros((1, *SHAPE), dtype=torch.uint8), 2.5)
    loss.backward()
    assert loss.item() == 0
    assert offsets.grad is not None and not offsets.grad.any()


def test_hard_dice_by_hand() -> None:
    """Six voxels: background, then bone with one level confused with the other and one voxel missed."""
    target = torch.tensor([0, 0, 1, 1, 1, 2], dtype=torch.uint8)
    predicted = torch.tensor([0, 1, 1, 2, 0, 2])
    logits = torch.nn.functional.one_hot(predicted, 4).T[None, :, :, None, None].float()
    spine, levels = hard_dice(logits, target[None, :, None, None])
    # Spine: 3 of 4 and 4 voxels. Class 1: 1 of 2 and 3. Class 2: 1 of 2 and 1. Class 3 is absent.
    assert spine == pytest.approx(2 * 3 / 8)
    assert levels == pytest.approx((2 * 1 / 5 + 2 * 1 / 3) / 2)


def test_hard_dice_without_bone_is_no_number() -> None:
    background = torch.zeros((1, *SHAPE), dtype=torch.uint8)
    logits = torch.zeros((1, 3, *SHAPE))
    logits[:, 0] = 1
    assert all(math.isnan(value) for value in hard_dice(logits, background))


@pytest.mark.parametrize("config", [DiceCEConfig(), DiceCEConfig(hierarchy_weight=1, dice_over="present")])
def test_the_loss_of_a_batch_is_the_mean_of_its_halves(config: DiceCEConfig) -> None:
    """So that devices which share a batch give its gradient."""
    logits, target = random_case(5, 4, 5)
    halves = [segmentation_loss(logits[part], target[part], config) for part in (slice(0, 2), slice(2, 4))]
    assert float(segmentation_loss(logits, target, config)) == pytest.approx(float(sum(halves)) / 2, abs=1e-6)
    offsets = logits[:, :3]
    halves = [offset_loss(offsets[part], target[part], 2.0) for part in (slice(0, 2), slice(2, 4))]
    assert float(offset_loss(offsets, target, 2.0)) == pytest.approx(float(sum(halves)) / 2, abs=1e-6)


def test_deep_supervision_weighs_stages_by_halves() -> None:
    """Two stages weigh 2/3 and 1/3; the coarse one sees every second voxel. Channels after the classes are offsets."""
    even = torch.randn((1, 6, 4, 4, 4), generator=torch.Generator().manual_seed(1))
    classes = torch.randint(0, 3, (1, 4, 4, 4), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    half = even[:, :3, ::2, ::2, ::2]
    value = supervised_loss((even, half), classes, 3, DiceCEConfig())
    one, two = (
        segmentation_loss(even[:, :3], classes, DiceCEConfig()),
        segmentation_loss(half, classes[:, ::2, ::2, ::2], DiceCEConfig()),
    )
    assert float(value) == pytest.approx(float(2 * one + two) / 3, abs=1e-6)
    assert float(supervised_loss(even, classes, 3, DiceCEConfig())) == pytest.approx(float(one), abs=1e-6)
