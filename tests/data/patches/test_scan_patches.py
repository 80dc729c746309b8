"""Patches of scans of a few voxels whose values say where they come from."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vertebral.core.anatomy import BY_NAME
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ConfigError
from vertebral.core.volume import Volume
from vertebral.data.patches import scan_patches
from vertebral.data.patches.config import AugmentConfig
from vertebral.data.patches.network_input import Patch
from vertebral.data.patches.scan_patches import ScanPatches
from vertebral.data.verse.prepared_set import PreparedScan
from vertebral.stages.preprocess import prepare
from vertebral.training.config import TrainConfig

L1, L2, T13, SACRUM = (BY_NAME[name].verse_id for name in ("L1", "L2", "T13", "sacrum"))
SHAPE, PATCH = (20, 22, 24), (8, 8, 8)
pytestmark = pytest.mark.usefixtures("one_thread")
NEVER = dict.fromkeys(
    [f"{name}_probability" for name in ("affine", "elastic", "mirror", "intensity", "noise", "blur")]
    + ["low_resolution_probability", "metal_probability"],
    0.0,
)
ALWAYS = dict.fromkeys(NEVER, 1.0)


def config(data: dict[str, Any] | None = None, levels: Any = ("L1", "L2"), **changes: Any) -> TrainConfig:
    network = {"kind": "resunet", "levels": levels, "channels": [4, 8], "strides": [2]}
    preprocess = {"window_hu": [-100, 1000], **changes.pop("preprocess", {})}
    inference = {"window": [8, 8, 8]}
    values = {
        "model": {"name": "tiny", "network": network, "preprocess": preprocess, "inference": inference},
        "data": {"kind": "scans", "augment": None, **(data or {})},
        "patch": PATCH,
        **changes,
    }
    return TrainConfig.model_validate(values)


def stored(folder: Path, ct: Any, labels: Any, bone: Any = None) -> PreparedScan:
    """A prepared scan with these arrays; all voxels of its labels are bone unless said."""
    folder.mkdir(parents=True)
    np.save(folder / "ct.npy", np.asarray(ct, np.int16))
    np.save(folder / "labels.npy", np.asarray(labels, np.uint8))
    np.save(folder / "bone.npy", np.asarray(np.argwhere(labels) if bone is None else bone, np.int32))
    return PreparedScan(
        case=folder.name,
        subject=folder.name,
        folder=folder,
        shape=ct.shape,
        spacing_mm=1.0,
        affine_rows=np.eye(4).tolist(),  # type: ignore[arg-type]
        levels=("L1",),
        sha256_ct="",
        sha256_labels="",
    )


def mixed(folder: Path, shape: tuple[int, int, int] = SHAPE, low: int = 0, **options: Any) -> PreparedScan:
    """HU drawn from 49 values upwards of `low`: no two patches are alike. One voxel of bone, in the middle."""
    hu = np.random.default_rng(0).integers(low, low + 49, shape)
    labels = np.zeros(shape, np.uint8)
    labels[tuple(n // 2 for n in shape)] = L1
    return stored(folder, hu, labels, **options)


def hu_of(sample: Patch) -> np.ndarray:
    return (sample[0][0] * 1100 - 100).numpy()


def start_of(sample: Patch, scan: PreparedScan) -> tuple[int, ...]:
    """Where in the scan the patch was cut, told by its values."""
    windows = np.lib.stride_tricks.sliding_window_view(scan.ct, PATCH)
    found = np.argwhere((np.abs(windows - hu_of(sample)) < 0.1).all(axis=(3, 4, 5)))
    assert len(found) == 1
    return tuple(found[0].tolist())


def same(one: Patch, other: Patch) -> bool:
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.fixture
def scans(tmp_path: Path) -> list[PreparedScan]:
    """Three, told apart by their values: from 0, 50 and 100 HU on."""
    return [mixed(tmp_path / f"scan{n}", (9, 9, 9), 50 * n) for n in range(3)]


def test_a_patch_has_the_shape_types_and_values_of_the_networks_input(tmp_path: Path) -> None:
    scan = mixed(tmp_path / "a")
    image, classes = ScanPatches([scan], config())[0]
    assert image.shape == (1, *PATCH) and image.dtype == torch.float32
    assert classes.shape == PATCH and classes.dtype == torch.uint8
    start_of((image, classes), scan)


@pytest.mark.parametrize(
    "settings",
    [
        PreprocessConfig(),
        PreprocessConfig(scaling="zscore", window_hu=(-50, 600), mean_hu=90.0, std_hu=250.0),
    ],
)
def test_values_are_those_that_inference_sees(tmp_path: Path, settings: PreprocessConfig) -> None:
    scan = mixed(tmp_path / "a", PATCH)
    expected = prepare(Volume(np.array(scan.ct), np.eye(4)), settings).volume.array
    image, _ = ScanPatches([scan], config(preprocess=settings.model_dump()))[0]
    assert np.allclose(image[0].numpy(), expected, atol=1e-5)


def test_an_epoch_shows_every_scan_exactly_as_often_as_asked(scans: list[PreparedScan]) -> None:
    patches = ScanPatches(scans, config({"patches_per_scan": 3, "bone_centred": 0}))
    assert patches.per_epoch == len(patches) == 9
    orders = []
    for epoch in range(4):
        shown = [int(hu_of(patches[9 * epoch + n]).min()) // 50 for n in range(9)]
        assert Counter(shown) == {0: 3, 1: 3, 2: 3}
        orders.append(tuple(shown))
    assert len(set(orders)) == 4, "the order is the same in every epoch"


def test_a_patch_is_a_function_of_seed_and_number(scans: list[PreparedScan]) -> None:
    settings = config({"augment": ALWAYS}, seed=3)
    one = ScanPatches(scans, settings)
    again = pickle.loads(pickle.dumps(ScanPatches(scans, settings)))
    expected = [one[n] for n in range(8)]
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002
    for n in (5, 0, 7, 3):
        assert same(again[n], expected[n])
    assert len({round(float(image.sum()), 3) for image, _ in expected}) == 8
    assert not same(ScanPatches(scans, config({"augment": ALWAYS}, seed=4))[5], expected[5])


def test_another_epoch_has_other_patches(scans: list[PreparedScan]) -> None:
    patches = ScanPatches(scans, config({"augment": ALWAYS}))
    first, second = ({round(float(patches[12 * epoch + n][0].sum()), 3) for n in range(12)} for epoch in (0, 1))
    assert not first & second


def test_workers_give_what_one_process_gives(scans: list[PreparedScan]) -> None:
    patches = ScanPatches(scans, config({"augment": ALWAYS}))

    def loaded(workers: int) -> list[Patch]:
        numbers = [[0, 1], [2, 3], [11, 12], [40, 41]]
        return [(image, classes) for image, classes in DataLoader(patches, batch_sampler=numbers, num_workers=workers)]

    for one, other in zip(loaded(0), loaded(2), strict=True):
        assert same(one, other)


@pytest.mark.parametrize(
    ("share", "per_scan", "each"), [(0.0, 4, 0), (0.5, 4, 2), (1.0, 4, 4), (0.29, 100, 29), (0.75, 4, 3)]
)
def test_the_share_around_bone_is_counted_not_drawn(
    scans: list[PreparedScan], share: float, per_scan: int, each: int
) -> None:
    patches = ScanPatches(scans, config({"bone_centred": share, "patches_per_scan": per_scan}))
    for epoch in range(3):
        for which in range(3):
            assert sum(patches._is_bone_centred(which, epoch, turn) for turn in range(per_scan)) == each


def test_a_share_that_does_not_divide_evens_out(scans: list[PreparedScan]) -> None:
    """One patch a scan and a half of them: 1 or 2 of 3 an epoch, and each scan every other time."""
    patches = ScanPatches(scans, config({"bone_centred": 0.5, "patches_per_scan": 1}))
    turns = [[patches._is_bone_centred(which, epoch, 0) for which in range(3)] for epoch in range(10)]
    assert {sum(epoch) for epoch in turns} == {1, 2}
    for which in range(3):
        own = [epoch[which] for epoch in turns]
        assert own in ([True, False] * 5, [False, True] * 5)


def test_patches_around_bone_are_centred_at_its_voxels(tmp_path: Path) -> None:
    """The middle of 8 voxels is the fifth."""
    scan = mixed(tmp_path / "a", bone=[[9, 10, 11], [12, 5, 18]])
    patches = ScanPatches([scan], config({"bone_centred": 1}))
    assert {start_of(patches[n], scan) for n in range(20)} == {(5, 6, 7), (8, 1, 14)}


def test_patches_around_bone_at_the_border_are_moved_in(tmp_path: Path) -> None:
    scan = mixed(tmp_path / "a", bone=[[0, 21, 12]])
    patches = ScanPatches([scan], config({"bone_centred": 1}))
    assert {start_of(patches[n], scan) for n in range(5)} == {(0, 14, 8)}


def test_other_patches_lie_anywhere_inside(tmp_path: Path) -> None:
    scan = mixed(tmp_path / "a", (10, 9, 8))
    patches = ScanPatches([scan], config({"bone_centred": 0}))
    starts = Counter(start_of(patches[n], scan) for n in range(120))
    assert set(starts) == {(i, j, 0) for i in range(3) for j in range(2)}
    assert max(starts.values()) < 45


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_around_a_small_scan_is_air(tmp_path: Path, share: float) -> None:
    """3 x 30 x 5 voxels of 500 HU: a patch holds 3 x 8 x 5 of them, wherever it lies."""
    scan = stored(tmp_path / "a", np.full((3, 30, 5), 500), np.full((3, 30, 5), L2))
    patches = ScanPatches([scan], config({"bone_centred": share}))
    places = set()
    for n in range(12):
        image, classes = patches[n]
        hu = hu_of((image, classes))
        inside = np.isclose(hu, 500, atol=0.1)
        assert inside.sum() == 3 * 8 * 5 and np.allclose(hu[~inside], -100)
        assert np.array_equal(classes.numpy(), np.where(inside, 2, 0))
        places.add(tuple(np.argwhere(inside).min(axis=0).tolist()))
    assert {place[1] for place in places} == {0}
    assert len(places) > 1


@pytest.mark.parametrize(
    ("levels", "classes"),
    [
        (("L1", "L2"), {L1: 1, L2: 2, T13: 0, SACRUM: 0}),
        (("T13", "L2", "sacrum"), {L1: 0, L2: 2, T13: 1, SACRUM: 3}),
        (("spine",), {L1: 1, L2: 1, T13: 1, SACRUM: 0}),
    ],
)
def test_levels_become_the_networks_classes(tmp_path: Path, levels: tuple[str, ...], classes: dict[int, int]) -> None:
    ids = np.array([0, L1, L2, T13, SACRUM, 0, 0, 0], np.uint8)
    labels = np.broadcast_to(ids, PATCH)
    scan = stored(tmp_path / "a", np.zeros(PATCH, np.int16), labels)
    for augment in (None, {**NEVER, "affine_probability": 1, "rotation_deg": 0, "scale": (1, 1)}):
        _, made = ScanPatches([scan], config({"augment": augment}, levels=levels))[0]
        assert made[3, 3].tolist() == [{0: 0, **classes}[int(v)] for v in ids]


def test_fixed_patches_are_the_same_in_each_epoch_and_for_each_seed(scans: list[PreparedScan]) -> None:
    fixed = ScanPatches(scans, config({"augment": ALWAYS}), fixed=True)
    other = ScanPatches(scans, config({"augment": ALWAYS}, seed=9), fixed=True)
    seen = Counter()
    for n in range(fixed.per_epoch):
        assert same(fixed[n], fixed[n + 5 * fixed.per_epoch]) and same(fixed[n], other[n])
        # Nothing is augmented: the values are whole HU of one scan.
        hu = hu_of(fixed[n])
        assert np.abs(hu - np.rint(hu)).max() < 0.01
        seen[int(hu.min() // 50)] += 1
    assert seen == {0: 4, 1: 4, 2: 4}


def test_a_mirror_image_swaps_left_and_right_only(tmp_path: Path) -> None:
    """A marker of 800 HU on the right of a spine whose L1 lies above L2."""
    ct, labels = np.zeros(PATCH, np.int16), np.zeros(PATCH, np.uint8)
    labels[3:5, 2:4, 5:7], labels[3:5, 2:4, 1:3] = L1, L2
    ct[7, 1, 6] = 800
    scan = stored(tmp_path / "a", ct, labels)
    plain = ScanPatches([scan], config())[0]
    mirrored = ScanPatches([scan], config({"augment": {**NEVER, "mirror_probability": 1}}))[0]
    assert np.argwhere(hu_of(mirrored) > 400).tolist() == [[0, 1, 6]]
    assert torch.equal(mirrored[0][0], plain[0][0].flip(0)) and torch.equal(mirrored[1], plain[1].flip(0))
    assert mirrored[1].unique().tolist() == [0, 1, 2]
    assert mirrored[1][3, 2].tolist() == [0, 2, 2, 0, 0, 1, 1, 0]


@pytest.mark.parametrize("shape", [SHAPE, PATCH, (3, 30, 5), (1, 8, 40)])
def test_a_still_pose_gives_the_plain_patch(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """By way of the sampling grid, which the plain patch does without, also where the scan is small."""
    scan = mixed(tmp_path / "a", shape)
    still = {**NEVER, "affine_probability": 1, "rotation_deg": 0, "scale": (1, 1)}
    for share in (0, 1):
        posed = ScanPatches([scan], config({"bone_centred": share, "augment": still}))
        plain = ScanPatches([scan], config({"bone_centred": share, "augment": None}))
        for n in range(4):
            # Their generators have drawn as much when it comes to the place.
            assert np.allclose(hu_of(posed[n]), hu_of(plain[n]), atol=0.05)
            assert torch.equal(posed[n][1], plain[n][1])


def test_image_and_classes_stay_together_in_any_pose(tmp_path: Path) -> None:
    """A cube of 900 HU in 0 HU: what is labelled has half of the weight or more along each axis."""
    ct, labels = np.zeros((30, 30, 30), np.int16), np.zeros((30, 30, 30), np.uint8)
    ct[11:19, 11:19, 11:19], labels[11:19, 11:19, 11:19] = 900, L1
    scan = stored(tmp_path / "a", ct, labels, bone=[[15, 15, 15]])
    pose = {
        **NEVER,
        "affine_probability": 1,
        "elastic_probability": 1,
        "mirror_probability": 0.5,
        "elastic_step_mm": 15,
    }
    patches = ScanPatches([scan], config({"bone_centred": 1, "augment": pose}, patch=(16, 16, 16)))
    compared = 0
    for n in range(10):
        image, classes = patches[n]
        hu = hu_of((image, classes))
        assert (hu[classes.numpy() == 1] >= 900 / 8 - 1).all()
        assert (classes.numpy()[hu > 899] == 1).all() and (classes.numpy()[hu < 0.01] == 0).all()
        compared += int((hu > 899).sum())
    assert compared > 1000


def test_a_scale_is_that_of_the_body(tmp_path: Path) -> None:
    """Twice as large, a cube of 4 voxels fills the 8 of the patch."""
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[8:12, 8:12, 8:12] = L1
    scan = stored(tmp_path / "a", np.where(labels, 500, 0), labels, bone=[[10, 10, 10]])
    larger = {**NEVER, "affine_probability": 1, "rotation_deg": 0, "scale": (2, 2)}
    _, classes = ScanPatches([scan], config({"bone_centred": 1, "augment": larger}))[0]
    assert (classes == 1).all()


def test_a_pose_reads_only_the_box_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 voxels around voxel 50, scaled by a half, span 14 and what lies between: 16 of 100."""
    scan = mixed(tmp_path / "a", (100, 100, 100), bone=[[50, 50, 50]])
    read = []

    class Watched:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
            read.append(tuple((part.start, part.stop) for part in box))
            return self.array[box]

    monkeypatch.setattr(PreparedScan, "ct", property(lambda scan: Watched(scan._mapped("ct"))))
    smaller = {**NEVER, "affine_probability": 1, "rotation_deg": 0, "scale": (0.5, 0.5)}
    ScanPatches([scan], config({"bone_centred": 1, "augment": smaller}))[0]
    assert read == [((42, 58),) * 3]


