"""Findings in a block spine at 2 mm: L1 to L3, 20 mm cubes with 6 mm of disc between them, processes behind."""

import pytest
import torch

from vertebral.core.anatomy import BY_NAME
from vertebral.data.synthesis.arms import with_arms
from vertebral.data.synthesis.config import FindingsConfig
from vertebral.data.synthesis.findings import change_hu, change_tissue, draw_vertebra, with_fracture
from vertebral.data.synthesis.tissues import TISSUE_ID

MM = 2.0
NONE = FindingsConfig().model_copy(
    update={name: 0.0 for name in FindingsConfig.model_fields if name.endswith("_probability")}
)
L1, L2, L3 = (BY_NAME[name].verse_id for name in ("L1", "L2", "L3"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def always(name: str) -> FindingsConfig:
    return NONE.model_copy(update={f"{name}_probability": 1.0})


def spine() -> tuple[torch.Tensor, torch.Tensor]:
    """Tissue and labels; muscle all around, an artery in front."""
    labels = torch.zeros((40, 48, 52), dtype=torch.uint8)
    tissue = torch.full(labels.shape, TISSUE_ID["muscle"], dtype=torch.uint8)
    for number, value in enumerate((L3, L2, L1)):
        low = 6 + 14 * number
        labels[13:27, 20:32, low : low + 10] = value
        labels[18:22, 8:20, low + 2 : low + 6] = value
        tissue[13:27, 20:32, low + 10 : low + 14] = TISSUE_ID["disc"]
    tissue[13:27, 20:32, 2:6] = TISSUE_ID["disc"]
    tissue[labels > 0] = TISSUE_ID["vertebra_interior"]
    tissue[16:24, 36:44] = TISSUE_ID["artery"]
    return tissue, labels


def changed(config: FindingsConfig, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Difference in HU, tissue and labels."""
    tissue, labels = spine()
    before = labels.clone()
    hu = change_hu(torch.zeros(tissue.shape), tissue, labels, MM, seeded(seed), config)
    assert torch.equal(labels, before), "an effect on HU changed labels"
    return hu, tissue, labels


def test_nothing_happens_at_probability_zero() -> None:
    tissue, labels = spine()
    assert not changed(NONE)[0].any()
    assert change_tissue(tissue, labels, MM, seeded(), NONE) == (tissue, labels)
    voxels = torch.rand((4, 4, 4, 3))
    assert with_fracture(voxels, labels, MM, seeded(), NONE) is voxels


@pytest.mark.parametrize(
    ("name", "where", "low", "high"),
    [
        ("endplate", "vertebra_interior", 50, 350),
        ("sclerosis", "vertebra_interior", 0, 4 * 500),
        ("cement", "vertebra_interior", 1200, 2800),
        ("vacuum", "disc", -900, -300),
        ("calcification", "artery", 300, 1100),
    ],
)
def test_a_finding_shows_in_its_tissue_alone(name: str, where: str, low: float, high: float) -> None:
    seen = 0
    for seed in range(5):
        hu, tissue, _ = changed(always(name), seed)
        values = hu[hu != 0]
        seen += len(values)
        assert (tissue[hu != 0] == TISSUE_ID[where]).all()
        assert not len(values) or (values.min() >= low and values.max() <= high)
        assert torch.equal(hu, changed(always(name), seed)[0])
    assert seen > 20


def test_endplates_are_the_bone_next_to_discs() -> None:
    hu, _, labels = changed(always("endplate"))
    bright = torch.nonzero(hu)
    # Three vertebrae with a disc on either side, 14 by 12 voxels of body.
    assert len(bright) == 3 * 2 * 14 * 12
    assert set((bright[:, 2] - 6).tolist()) == {0, 9, 14, 23, 28, 37}
    assert (labels[hu > 0] > 0).all()


def test_calcium_lies_in_the_wall() -> None:
    inner = torch.zeros((40, 48, 52), dtype=torch.bool)
    inner[17:23, 37:43, 1:-1] = True
    for seed in range(5):
        assert not (changed(always("calcification"), seed)[0][inner] > 0).any()


def test_osteophytes_are_bone_of_their_vertebra() -> None:
    tissue, labels = spine()
    grown, marked = change_tissue(tissue, labels, MM, seeded(1), always("osteophyte"))
    new = (marked > 0) & (labels == 0)
    assert 10 < int(new.sum()) < 2000
    assert (grown[new] == TISSUE_ID["vertebra_cortex"]).all()
    assert torch.equal(marked[~new], labels[~new]), "the vertebrae themselves changed"
    for value in marked[new].unique().tolist():
        reach = torch.nonzero(marked == value)[:, 2]
        own = torch.nonzero(labels == value)[:, 2]
        assert own.min() - 3 <= reach.min() and reach.max() <= own.max() + 3


def grid() -> torch.Tensor:
    _, labels = spine()
    axes = [torch.arange(n).float() for n in labels.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def test_a_fracture_lowers_one_body_and_leaves_its_arch() -> None:
    _, labels = spine()
    kinds = set()
    for seed in range(12):
        config = always("fracture").model_copy(update={"fracture_loss": (0.4, 0.4)})
        moved = with_fracture(grid(), labels, MM, seeded(seed), config)
        i, j, k = moved.round().long().clamp(min=0).unbind(-1)
        broken = labels[i, j, k.clamp(max=labels.shape[2] - 1)]
        heights = {v: (broken[13:27, 20:32] == v).sum(-1) for v in (L1, L2, L3)}
        lost = [v for v in heights if int(heights[v].min()) < 10]
        assert len(lost) == 1
        (value,) = lost
        assert 5 <= int(heights[value].min()) <= 7, "40 % of 10 voxels"
        assert torch.equal((broken == value)[:, :19].sum(), (labels == value)[:, :19].sum())
        assert (moved[..., :2] == grid()[..., :2]).all()
        assert (moved[:, :, 1:, 2] >= moved[:, :, :-1, 2]).all(), "folded"
        back, front = (float(heights[value][:, j].float().mean()) for j in (0, 11))
        middle = float(heights[value][:, 7].float().mean())
        kinds.add("biconcave" if middle < front - 1 else "crush" if abs(front - middle) < 0.8 else "wedge")
        assert front < back or middle < back
    assert kinds == {"wedge", "crush", "biconcave"}


def test_a_body_without_vertebrae_has_no_findings() -> None:
    nothing = torch.zeros((24, 24, 24), dtype=torch.uint8)
    config = FindingsConfig.model_validate(
        dict.fromkeys((n for n in FindingsConfig.model_fields if n.endswith("_probability")), 1.0)
    )
    assert draw_vertebra(nothing, seeded()) is None
    assert not change_hu(torch.zeros(nothing.shape), nothing, nothing, MM, seeded(), config).any()
    tissue, labels = change_tissue(nothing, nothing, MM, seeded(), config)
    assert not tissue.any() and not labels.any()
    voxels = torch.zeros((2, 2, 2, 3))
    assert with_fracture(voxels, nothing, MM, seeded(), config) is voxels


def test_arms_lie_in_the_air_beside_the_spine() -> None:
    tissue = torch.zeros((160, 60, 60), dtype=torch.uint8)
    tissue[60:100, 15:45] = TISSUE_ID["muscle"]
    labels = torch.zeros_like(tissue)
    labels[76:84, 25:35, 10:50] = L1
    before = tissue.clone()
    bones = 0
    for seed in range(8):
        made = with_arms(tissue, labels, MM, seeded(seed))
        assert torch.equal(tissue, before)
        new = made != tissue
        assert (tissue[new] == TISSUE_ID["air"]).all()
        names = {"skin", "fat", "muscle", "bone_cortex", "bone_interior"}
        assert set(made[new].unique().tolist()) <= {TISSUE_ID[name] for name in names}
        bones += int((made == TISSUE_ID["bone_cortex"]).any())
        assert torch.equal(made, with_arms(tissue, labels, MM, seeded(seed)))
    assert bones >= 5


def test_a_full_body_leaves_no_room_for_arms() -> None:
    tissue = torch.full((40, 20, 20), TISSUE_ID["fat"], dtype=torch.uint8)
    assert torch.equal(with_arms(tissue, torch.zeros_like(tissue), MM, seeded()), tissue)


def test_gas_stays_in_a_map_that_ends_within_a_vertebra() -> None:
    """Of the only vertebra the lowest slice is there, at the upper border, with its disc below."""
    tissue, labels = (values[:, :, :7].contiguous() for values in spine())
    for seed in range(10):
        hu = change_hu(torch.zeros(tissue.shape), tissue, labels, MM, seeded(seed), always("vacuum"))
        assert hu.shape == tissue.shape
