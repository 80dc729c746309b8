import numpy as np
import pytest
import torch
from pydantic import ValidationError

from still import STILL
from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import ConfigError
from vertebral.data.patches.vertebra_patches import VertebraPatches
from vertebral.data.synthesis.body_cache import CachedBody
from vertebral.data.synthesis.tissues import TISSUE_ID
from vertebral.stages.preprocess import centre_mark
from vertebral.training.config import TrainConfig

L1, L2, SACRUM = (BY_NAME[name].verse_id for name in ("L1", "L2", "sacrum"))


def config(centre_error_mm: float = 4.0, smallness: float = 0.0, **changes: object) -> TrainConfig:
    network = {"kind": "resunet", "levels": ["spine"], "guided": True, "channels": [4, 8], "strides": [2]}
    data = {
        "kind": "vertebrae",
        "sources": [{"kind": "body", "bodies": "*"}],
        "synthesis": STILL,
        "centre_error_mm": centre_error_mm,
        "smallness": smallness,
    }
    model = {
        "name": "tiny",
        "network": network,
        "preprocess": {"spacing_mm": 2.0},
        "inference": {"window": (24, 24, 24)},
    }
    values = {"model": model, "data": data, "patch": (24, 24, 24), "steps_per_epoch": 1}
    return TrainConfig.model_validate(values | changes)


def dataset(bodies: list[CachedBody], settings: TrainConfig) -> VertebraPatches:
    assert settings.data.kind == "vertebrae"
    return VertebraPatches(bodies, settings, settings.data)


def body(weight: float = 1.0) -> CachedBody:
    """Two cubes of 10 voxels, one above the other and apart by 2, a sacrum below and a level that the border cuts."""
    labels = np.zeros((32, 32, 48), np.uint8)
    labels[11:21, 11:21, 24:34] = L1
    labels[11:21, 11:21, 12:22] = L2
    labels[11:21, 11:21, 2:10] = SACRUM
    labels[11:21, 11:21, 40:] = 19
    tissue = np.full_like(labels, TISSUE_ID["muscle"])
    tissue[labels > 0] = TISSUE_ID["vertebra_interior"]
    return CachedBody("cubes", weight, tissue, labels, None)


def test_shapes_types_and_ranges() -> None:
    patches = dataset([body()], config())
    for index in range(4):
        image, classes = patches[index]
        assert image.shape == (2, 24, 24, 24) and image.dtype == torch.float32
        assert classes.shape == (24, 24, 24) and classes.dtype == torch.uint8
        assert float(image.min()) >= 0 and float(image.max()) <= 1
        assert classes.unique().tolist() == [0, 1]


def test_a_patch_is_a_function_of_seed_and_index() -> None:
    one, again = (dataset([body()], config(seed=3)) for _ in range(2))
    first = one[5]
    one[0]
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, again[5], strict=True))
    assert not torch.equal(first[0], one[6][0])
    assert not torch.equal(first[0], dataset([body()], config(seed=4))[5][0])


def test_without_error_the_vertebra_is_in_the_middle_and_the_mark_with_it() -> None:
    """Only L1 and L2 are whole vertebrae; the label is one cube of 10 voxels, whichever neighbours are shown."""
    patches = dataset([body()], config(0))
    for index in range(6):
        image, classes = patches[index]
        where = classes.nonzero()
        assert len(where) == 10**3
        assert where.float().mean(0).tolist() == pytest.approx([11.5] * 3, abs=0.6)
        assert torch.equal(image[1], torch.from_numpy(centre_mark((24, 24, 24), 2.0)))


@pytest.mark.parametrize(("smallness", "share"), [(0.0, 0.5), (1.0, 0.8)])
def test_small_vertebrae_are_drawn_as_often_as_asked(smallness: float, share: float) -> None:
    """L2 has a quarter of L1's volume: weights 1 to 1, or 1 to 4."""
    one = body()
    one.labels[16:21, 11:21, 12:22] = one.labels[11:21, 16:21, 12:22] = 0
    patches = dataset([one], config(0, smallness))
    small = [int(patches[index][1].sum()) < 500 for index in range(60)]
    # The seed is fixed; of 60 draws, 0.15 is more than two standard deviations.
    assert np.mean(small) == pytest.approx(share, abs=0.15)


def test_the_middle_misses_the_centroid_by_no_more_than_allowed() -> None:
    """A cube of 8 ml is missed by 4 mm x (8 / 40)^(1/3) = 2.34 mm, at most by twice that: 2.34 voxels of 2 mm."""
    patches = dataset([body()], config())
    missed = [patches[index][1].nonzero().float().mean(0) - 11.5 for index in range(20)]
    farthest = torch.stack(missed).abs().max()
    assert 0.8 < float(farthest) < 2.34 + 0.6


def test_the_neighbours_are_bright_but_not_the_answer() -> None:
    image, classes = dataset([body()], config(0))[0]
    column = image[0, 11, 11]
    assert float(column[classes[11, 11] > 0].mean()) > float(column[11:13].mean()) / 2
    assert float((image[0] > 0.15).sum()) > 1.3 * float(classes.sum())


def test_a_body_without_a_whole_vertebra_is_refused() -> None:
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[4:12, 4:12, 8:] = L1
    with pytest.raises(ConfigError, match="cut: contains no whole vertebra"):
        dataset([CachedBody("cut", 1.0, labels, labels, None)], config())


def test_guided_networks_and_vertebrae_belong_together() -> None:
    values = config().model_dump()
    values["model"]["network"]["guided"] = False
    with pytest.raises(ValidationError, match=r"guided networks \(refiners\) need vertebrae, others another kind"):
        TrainConfig.model_validate(values)
    values = config().model_dump()
    values["steps_per_epoch"] = None
    with pytest.raises(ValidationError, match="steps_per_epoch"):
        TrainConfig.model_validate(values)
