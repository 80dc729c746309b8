from dataclasses import replace

import numpy as np
import pytest
import torch

from vertebral.anatomy import parse_levels
from vertebral.config import InferenceConfig, ModelConfig, PreprocessConfig, UNetConfig
from vertebral.data.phantom import Phantom, make_phantom
from vertebral.errors import ModelError
from vertebral.evaluation.metrics import dice
from vertebral.preprocess import prepare, prepare_labels, restore
from vertebral.reconstruct import reconstruct
from vertebral.records import Instance, Spine, Vertebra
from vertebral.refine import refine
from vertebral.volume import Volume

COARSE_MM, FINE_MM = 4.0, 2.0
CONFIG = ModelConfig(
    name="fine",
    network=UNetConfig(levels=("spine",), guided=True, channels=(2, 4), strides=(2,), residual_units=1),
    preprocess=PreprocessConfig(spacing_mm=FINE_MM),
    inference=InferenceConfig(window=(64, 64, 40)),
)
CPU = torch.device("cpu")


class Stub(torch.nn.Module):
    """Logits from a rule over (CT, guidance), each (I, J, K)."""

    def __init__(self, rule: object) -> None:
        super().__init__()
        self.rule = rule
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image)
        logit = self.rule(image[0, 0], image[0, 1])  # type: ignore[operator]
        return torch.stack([torch.zeros_like(logit), logit])[None]


