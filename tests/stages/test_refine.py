from collections.abc import Callable
from dataclasses import replace
from typing import cast

import cc3d
import numpy as np
import pytest
import torch
from scipy import ndimage

from rule_sets import undocumented
from vertebral.core.anatomy import BY_NAME, parse_levels
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ModelError
from vertebral.core.records import Evidence, Instance, Instances
from vertebral.core.volume import Grid, Volume
from vertebral.data.phantom import Phantom, make_phantom
from vertebral.evaluation.metrics import dice
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.networks import UNetConfig, build_network
from vertebral.stages.identify import identify, provisional_levels
from vertebral.stages.instances import find_instances
from vertebral.stages.preprocess import prepare_labels
from vertebral.stages.reconstruct import reconstruct
from vertebral.stages.refine import RefineRules, _Context, _predicted_again, _Refined, refine, refine_at
from vertebral.stages.refine.candidate import Candidate
from vertebral.stages.refine.missing_vertebrae import _beyond
from vertebral.stages.refine.predictor import Predictor
from vertebral.stages.restore import restore

COARSE_MM, FINE_MM = 4.0, 2.0
LEVELS = parse_levels("T12,L1,L2")
CONFIG = ModelConfig(
    name="fine",
    network=UNetConfig(levels=("spine",), guided=True, channels=(2, 4), strides=(2,), residual_units=1),
    preprocess=PreprocessConfig(spacing_mm=FINE_MM),
    inference=InferenceConfig(window=(64, 64, 40)),
)
CPU = torch.device("cpu")
Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Stub(torch.nn.Module):
    """Logits from a rule over (CT, mark), each (I, J, K)."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image)
        logit = self.rule(image[0, 0], image[0, 1])
        return torch.stack([torch.zeros_like(logit), logit])[None]


def bone_at_mark(ct: torch.Tensor, mark: torch.Tensor) -> torch.Tensor:
    """The connected bone that is nearest to the middle."""
    pieces = cc3d.connected_components((ct > 0.3).numpy(), connectivity=6)
    where = np.argwhere(pieces > 0)
    nearest = where[np.argmin(((where - (np.array(ct.shape) - 1) / 2) ** 2).sum(1))]
    return torch.where(torch.from_numpy(pieces == pieces[tuple(nearest)]), 4.0, -4.0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return spaced_phantom("T12,L1,L2")


def spaced_phantom(names: str) -> Phantom:
    """Its labels, and a CT of 500 HU in bone and 40 HU elsewhere; vertebrae do not touch."""
    levels = parse_levels(names)
    made = make_phantom(levels, FINE_MM)
    labels = made.labels.array.copy()
    for level in levels:
        own = labels == level.verse_id
        neighbours = (labels > 0) & ~own
        labels[own & ndimage.binary_dilation(neighbours, np.ones((3, 3, 3)))] = 0
    hu = np.where(labels > 0, 500, 40).astype(np.int16)
    return replace(made, ct=Volume(hu, made.ct.affine), labels=Volume(labels, made.labels.affine))


def coarse_evidence(labels: Volume) -> Evidence:
    """What a network at 4 mm says that is nearly sure of all but its rim, which it does not see."""
    coarse = prepare_labels(labels, COARSE_MM)
    levels = tuple(level for level in parse_levels("T11-L3") if level.verse_id in labels.array)
    first = np.zeros(coarse.array.shape, np.uint8)
    for number, level in enumerate(levels, start=1):
        first[coarse.array == level.verse_id] = number
    sure, rest = np.full(first.shape, 230, np.uint8), np.full(first.shape, 25, np.uint8)
    return Evidence(first, np.where(first, 0, 1).astype(np.uint8), sure, rest, levels, coarse.grid)


def refined(
    phantom: Phantom, rule: Rule, config: ModelConfig = CONFIG, change: Callable[[Instances], Instances] = lambda i: i
) -> Instances:
    evidence = coarse_evidence(phantom.labels)
    return refine(change(find_instances(evidence)), evidence, phantom.ct, Stub(rule), config, CPU, provisional_levels)


def spine_dice(instances: Instances, labels: Volume) -> float:
    return dice(restore(identify(instances), labels.grid).labels.array > 0, labels.array > 0)


def on_whole_grid(instances: Instances) -> np.ndarray:
    """(vertebrae, I, J, K): occupancies."""
    found = np.zeros((len(instances.items), *instances.grid.shape), np.float32)
    for n, item in enumerate(instances.items):
        found[(n, *item.box)] = item.occupancy
    return found


def test_bone_at_fine_spacing_is_better_than_coarse(phantom: Phantom) -> None:
    evidence, shares = coarse_evidence(phantom.labels), list[float]()
    coarse = find_instances(evidence)
    fine = refine(coarse, evidence, phantom.ct, Stub(bone_at_mark), CONFIG, CPU, provisional_levels, shares.append)
    assert fine.grid.spacing_mm == pytest.approx((FINE_MM,) * 3)
    assert fine.warnings == coarse.warnings and shares == pytest.approx([1 / 3, 2 / 3, 1])
    spine = identify(fine)
    assert [v.level for v in spine.vertebrae] == list(LEVELS)
    before, after = spine_dice(coarse, phantom.labels), spine_dice(fine, phantom.labels)
    assert after > before + 0.05 and after > 0.97
    for vertebra in spine.vertebrae:
        truth = phantom.ct.grid.to_world(np.argwhere(phantom.labels.array == vertebra.level.verse_id).mean(0))
        assert vertebra.instance.centroid_mm == pytest.approx(truth, abs=1)
    assert len(reconstruct(spine)) == 3


def test_the_coarse_shape_does_not_matter(phantom: Phantom) -> None:
    """Half of each coarse vertebra is missing; the answer is whole all the same."""

    def halved(instances: Instances) -> Instances:
        items = []
        for item in instances.items:
            occupancy = item.occupancy.copy()
            occupancy[: occupancy.shape[0] // 2] = 0
            items.append(replace(item, occupancy=occupancy))
        return replace(instances, items=tuple(items))

    assert spine_dice(refined(phantom, bone_at_mark, change=halved), phantom.labels) > 0.97


def test_class_masses_are_those_of_the_new_shapes(phantom: Phantom) -> None:
    """Each vertebra's evidence is 230 / 255 of its voxels for its own level and 25 / 255 for background."""
    evidence = coarse_evidence(phantom.labels)
    for number, item in enumerate(refined(phantom, bone_at_mark).items, start=1):
        voxels = np.count_nonzero(evidence.first == number)
        assert item.class_mass[number] == pytest.approx(voxels * 230 / 255, rel=0.2)
        assert item.class_mass[number] > 0.99 * item.class_mass[1:].sum()


