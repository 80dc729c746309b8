import pytest
import torch
from monai.networks.nets.unet import UNet

from vertebral.config import NetworkConfig
from vertebral.model import build_network

TINY = NetworkConfig(levels=("L1", "L2", "L3"), channels=(4, 8, 16), strides=(2, 2), residual_units=1)


def test_one_logit_a_class_and_voxel() -> None:
    network = build_network(TINY)
    logits = network(torch.zeros((2, 1, 8, 12, 16)))
    assert logits.shape == (2, TINY.class_count, 8, 12, 16)
    assert TINY.class_count == 4


def test_offsets_are_three_more_channels() -> None:
    config = TINY.model_copy(update={"offsets": True})
    assert (config.class_count, config.channel_count) == (4, 7)
    assert build_network(config)(torch.zeros((1, 1, 8, 8, 8))).shape == (1, 7, 8, 8, 8)


def test_the_blocks_end_at_the_first_width_and_a_1x1x1_head_gives_the_classes() -> None:
    network = build_network(TINY)
    body, head = network.body, network.head
    assert isinstance(body, UNet) and body.out_channels == 4
    assert isinstance(head, torch.nn.Conv3d)
    assert head.weight.shape == (4, 4, 1, 1, 1)


def test_a_patch_that_does_not_divide_by_the_strides_fails() -> None:
    with pytest.raises(RuntimeError):
        build_network(TINY)(torch.zeros((1, 1, 10, 8, 8)))


def test_each_sample_of_a_batch_is_normalised_on_its_own() -> None:
    network = build_network(TINY).eval()
    images = torch.rand((2, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together, alone = network(images), network(images[:1])
    assert torch.allclose(together[:1], alone, atol=1e-5)


def test_weights_follow_the_global_seed() -> None:
    def weights() -> torch.Tensor:
        torch.manual_seed(0)
        return torch.cat([p.flatten() for p in build_network(TINY).parameters()])

    assert torch.equal(weights(), weights())


def test_training_reaches_every_weight() -> None:
    network = build_network(TINY)
    network(torch.rand((1, 1, 8, 8, 8))).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