def bright_near_guidance(ct: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
    """Bone by its HU, of this vertebra within 2 voxels of the guidance, surely where the guidance is sure."""
    wide = torch.nn.functional.max_pool3d((guidance > 0.3).float()[None, None], 5, 1, 2)[0, 0]
    return torch.where((ct > 0.3) & (wide > 0), 2 + 3 * guidance, -4.0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """Its labels, and a CT of 500 HU in bone and 40 HU elsewhere."""
    made = make_phantom(parse_levels("T12,L1,L2"), FINE_MM)
    hu = np.where(made.labels.array > 0, 500, 40).astype(np.int16)
    return replace(made, ct=Volume(hu, made.ct.affine))


def coarse_spine(labels: Volume) -> Spine:
    """What a network at 4 mm finds: the voxels of each level, hard, on the grid of `prepare`."""
    coarse = prepare_labels(labels, COARSE_MM)
    vertebrae = []
    for level in parse_levels("T12,L1,L2"):
        own = coarse.array == level.verse_id
        spans = [np.flatnonzero(own.any(tuple({0, 1, 2} - {a}))) for a in range(3)]
        box = tuple(slice(max(0, int(s[0]) - 2), int(s[-1]) + 3) for s in spans)
        centre = coarse.grid.to_world(np.argwhere(own).mean(0))
        values = own[box].astype(np.float32)
        stop = tuple(slice(b.start, b.start + n) for b, n in zip(box, values.shape, strict=True))
        instance = Instance(values, stop, np.ones(2), tuple(centre), False)  # type: ignore[arg-type]
        vertebrae.append(Vertebra(level, 0.9, instance))
    return Spine(tuple(vertebrae), coarse.grid, ("before",))


def spine_dice(spine: Spine, labels: Volume) -> float:
    return dice(restore(spine, labels.grid).labels.array > 0, labels.array > 0)


def on_whole_grid(spine: Spine) -> np.ndarray:
    """(vertebrae, I, J, K): occupancies."""
    found = np.zeros((len(spine.vertebrae), *spine.grid.shape), np.float32)
    for n, vertebra in enumerate(spine.vertebrae):
        found[(n, *vertebra.instance.box)] = vertebra.instance.occupancy
    return found


def test_bone_at_fine_spacing_is_better_than_coarse(phantom: Phantom) -> None:
    coarse = coarse_spine(phantom.labels)
    shares: list[float] = []
    fine = refine(coarse, phantom.ct, Stub(bright_near_guidance), CONFIG, CPU, shares.append)
    assert fine.grid.spacing_mm == pytest.approx((FINE_MM,) * 3)
    assert [v.level for v in fine.vertebrae] == [v.level for v in coarse.vertebrae]
    assert fine.warnings == ("before",) and shares == pytest.approx([1 / 3, 2 / 3, 1])
    before, after = spine_dice(coarse, phantom.labels), spine_dice(fine, phantom.labels)
    assert after > before + 0.05 and after > 0.97
    for vertebra in fine.vertebrae:
        truth = phantom.ct.grid.to_world(np.argwhere(phantom.labels.array == vertebra.level.verse_id).mean(0))
        assert vertebra.instance.centroid_mm == pytest.approx(truth, abs=3)
    assert len(reconstruct(fine)) == 3


def test_no_voxel_is_owned_twice(phantom: Phantom) -> None:
    """A network that takes all bone in its box for the vertebra is held back by the neighbours."""
    greedy = Stub(lambda ct, guidance: torch.where(ct > 0.3, 1 + guidance, -4.0))
    fine = refine(coarse_spine(phantom.labels), phantom.ct, greedy, CONFIG, CPU)
    values = on_whole_grid(fine)
    assert ((values >= 0.5).sum(0) <= 1).all()
    assert not ((values > 127 / 255 + 1e-6) & (values < 128 / 255 - 1e-6)).any()
    for found, vertebra in zip(values, fine.vertebrae, strict=True):
        truth = prepare_labels(phantom.labels, FINE_MM).array == vertebra.level.verse_id
        origin = np.rint(phantom.labels.grid.to_voxel(fine.grid.affine[:3, 3])).astype(int)
        part = tuple(slice(o, o + n) for o, n in zip(origin, found.shape, strict=True))
        assert dice(found >= 0.5, truth[part]) > 0.9


def test_the_network_sees_ct_and_guidance_around_the_vertebra(phantom: Phantom) -> None:
    stub = Stub(bright_near_guidance)
    coarse = coarse_spine(phantom.labels)
    refine(coarse, phantom.ct, stub, CONFIG, CPU)
    assert [tuple(image.shape) for image in stub.seen] == [(1, 2, 64, 64, 40)] * 3
    for image in stub.seen:
        assert image.dtype == torch.float32 and float(image.min()) >= 0 and float(image.max()) <= 1
        spans = [torch.nonzero(image[0, 1].amax(tuple({0, 1, 2} - {a})) > 0.5) for a in range(3)]
        middle = [float(s.min() + s.max() + 1) / 2 for s in spans]
        assert middle == pytest.approx([32, 32, 20], abs=1)


@pytest.mark.parametrize("rule", ["nothing", "elsewhere"])
def test_an_answer_far_from_the_coarse_result_is_not_taken(phantom: Phantom, rule: str) -> None:
    def answer(ct: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        return torch.where((guidance < 0.1) & (rule == "elsewhere"), 4.0, -4.0)

    coarse = coarse_spine(phantom.labels)
    fine = refine(coarse, phantom.ct, Stub(answer), CONFIG, CPU)
    assert fine.warnings == ("before", "refined too far from the coarse result, which was kept: T12, L1, L2")
    assert spine_dice(fine, phantom.labels) == pytest.approx(spine_dice(coarse, phantom.labels), abs=0.03)


def test_crumbs_of_an_answer_are_dropped(phantom: Phantom) -> None:
    def answer(ct: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        logit = torch.where(guidance > 0.5, 4.0, -4.0)
        logit[:2, :2, :2] = 4.0
        return logit

    fine = refine(coarse_spine(phantom.labels), phantom.ct, Stub(answer), CONFIG, CPU)
    for vertebra in fine.vertebrae:
        assert max(s.stop - s.start for s in vertebra.instance.box[:2]) < 58


def test_what_the_box_does_not_hold_stays_coarse(phantom: Phantom) -> None:
    small = CONFIG.model_copy(update={"inference": InferenceConfig(window=(16, 16, 16))})
    sure = Stub(lambda ct, guidance: torch.where(guidance > 0.5, 4.0, -4.0))
    coarse = coarse_spine(phantom.labels)
    fine = refine(coarse, phantom.ct, sure, small, CPU)
    assert spine_dice(fine, phantom.labels) == pytest.approx(spine_dice(coarse, phantom.labels), abs=0.03)


@pytest.mark.parametrize("axcodes", ["LPI", "SAR", "PIL"])
@pytest.mark.parametrize("oblique", [False, True])
def test_any_orientation_gives_the_same_spine(phantom: Phantom, axcodes: str, oblique: bool) -> None:
    turn = np.eye(4)
    if oblique:
        c, s = np.cos(0.2), np.sin(0.2)
        turn[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    ct, labels = (Volume(v.array, turn @ v.affine).reoriented(axcodes) for v in (phantom.ct, phantom.labels))
    fine = refine(coarse_spine(labels), ct, Stub(bright_near_guidance), CONFIG, CPU)
    restored = restore(fine, prepare(ct, CONFIG.preprocess).source)
    assert restored.labels.grid.matches(labels.grid)
    assert dice(restored.labels.array > 0, labels.array > 0) > 0.97


def test_a_real_network_fits(phantom: Phantom) -> None:
    from vertebral.model import build_network

    fine = refine(coarse_spine(phantom.labels), phantom.ct, build_network(CONFIG.network), CONFIG, CPU)
    assert len(fine.vertebrae) == 3


def test_an_empty_spine_stays_empty(phantom: Phantom) -> None:
    empty = Spine((), phantom.ct.grid, ("none",))
    assert refine(empty, phantom.ct, Stub(bright_near_guidance), CONFIG, CPU) is empty


def test_what_is_no_refiner_is_refused(phantom: Phantom) -> None:
    coarse = coarse_spine(phantom.labels)
    plain = CONFIG.model_copy(update={"network": UNetConfig(levels=("L1",))})
    with pytest.raises(ModelError, match="model fine"):
        refine(coarse, phantom.ct, Stub(bright_near_guidance), plain, CPU)
    with pytest.raises(ModelError, match="not finite"):
        refine(coarse, phantom.ct, Stub(lambda ct, guidance: ct * torch.nan), CONFIG, CPU)
    with pytest.raises(ModelError, match="window"):
        refine(coarse, phantom.ct, Stub(lambda ct, guidance: ct[1:]), CONFIG, CPU)