def test_no_voxel_is_owned_twice(phantom: Phantom) -> None:
    """A network that takes all bone in its box for the vertebra is held back by the neighbours."""

    def greedy(ct: torch.Tensor, mark: torch.Tensor) -> torch.Tensor:
        near = (torch.arange(ct.shape[2]) - (ct.shape[2] - 1) / 2).abs() < 12
        return torch.where((ct > 0.3) & near, 1 + mark, -4.0)

    values = on_whole_grid(refined(phantom, greedy))
    assert len(values) == 3
    assert ((values >= 0.5).sum(0) <= 1).all()
    assert not ((values > 127 / 255 + 1e-6) & (values < 128 / 255 - 1e-6)).any()


def test_the_network_sees_ct_and_mark_around_the_centroid(phantom: Phantom) -> None:
    stub, evidence = Stub(bone_at_mark), coarse_evidence(phantom.labels)
    refine(find_instances(evidence), evidence, phantom.ct, stub, CONFIG, CPU, provisional_levels)
    assert {tuple(image.shape) for image in stub.seen} == {(1, 2, 64, 64, 40)}
    for image in stub.seen:
        assert image.dtype == torch.float32 and float(image.min()) >= 0 and float(image.max()) <= 1
        middle = (image[0, 1] == image[0, 1].max()).nonzero().float().mean(0)
        assert middle.tolist() == pytest.approx([31.5, 31.5, 19.5])
    for image in stub.seen[:3]:  # what follows looks beyond the ends
        own = (bone_at_mark(image[0, 0], image[0, 1]) > 0).nonzero().float().mean(0)
        assert own.tolist() == pytest.approx([31.5, 31.5, 19.5], abs=3)


