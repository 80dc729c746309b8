import pytest
import torch
from monai.networks.nets.unet import UNet

from vertebral.models.networks import SwinUNETRConfig, UNetConfig, build_network

TINY = UNetConfig(levels=("L1", "L2", "L3"), channels=(4, 8, 16), strides=(2, 2), residual_units=1)


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


PLAIN = UNetConfig(kind="unet", levels=("L1",), channels=(4, 8, 16), strides=(2, 2), residual_units=0)
SWIN = SwinUNETRConfig(kind="swinunetr", levels=("L1", "L2"), feature_size=12)


def test_a_plain_unet_has_no_residual_units() -> None:
    assert not any("residual" in name for name in build_network(PLAIN).state_dict())
    assert any("residual" in name for name in build_network(TINY).state_dict())
    assert build_network(PLAIN)(torch.zeros((1, 1, 8, 8, 8))).shape == (1, 2, 8, 8, 8)


def test_swin_unetr_gives_classes_and_offsets() -> None:
    network = build_network(SWIN.model_copy(update={"offsets": True}))
    assert network(torch.rand((1, 1, 64, 64, 64))).shape == (1, 6, 64, 64, 64)


def test_deep_supervision_gives_the_coarser_stages_while_training_only() -> None:
    network = build_network(TINY.model_copy(update={"deep_supervision": 1}))
    image = torch.rand((2, 1, 8, 8, 16), generator=torch.Generator().manual_seed(0))
    output, coarser = network.train()(image)
    assert output.shape == (2, 4, 8, 8, 16) and coarser.shape == (2, 4, 4, 4, 8)
    assert torch.allclose(network.eval()(image), output, atol=1e-6)


@pytest.mark.parametrize("config", [TINY, PLAIN])
def test_block_by_block_it_is_monais_unet(config: UNetConfig) -> None:
    """While training the blocks are walked one by one, at no change of the result."""
    network = build_network(config)
    image = torch.rand((1, 1, 16, 8, 8))
    assert torch.allclose(network.train()(image), network.head(network.body(image)), atol=1e-6)


@pytest.mark.parametrize(("config", "size"), [(TINY, 8), (SWIN, 64)])
def test_activation_checkpointing_changes_no_gradient(config: UNetConfig | SwinUNETRConfig, size: int) -> None:
    image = torch.rand((1, 1, size, size, size), generator=torch.Generator().manual_seed(0))

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = build_network(config.model_copy(update={"activation_checkpointing": checkpointing})).train()
        network(image).square().mean().backward()
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    plain, recomputed = gradients(False), gradients(True)
    assert len(plain) == len(recomputed) > 0
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(plain, recomputed, strict=True))


def test_the_encoder_is_the_way_down() -> None:
    """Two blocks down and the bottom; the way up and the head are not in it."""
    network = build_network(TINY)
    inside = {id(parameter) for parameter in network.encoder()}
    names = [name for name, parameter in network.named_parameters() if id(parameter) in inside]
    assert {name.split(".conv.")[0].split(".residual.")[0] for name in names} == {
        "body.model.0",
        "body.model.1.submodule.0",
        "body.model.1.submodule.1.submodule",
    }
    assert len(build_network(SWIN).encoder()) > 0
