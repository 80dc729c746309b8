import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from still import STILL
from vertebral.core.anatomy import BY_NAME
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ConfigError
from vertebral.core.volume import Volume
from vertebral.data.patches.network_input import Patch, class_of_verse_id, window
from vertebral.data.patches.synthetic_patches import SyntheticPatches
from vertebral.data.synthesis import artefacts, synthetic_ct
from vertebral.data.synthesis.body_cache import UNKNOWN_HU, CachedBody
from vertebral.data.synthesis.tissues import TISSUE_ID
from vertebral.stages.preprocess import prepare
from vertebral.training.config import TrainConfig

L1, L2 = BY_NAME["L1"].verse_id, BY_NAME["L2"].verse_id


def config(**changes: object) -> TrainConfig:
    synthesis = {"cache_spacing_mm": 2.0, **changes.pop("synthesis", {})}  # type: ignore[dict-item]
    network = {"kind": "resunet", "levels": ["L1", "L2"], "channels": [4, 8], "strides": [2]}
    values = {
        "model": {"name": "tiny", "network": network, "preprocess": {"spacing_mm": 2.0}},
        "data": {"kind": "synthetic", "sources": [{"kind": "body", "bodies": "*"}], "synthesis": synthesis},
        "patch": (16, 16, 16),
        "steps_per_epoch": 1,
        **changes,
    }
    return TrainConfig.model_validate(values)


def synthetic(bodies: list[CachedBody], settings: TrainConfig) -> SyntheticPatches:
    assert settings.data.kind == "synthetic"
    return SyntheticPatches(bodies, settings, settings.data.synthesis)


def cube_body(weight: float = 1.0, hu: np.ndarray | None = None) -> CachedBody:
    """Two cubes of bone, 8 voxels wide, in fat in air."""
    labels = np.zeros((32, 32, 40), np.uint8)
    labels[12:20, 12:20, 22:30] = L1
    labels[12:20, 12:20, 10:18] = L2
    tissue = np.zeros_like(labels)
    tissue[4:28, 4:28] = TISSUE_ID["fat"]
    tissue[labels > 0] = TISSUE_ID["vertebra_interior"]
    return CachedBody("cubes", weight, tissue, labels, hu)


def centred(dataset: SyntheticPatches, *centres: tuple[float, float, float]) -> SyntheticPatches:
    """Let patches be cut around these voxels, in turn, and nowhere else."""
    turns = itertools.cycle(torch.tensor(centre) for centre in centres)
    dataset._draw_centre = lambda *_: next(turns)  # type: ignore[method-assign]
    return dataset


IN_L1, IN_L2 = (15.5, 15.5, 25.5), (15.5, 15.5, 13.5)


def same(one: Patch, other: Patch) -> bool:
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_a_patch_has_the_shapes_types_and_range_of_the_networks_input() -> None:
    dataset = centred(synthetic([cube_body()], config()), IN_L1, IN_L2)
    classes_seen: set[int] = set()
    for index in range(6):
        image, classes = dataset[index]
        assert image.shape == (1, 16, 16, 16) and image.dtype == torch.float32
        assert classes.shape == (16, 16, 16) and classes.dtype == torch.uint8
        assert float(image.min()) >= 0 and float(image.max()) <= 1
        classes_seen.update(classes.unique().tolist())
    assert classes_seen == {0, 1, 2}


def test_a_patch_is_a_function_of_seed_and_index() -> None:
    one, again = (synthetic([cube_body()], config(seed=3)) for _ in range(2))
    assert same(one[5], again[5])
    one[0]
    torch.rand(3)
    assert same(one[5], again[5]), "a patch depends on what was drawn before"
    assert not same(one[5], one[6])
    assert not same(one[5], synthetic([cube_body()], config(seed=4))[5])


def test_loader_processes_give_the_same_batches() -> None:
    def batches(workers: int) -> list[Patch]:
        sampler = [[0, 1], [2, 3], [4, 5]]
        return list(DataLoader(synthetic([cube_body()], config()), batch_sampler=sampler, num_workers=workers))

    for one, other in zip(batches(0), batches(2), strict=True):
        assert same((one[0], one[1]), (other[0], other[1]))