def test_a_second_look_starts_at_the_centroid_of_the_first_answer(phantom: Phantom) -> None:
    def aside(instances: Instances) -> Instances:
        x, y, z = instances.items[1].centroid_mm
        return replace(instances, items=(replace(instances.items[1], centroid_mm=(x + 6, y, z)),))

    stub, evidence = Stub(bone_at_mark), coarse_evidence(phantom.labels)
    refine(aside(find_instances(evidence)), evidence, phantom.ct, stub, CONFIG, CPU, provisional_levels)
    assert len(stub.seen) == 2
    wholes = [(bone_at_mark(image[0, 0], image[0, 1]) > 0).nonzero().float().mean(0) for image in stub.seen]
    assert float(wholes[0][0]) == pytest.approx(28.5, abs=1.5) and float(wholes[1][0]) == pytest.approx(31.5, abs=0.6)


@pytest.mark.parametrize("rule", ["nothing", "elsewhere"])
def test_an_answer_far_from_the_coarse_result_is_not_taken(phantom: Phantom, rule: str) -> None:
    def answer(ct: torch.Tensor, mark: torch.Tensor) -> torch.Tensor:
        corner = torch.full(ct.shape, -4.0)
        corner[:6, :6, :6] = 4.0 if rule == "elsewhere" else -4.0
        return corner

    fine = refined(phantom, answer)
    (warning,) = fine.warnings
    assert warning.startswith("refinement rejected because its mask differed too much; the coarse mask was kept: (")
    assert warning.count("(") == 4 and warning.endswith("mm (RAS)")
    coarse = find_instances(coarse_evidence(phantom.labels))
    assert spine_dice(fine, phantom.labels) == pytest.approx(spine_dice(coarse, phantom.labels), abs=0.03)