def test_augmentation_knows_window_and_spacing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(hu: torch.Tensor, labels: torch.Tensor, *settings: object) -> torch.Tensor:
        seen.append((labels.dtype, *settings[:2]))
        return hu

    monkeypatch.setattr(scan_patches, "change_look", note)
    settings = {"spacing_mm": 1.5, "window_hu": (-200.0, 800.0)}
    ScanPatches([mixed(tmp_path / "a")], config({"augment": AugmentConfig()}, preprocess=settings))[0]
    assert seen == [(torch.uint8, 1.5, (-200.0, 800.0))]


def test_everything_at_once_is_a_valid_sample(tmp_path: Path) -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[15:25, 15:25] = L1
    scan = stored(tmp_path / "a", np.where(labels, 400, 0), labels)
    patches = ScanPatches([scan], config({"augment": ALWAYS}, patch=(32, 32, 32)))
    for n in range(4):
        image, classes = patches[n]
        assert image.is_contiguous() and torch.isfinite(image).all()
        assert float(image.min()) >= 0 and float(image.max()) <= 1
        assert classes.unique().tolist() == [0, 1]


def test_no_scan_or_other_material_is_refused(scans: list[PreparedScan]) -> None:
    with pytest.raises(ConfigError, match="no scan"):
        ScanPatches([], config())
    synthetic = {"kind": "synthetic", "sources": [{"kind": "body", "bodies": "*"}]}
    values = config().model_dump() | {"data": synthetic, "steps_per_epoch": 1}
    with pytest.raises(ConfigError, match="kind synthetic"):
        ScanPatches(scans, TrainConfig.model_validate(values))
