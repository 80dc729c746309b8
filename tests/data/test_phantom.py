"""The procedural phantom: what a test or a demo may rely on."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import ndimage

from vertebral.core.anatomy import BY_NAME, BY_VERSE_ID, Level, parse_levels
from vertebral.core.errors import ConfigError
from vertebral.data.phantom import LOWER_SPINE, NATURAL, WHOLE_SPINE, Curves, Phantom, make_phantom
from vertebral.data.phantom.spine_curve import PlacedBone, stack

EVERY_NEIGHBOUR = np.ones((3, 3, 3))


@pytest.fixture(scope="module")
def lumbar() -> Phantom:
    return make_phantom(parse_levels("T11-T12,L1-L3"), spacing_mm=2.0)


@pytest.fixture(scope="module")
def whole() -> Phantom:
    return make_phantom(WHOLE_SPINE, spacing_mm=3.0, seed=3)


def placed(levels: Sequence[Level], curves: Curves = NATURAL) -> dict[str, PlacedBone]:
    return {bone.level.name: bone for bone in stack(levels, curves, np.random.default_rng(0))}


def forward_tilt_deg(bone: PlacedBone) -> float:
    return float(np.rad2deg(np.arctan2(bone.rotation[1, 2], bone.rotation[2, 2])))


def assert_one_piece_each(phantom: Phantom, levels: Sequence[Level]) -> None:
    labels = phantom.labels.array
    assert set(np.unique(labels).tolist()) == {0} | {level.verse_id for level in levels}
    for level in levels:
        assert ndimage.label(labels == level.verse_id, EVERY_NEIGHBOUR)[1] == 1, level.name


def test_volumes_are_ras_on_one_grid(lumbar: Phantom) -> None:
    assert lumbar.ct.array.dtype == np.int16
    assert lumbar.labels.array.dtype == np.uint8
    assert lumbar.ct.grid.axcodes == "RAS"
    assert lumbar.ct.grid.matches(lumbar.labels.grid)
    assert lumbar.ct.spacing_mm == (2.0, 2.0, 2.0)


def test_each_label_is_one_piece(lumbar: Phantom) -> None:
    assert_one_piece_each(lumbar, parse_levels("T11-T12,L1-L3"))


def test_the_whole_spine_is_one_piece_each_at_3_mm(whole: Phantom) -> None:
    assert_one_piece_each(whole, WHOLE_SPINE)


def test_strong_curves_do_not_break_or_merge_vertebrae() -> None:
    levels = parse_levels("T9-T12,T13,L1-L5,L6,sacrum")
    assert_one_piece_each(make_phantom(levels, 3.0, curves=Curves(30, 60, 75, scoliosis_deg=40)), levels)


def test_neighbours_do_not_touch() -> None:
    phantom = make_phantom(parse_levels("L1-L2"), spacing_mm=1.5)
    box = ndimage.find_objects((phantom.labels.array > 0).astype(np.uint8))[0]
    labels = phantom.labels.array[box]
    from_l1_mm = ndimage.distance_transform_edt(labels != BY_NAME["L1"].verse_id, 1.5)
    gap_mm = from_l1_mm[labels == BY_NAME["L2"].verse_id].min()
    assert 2.0 <= gap_mm <= 4.0


def test_levels_run_from_head_to_tail(whole: Phantom) -> None:
    ids = [level.verse_id for level in WHOLE_SPINE]
    heights = [c[2] for c in ndimage.center_of_mass(whole.labels.array > 0, whole.labels.array, ids)]
    assert heights == sorted(heights, reverse=True)


def test_vertebrae_grow_downwards(whole: Phantom) -> None:
    millilitre = np.prod(whole.labels.spacing_mm) / 1000
    volume = {
        BY_VERSE_ID[i].name: np.count_nonzero(whole.labels.array == i) * millilitre
        for i in np.unique(whole.labels.array)[1:]
    }
    assert volume["C4"] < volume["T2"] < volume["T8"] < volume["T12"] < volume["L4"]
    assert 6 < volume["C4"] < 16
    assert 40 < volume["L3"] < 90


def test_tissues_have_their_hu(lumbar: Phantom) -> None:
    ct = lumbar.ct.array
    spots_hu = {}
    for bone in stack(parse_levels("T11-T12,L1-L3"), NATURAL, np.random.default_rng(0)):
        for name, point in {
            "core": (0, 0, 0),
            "disc": (0, 0, bone.size.height / 2 + 4),
            "canal": (0, bone.size.back - bone.size.canal_depth / 2, 0),
        }.items():
            i, j, k = np.rint(lumbar.ct.grid.to_voxel(bone.to_world(point))).astype(int)
            spots_hu.setdefault(name, []).append(ct[i - 1 : i + 2, j - 1 : j + 2, k].mean())
    assert np.mean(spots_hu["core"]) == pytest.approx(180, abs=40)
    assert np.mean(spots_hu["disc"][:-1]) == pytest.approx(80, abs=40)
    assert np.mean(spots_hu["canal"]) == pytest.approx(25, abs=25)
    assert ct[0, 0].mean() == pytest.approx(-1000, abs=10)
    assert ct[lumbar.labels.array > 0].max() > 550


def test_ribs_are_bone_without_label(whole: Phantom) -> None:
    bone = ndimage.binary_opening(whole.ct.array > 250) & (whole.labels.array == 0)
    assert np.count_nonzero(bone) * 27 / 1000 > 50


def test_noise_has_the_given_spread() -> None:
    levels = parse_levels("L2")
    quiet, loud = (make_phantom(levels, 3.0, noise_hu=n).ct.array.astype(float) for n in (0.0, 25.0))
    in_body = (quiet > -900) & (quiet < 900)
    assert np.std((loud - quiet)[in_body]) == pytest.approx(25, rel=0.05)
    assert (quiet[0, 0] == -1000).all()


def test_same_arguments_same_phantom_other_seed_another() -> None:
    levels = parse_levels("T12,L1")
    first, again, other = (make_phantom(levels, 4.0, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.ct.array, again.ct.array)
    assert np.array_equal(first.labels.array, again.labels.array)
    assert first.ct.array.shape != other.ct.array.shape or not np.array_equal(first.ct.array, other.ct.array)


def test_spacing_may_differ_between_axes() -> None:
    phantom = make_phantom(parse_levels("L1"), spacing_mm=(1.5, 2.0, 4.0))
    assert phantom.ct.spacing_mm == (1.5, 2.0, 4.0)
    assert_one_piece_each(phantom, parse_levels("L1"))


def test_cobb_angles_are_those_asked_for() -> None:
    tilt = {name: forward_tilt_deg(b) for name, b in placed(WHOLE_SPINE, Curves(20, 40, 55)).items()}
    assert tilt["C7"] - tilt["C2"] == pytest.approx(20)
    assert tilt["T1"] - tilt["T12"] == pytest.approx(40)
    assert tilt["sacrum"] - tilt["L1"] == pytest.approx(55)


def test_scoliosis_bends_sideways_and_returns() -> None:
    bones = placed(WHOLE_SPINE, Curves(0, 0, 0, scoliosis_deg=30))
    roll_deg = [float(np.rad2deg(np.arcsin(b.rotation[0, 2]))) for b in bones.values()]
    assert max(roll_deg) - min(roll_deg) == pytest.approx(30, abs=0.5)
    assert roll_deg[0] == pytest.approx(0)
    assert roll_deg[-1] == pytest.approx(0, abs=1e-9)


def test_upright_stack_has_the_heights_of_its_parts() -> None:
    bones = placed(parse_levels("L2-L3"), Curves(0, 0, 0))
    upper, lower = bones["L2"], bones["L3"]
    expected_mm = lower.size.height / 2 + upper.size.disc + upper.size.height / 2
    assert (upper.origin_mm - lower.origin_mm).tolist() == pytest.approx([0, 0, expected_mm])


def test_own_frame_and_world_are_inverse() -> None:
    bone = placed(LOWER_SPINE, Curves(scoliosis_deg=20))["T10"]
    x, y, z = bone.to_world((3.0, -20.0, 5.0))
    own = bone.to_own((np.array(x), np.array(y), np.array(z)))
    assert np.array(own).ravel().tolist() == pytest.approx([3, -20, 5], abs=1e-3)


@pytest.mark.parametrize(
    ("levels", "message"),
    [((), "none"), ((BY_NAME["coccyx"],), "coccyx"), ((BY_NAME["L1"], BY_NAME["L1"]), "L1, L1")],
)
def test_levels_that_cannot_be_built_are_refused(levels: tuple[Level, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_phantom(levels)


@pytest.mark.parametrize("spacing_mm", [0.0, -1.0, 10.0, (1.0, 1.0, float("nan"))])
def test_spacing_out_of_range_is_refused(spacing_mm: float | tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="spacing"):
        make_phantom(parse_levels("L1"), spacing_mm)


def test_negative_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="noise -1"):
        make_phantom(parse_levels("L1"), 5.0, noise_hu=-1)


def test_the_phantom_is_frozen() -> None:
    """Other tests and published numbers rest on these voxels: whoever wants another phantom adds one.

    Processors round HU differently in a few voxels, so their means over slabs of five slices stand for a hash.
    """
    levels = parse_levels("C1,C2,C7,T1,T12,L1,L5,sacrum")
    made = make_phantom(levels, spacing_mm=6.0, seed=7, curves=Curves(scoliosis_deg=15))
    assert made.ct.array.shape == (53, 40, 55)
    labels = hashlib.sha256(made.labels.array.tobytes()).hexdigest()
    assert labels == "67570d284857874613bb5e22c0b47368d7b408a1c7d79ef3edc544e7df473a19"
    means = [made.ct.array[:, :, k : k + 5].mean() for k in range(0, 55, 5)]
    assert means == pytest.approx(
        [-329.775, -322.085, -310.625, -304.505, -314.893, -318.401, -339.232, -561.513, -716.162, -685.519, -652.012],
        abs=0.01,
    )