def test_a_vertebra_found_twice_is_one(phantom: Phantom) -> None:
    """A fourth instance, a slab cut from the top of L1, leads the network to L1 once more."""

    def split(instances: Instances) -> Instances:
        item = instances.items[1]
        occupancy = item.occupancy.copy()
        occupancy[..., : -(occupancy.shape[2] // 2)] = 0
        x, y, z = item.centroid_mm
        return replace(
            instances, items=(*instances.items, replace(item, occupancy=occupancy, centroid_mm=(x, y, z + 3)))
        )

    fine = refined(phantom, bone_at_mark, change=split)
    assert [v.level for v in identify(fine).vertebrae] == list(LEVELS)
    assert any(w.startswith("vertebra found twice by the coarse network, duplicate removed: (") for w in fine.warnings)
    assert spine_dice(fine, phantom.labels) > 0.97


def test_a_vertebra_missing_between_two_others_is_found() -> None:
    """Of T11 to L3 the middle one, L1, is missing; where it is there, nothing is looked for."""
    phantom = spaced_phantom("T11,T12,L1,L2,L3")

    def without_middle(instances: Instances) -> Instances:
        return replace(instances, items=(*instances.items[:2], *instances.items[3:]))

    fine = refined(phantom, bone_at_mark, change=without_middle)
    assert len(fine.items) == 5 and spine_dice(fine, phantom.labels) > 0.97
    assert [v.level.name for v in identify(fine).vertebrae] == ["T11", "T12", "L1", "L2", "L3"]
    (warning,) = fine.warnings
    assert warning.startswith("vertebra missing from the coarse result, added by the refiner: (")
    assert refined(phantom, bone_at_mark).warnings == ()

    def nothing_there(ct: torch.Tensor, mark: torch.Tensor) -> torch.Tensor:
        """No bone but what is within 10 voxels of the middle."""
        return torch.where(mark > 0.05, bone_at_mark(ct, mark), -4.0)

    empty = phantom.ct.array.copy()
    empty[phantom.labels.array == BY_NAME["L1"].verse_id] = 40
    hollow = replace(phantom, ct=Volume(empty, phantom.ct.affine))
    assert len(refined(hollow, nothing_there, change=without_middle).items) == 4


def test_two_vertebrae_that_were_merged_are_separated() -> None:
    """T12 and L1 are one instance, whose centroid lies between them; from there the network segments one of them."""
    phantom = spaced_phantom("T11,T12,L1,L2,L3")

    def joined(instances: Instances) -> Instances:
        upper, lower = instances.items[1:3]
        middle = tuple(float(a + b) / 2 for a, b in zip(upper.centroid_mm, lower.centroid_mm, strict=True))
        whole = [np.zeros(instances.grid.shape, np.float32) for _ in range(2)]
        for values, item in zip(whole, (upper, lower), strict=True):
            values[item.box] = item.occupancy
        both = replace(
            upper,
            occupancy=np.maximum(*whole),
            box=tuple(slice(0, n) for n in instances.grid.shape),
            class_mass=upper.class_mass + lower.class_mass,
            centroid_mm=middle,
        )
        return replace(instances, items=(instances.items[0], both, *instances.items[3:]))

    fine = refined(phantom, bone_at_mark, change=joined)
    assert [v.level.name for v in identify(fine).vertebrae] == ["T11", "T12", "L1", "L2", "L3"]
    assert spine_dice(fine, phantom.labels) > 0.97


@pytest.mark.parametrize(("seen", "count"), [(0.3, 5), (0.1, 4)])
@pytest.mark.parametrize("end", [0, 4])
def test_a_missing_end_is_found_where_there_is_evidence_of_bone(end: int, seen: float, count: int) -> None:
    """T11 or L3 is no instance; the coarse network took its voxels for bone of a spine with this probability."""
    phantom = spaced_phantom("T11,T12,L1,L2,L3")
    evidence = coarse_evidence(phantom.labels)
    items = find_instances(evidence).items
    left = tuple(item for n, item in enumerate(items) if n != end)
    weak = evidence.first == end + 1
    evidence.first[weak], evidence.second[weak] = 0, end + 1
    evidence.first_probability[weak], evidence.second_probability[weak] = 255 * (1 - seen), 255 * seen
    coarse = Instances(left, evidence.levels, evidence.grid)
    fine = refine(coarse, evidence, phantom.ct, Stub(bone_at_mark), CONFIG, CPU, provisional_levels)
    assert len(fine.items) == count
    if count == 5:
        assert [v.level.name for v in identify(fine).vertebrae] == ["T11", "T12", "L1", "L2", "L3"]


def test_islands_of_an_answer_are_dropped(phantom: Phantom) -> None:
    def answer(ct: torch.Tensor, mark: torch.Tensor) -> torch.Tensor:
        logit = bone_at_mark(ct, mark)
        logit[:2, :2, :2] = 4.0
        return logit

    for item in refined(phantom, answer).items:
        assert max(s.stop - s.start for s in item.box[:2]) < 58


@pytest.mark.parametrize("axcodes", ["LPI", "SAR", "PIL"])
@pytest.mark.parametrize("oblique", [False, True])
def test_any_orientation_gives_the_same_spine(phantom: Phantom, axcodes: str, oblique: bool) -> None:
    turn = np.eye(4)
    if oblique:
        c, s = np.cos(0.2), np.sin(0.2)
        turn[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    ct, labels = (Volume(v.array, turn @ v.affine).reoriented(axcodes) for v in (phantom.ct, phantom.labels))
    fine = refined(replace(phantom, ct=ct, labels=labels), bone_at_mark)
    assert spine_dice(fine, labels) > 0.97


def test_a_real_network_fits(phantom: Phantom) -> None:
    evidence = coarse_evidence(phantom.labels)
    torch.manual_seed(0)
    network = build_network(CONFIG.network)
    fine = refine(find_instances(evidence), evidence, phantom.ct, network, CONFIG, CPU, provisional_levels)
    assert len(fine.items) == 3


def test_nothing_found_stays_nothing(phantom: Phantom) -> None:
    evidence = coarse_evidence(phantom.labels)
    empty = Instances((), LEVELS, evidence.grid, ("none",))
    assert refine(empty, evidence, phantom.ct, Stub(bone_at_mark), CONFIG, CPU, provisional_levels) is empty


def test_what_is_no_refiner_is_refused(phantom: Phantom) -> None:
    plain = CONFIG.model_copy(update={"network": UNetConfig(levels=("L1",))})
    with pytest.raises(ModelError, match="model fine"):
        refined(phantom, bone_at_mark, plain)
    with pytest.raises(ModelError, match="not finite"):
        refined(phantom, lambda ct, mark: ct * torch.nan)
    with pytest.raises(ModelError, match="window"):
        refined(phantom, lambda ct, mark: ct[1:])


def test_centres_set_by_hand_give_their_vertebrae_in_order(phantom: Phantom) -> None:
    truth = [np.argwhere(phantom.labels.array == level.verse_id).mean(0) for level in LEVELS]
    centres_mm = [phantom.labels.grid.to_world(voxel) + 3 for voxel in truth][::-1]
    found = refine_at(centres_mm, phantom.ct, Stub(bone_at_mark), CONFIG, CPU)
    for item, voxel in zip(found.items, truth[::-1], strict=True):
        assert item.centroid_mm == pytest.approx(phantom.labels.grid.to_world(voxel), abs=1)
    nothing = Stub(lambda ct, mark: torch.full(ct.shape, -4.0))
    with pytest.raises(ModelError, match=r"no vertebra was found at \("):
        refine_at(centres_mm, phantom.ct, nothing, CONFIG, CPU)


def test_what_the_border_of_the_scan_cuts_touches_it(phantom: Phantom) -> None:
    """The scan ends in the middle of T12; the other two are whole."""
    middle = round(np.argwhere(phantom.labels.array == BY_NAME["T12"].verse_id).mean(0)[2])
    i, j, _ = phantom.ct.array.shape
    view = (slice(0, i), slice(0, j), slice(0, middle))
    cut = replace(phantom, ct=phantom.ct.cropped(view), labels=phantom.labels.cropped(view))
    assert [item.touches_border for item in refined(cut, bone_at_mark).items] == [True, False, False]
    assert [item.touches_border for item in refined(phantom, bone_at_mark).items] == [False] * 3


class FakePredictor:
    """Predicts one candidate at every centre, and records the centres."""

    grid = Grid((4, 4, 40), np.eye(4))
    rules = RefineRules()

    def __init__(self, answer: Candidate) -> None:
        self.answer, self.centres_mm = answer, list[list[float]]()

    def predict_at(self, centre_mm: list[float]) -> Candidate:
        self.centres_mm.append(centre_mm)
        return self.answer


def column(low: int, high: int, value: float) -> Candidate:
    values = np.zeros((4, 4, 40), np.float32)
    values[:, :, low:high] = value
    return Candidate(values, (slice(0, 4), slice(0, 4), slice(0, 40)))


def test_a_vertebra_that_its_neighbours_have_moved_is_predicted_again() -> None:
    """One of 20 mm loses its upper half to the one above: its centroid falls from 9.5 to 4.5 mm."""
    wide, above, answer = column(0, 20, 0.6), column(10, 30, 0.9), column(0, 11, 0.8)
    instances = Instances((), (BY_NAME["L1"], BY_NAME["sacrum"]), FakePredictor.grid)

    def after(predictor: FakePredictor, name: str) -> list[Candidate]:
        mass = np.array([0.0, name == "L1", name == "sacrum"])
        item = Instance(wide.values, wide.box, mass, (0.0, 0.0, 0.0), touches_border=False)
        refined = [_Refined(item, one, 1.0) for one in (wide, above)]
        evidence = cast(Evidence, None)
        context = _Context(instances, evidence, cast(Predictor, predictor), provisional_levels)
        return [entry.candidate for entry in _predicted_again(refined, context)]

    predictor = FakePredictor(answer)
    assert after(predictor, "L1") == [answer, above]
    assert predictor.centres_mm == [pytest.approx([1.5, 1.5, 4.5])]
    assert after(predictor, "sacrum") == [wide, above]
    assert after(FakePredictor(column(30, 40, 0.8)), "L1") == [wide, above]


@pytest.mark.parametrize(("lowest", "centres_mm"), [(9, [[1.5, 1.5, 1.5]]), (6, [[1.5, 1.5, 0.0]]), (3, [])])
def test_what_the_border_cuts_is_looked_for_from_the_border(lowest: int, centres_mm: list[list[float]]) -> None:
    """Three vertebrae 11 mm apart; the next should be at 1.5, at -1.5 or, more than a quarter step out, at -4.5 mm."""
    candidates = [column(z, z + 8, 0.9) for z in (lowest, lowest + 11, lowest + 22)]
    predictor = FakePredictor(column(0, 4, 0.9))
    spine = np.ones(FakePredictor.grid.shape, np.float32)
    found = _beyond(candidates, cast(Predictor, predictor), spine, FakePredictor.grid)
    assert predictor.centres_mm == centres_mm
    assert len(found) == len(centres_mm)


def test_every_rule_has_a_unit_and_a_source() -> None:
    assert undocumented(RefineRules) == []


def test_rules_can_be_varied(phantom: Phantom) -> None:
    """If an answer must agree completely with the coarse vertebra, none does and all coarse shapes stay."""
    evidence = coarse_evidence(phantom.labels)
    strict = RefineRules(min_dice=1.0)
    network = Stub(bone_at_mark)
    coarse = find_instances(evidence)
    fine = refine(coarse, evidence, phantom.ct, network, CONFIG, CPU, provisional_levels, rules=strict)
    (warning,) = fine.warnings
    assert warning.startswith("refinement rejected") and warning.count("(") == 4