def test_image_and_label_are_sampled_at_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under every pose a voxel deep in bone is labelled and bright, and one deep in fat is neither."""
    known = np.full((32, 32, 40), -100, np.int16)
    known[12:20, 12:20, 22:30] = 900
    known[12:20, 12:20, 10:18] = 500
    body = cube_body(hu=known)
    monkeypatch.setattr(artefacts, "scan", lambda hu, *_: hu)
    dataset = centred(synthetic([body], config(synthesis={"crop_probability": 0})), IN_L1, IN_L2)
    compared = 0
    for index in range(12):
        image, classes = dataset[index]
        hu = image[0] * 1100 - 100
        # The voxel nearest to a point has an eighth or more of the weight in the linear image.
        assert (hu[classes == 1] >= -100 + 1000 / 8 - 1).all()
        assert (hu[classes == 2] >= -100 + 600 / 8 - 1).all()
        assert (classes[hu > 899] == 1).all()
        assert (classes[hu < -99] == 0).all()
        compared += int((hu > 899).sum())
    assert compared > 1000


def test_a_still_patch_is_the_body_itself() -> None:
    """Centred on the middle of L1 at the body's own spacing, labels are the body's, voxel by voxel."""
    _, classes = centred(synthetic([cube_body()], config(synthesis=STILL)), IN_L1)[0]
    expected = cube_body().labels[8:24, 8:24, 18:34]
    assert np.array_equal(classes.numpy(), np.where(expected == L1, 1, np.where(expected == L2, 2, 0)))


def test_centres_are_the_middles_of_the_levels() -> None:
    (centres,) = synthetic([cube_body()], config())._centres
    # Every other voxel is looked at: half a voxel off.
    assert centres.tolist() == [[15, 15, 25], [15, 15, 13]]


def test_a_level_of_one_voxel_has_a_centre_too() -> None:
    body = cube_body()
    body.labels[5, 5, 5] = 24
    centres = synthetic([body], config())._centres[0]
    assert centres[-1].tolist() == [5, 5, 5]


def test_a_body_without_a_level_is_refused() -> None:
    body = cube_body()
    body.labels[:] = 0
    with pytest.raises(ConfigError, match="cubes: contains no vertebra"):
        synthetic([body], config())


def test_outside_the_body_is_air_and_background() -> None:
    """The patch covers voxels 23.5 to 38.5 of 32 along the first axis; fat ends at 27."""
    image, classes = centred(synthetic([cube_body()], config(synthesis=STILL)), (31.0, 15.5, 25.5))[0]
    assert image[0, 5:].max() == 0 and classes.max() == 0


@pytest.mark.parametrize("centre", [(500.0, 15, 15), (15, -500.0, 15), (15, 15, 48.2), (15, 15, 47.5)])
def test_a_patch_beside_the_body_is_air(centre: tuple[float, float, float]) -> None:
    image, classes = centred(synthetic([cube_body()], config(synthesis=STILL)), centre)[0]
    assert image.max() == 0 and classes.max() == 0


def test_what_the_field_of_view_cuts_off_is_air_without_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same patch with and without its upper half."""
    dataset = centred(synthetic([cube_body()], config(synthesis=STILL)), IN_L1)
    whole = dataset[0]

    def lower_half(*drawn: object) -> tuple[slice, ...]:
        patches_view(*drawn)
        return slice(0, 16), slice(0, 16), slice(0, 8)

    patches_view = synthetic_ct.draw_field_of_view
    monkeypatch.setattr(synthetic_ct, "draw_field_of_view", lower_half)
    image, classes = dataset[0]
    assert whole[1][:, :, 8:].max() == 1
    assert classes[:, :, 8:].max() == 0 and image[:, :, :, 8:].max() == 0
    assert torch.equal(classes[:, :, :8], whole[1][:, :, :8])
    assert torch.equal(image[:, :, :, :8], whole[0][:, :, :, :8])


def test_a_level_that_the_network_does_not_know_is_background() -> None:
    body = cube_body()
    body.labels[body.labels == L2] = BY_NAME["T13"].verse_id
    dataset = centred(synthetic([body], config()), IN_L1, IN_L2)
    assert {int(v) for index in range(4) for v in dataset[index][1].unique()} == {0, 1}


def test_known_hu_is_not_painted_over(monkeypatch: pytest.MonkeyPatch) -> None:
    known = np.full((32, 32, 40), UNKNOWN_HU, np.int16)
    known[12:20, 12:20, 22:30] = 777
    dataset = centred(synthetic([cube_body(hu=known)], config(synthesis=STILL)), IN_L1)
    monkeypatch.setattr(artefacts, "scan", lambda hu, *_: hu)
    image, classes = dataset[0]
    hu = image[0] * 1100 - 100
    assert hu[classes == 1].tolist() == pytest.approx([777] * 512, abs=0.1)
    assert float(hu[classes == 0].max()) < 500


def test_bodies_are_drawn_by_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []

    def note(which: int, _: torch.Generator) -> torch.Tensor:
        chosen.append(which)
        return torch.tensor([15.5, 15.5, 500])

    dataset = synthetic([cube_body(weight=1.0), cube_body(weight=3.0)], config(synthesis=STILL))
    monkeypatch.setattr(dataset, "_draw_centre", note)
    for index in range(100):
        dataset[index]
    assert 65 <= sum(chosen) <= 85


@pytest.mark.parametrize(
    "settings",
    [
        PreprocessConfig(spacing_mm=2.0),
        PreprocessConfig(spacing_mm=2.0, scaling="zscore", window_hu=(-500, 1300), mean_hu=90.0, std_hu=250.0),
    ],
)
def test_the_window_is_that_of_inference(settings: PreprocessConfig) -> None:
    hu = np.linspace(-1000, 2000, 27, dtype=np.float32).reshape(3, 3, 3)
    expected = prepare(Volume(hu, np.diag([2.0, 2, 2, 1])), settings).volume.array
    assert torch.allclose(window(torch.from_numpy(hu), settings), torch.from_numpy(expected), atol=1e-6)


def test_classes_follow_the_order_of_the_levels() -> None:
    classes = class_of_verse_id(("L2", "sacrum", "C1"))
    assert {n: int(c) for n, c in enumerate(classes) if c} == {21: 1, 26: 2, 1: 3}


def test_spine_is_any_vertebra_and_no_sacrum() -> None:
    classes = class_of_verse_id(("spine",))
    assert [n for n, c in enumerate(classes) if c] == [*range(1, 26), 28]
    assert set(classes.unique().tolist()) == {0, 1}
