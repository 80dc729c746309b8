import pytest
import torch

from vertebral.data.synthesis.artefacts import acquire, with_beam_hardening, with_kernel, with_motion, with_surroundings
from vertebral.data.synthesis.config import ArtefactsConfig, SynthesisConfig
from vertebral.data.synthesis.scanner import scan

NONE = ArtefactsConfig().model_copy(
    update={name: 0.0 for name in ArtefactsConfig.model_fields if name.endswith("_probability")}
)
SCANNER = SynthesisConfig(slice_mm=(1.0, 1.0), noise_hu=(0.0, 0.0))
NAMES = [n.removesuffix("_probability") for n in ArtefactsConfig.model_fields if n.endswith("_probability")]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def body() -> tuple[torch.Tensor, torch.Tensor]:
    """HU and labels at 2 mm: a block of 50 HU in air, 26 mm above the lowest row, with bone of 400 HU."""
    hu = torch.full((40, 48, 40), -1000.0)
    hu[8:32, 26:44] = 50
    labels = torch.zeros(hu.shape, dtype=torch.uint8)
    labels[16:24, 30:36, 8:30] = 20
    hu[labels > 0] = 400
    return hu, labels


def made(settings: ArtefactsConfig | None, seed: int = 0) -> torch.Tensor:
    hu, labels = body()
    return acquire(hu, labels, 2.0, seeded(seed), SCANNER.model_copy(update={"artefacts": settings}))


def test_without_artefacts_it_is_the_plain_scan() -> None:
    hu, _ = body()
    assert torch.equal(made(None), scan(hu, 2.0, seeded(), SCANNER))


def test_at_probability_zero_the_image_is_a_plain_scan() -> None:
    """With other draws before it, so that gain and offset differ: what is flat stays flat."""
    shown = made(NONE)
    assert float(shown[12:28, 38:42].std()) < 1e-3
    assert float(shown[:, :20].std()) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_an_artefact_shows_is_a_function_of_the_seed_and_spares_labels_and_input(name: str) -> None:
    settings = NONE.model_copy(update={f"{name}_probability": 1.0})
    hu, labels = body()
    before = hu.clone(), labels.clone()
    config = SCANNER.model_copy(update={"artefacts": settings})
    differs = 0
    for seed in range(4):
        one = acquire(hu, labels, 2.0, seeded(seed), config)
        assert torch.equal(hu, before[0]) and torch.equal(labels, before[1])
        assert torch.equal(one, made(settings, seed))
        assert torch.isfinite(one).all() and one.shape == hu.shape
        differs += int(not torch.allclose(one, made(NONE, seed), atol=1.0))
    assert differs >= 3


def test_the_table_is_a_slab_in_the_air_below_the_back() -> None:
    hu, _ = body()
    for seed in range(5):
        shown = with_surroundings(hu, 2.0, seeded(seed), NONE.model_copy(update={"table_probability": 1.0}))
        new = torch.nonzero(shown != hu)
        assert len(new) > 500
        assert int(new[:, 1].max()) <= 26 + 8, "above the back by more than its bend at the side"
        assert (hu[shown != hu] < -900).all()
        assert ((shown != hu).all(2) == (shown != hu).any(2)).all(), "the same in every slice"


def test_no_table_where_the_patch_ends_within_the_body() -> None:
    hu = torch.full((20, 20, 20), 50.0)
    settings = NONE.model_copy(update={"table_probability": 1.0, "clothes_probability": 1.0})
    assert torch.equal(with_surroundings(hu, 2.0, seeded(), settings), hu)
    empty = torch.full((20, 20, 20), -1000.0)
    assert torch.equal(with_surroundings(empty, 2.0, seeded(), settings), empty)


def test_beam_hardening_darkens_the_body_by_no_more_than_its_amount() -> None:
    hu, _ = body()
    hard = with_beam_hardening(hu, 50.0, 2.0, seeded())
    assert torch.equal(hard[hu < -500], hu[hu < -500])
    assert -50 < float((hard - hu)[hu > -500].mean()) < -10


def test_motion_by_a_voxel_moves_a_share() -> None:
    point = torch.zeros((9, 9, 9))
    point[4, 4, 4] = 1.0
    moved = with_motion(point, 1.0, seeded())
    places = torch.nonzero(moved)
    assert len(places) == 2 and float(moved.sum()) == pytest.approx(1)
    assert 0.5 <= float(moved[4, 4, 4]) <= 0.75


def test_kernels_keep_what_is_flat_and_change_edges() -> None:
    step = torch.zeros((20, 4, 4))
    step[10:] = 100
    sharp, soft = with_kernel(step, 1.0)[:, 0, 0], with_kernel(step, -1.0)[:, 0, 0]
    assert torch.allclose(with_kernel(step, 0.0), step)
    assert float(sharp.max()) > 105 and float(sharp.min()) < -5
    assert float(soft[9]) > 5 and float(soft.max()) == pytest.approx(100)
    assert float(sharp[0]) == pytest.approx(0, abs=1e-4)
