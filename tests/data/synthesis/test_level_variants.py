import numpy as np
import pytest
import torch

from vertebral.core.anatomy import BY_NAME, BY_VERSE_ID
from vertebral.data.synthesis import level_variants
from vertebral.data.synthesis.body_cache import CachedBody
from vertebral.data.synthesis.config import SynthesisConfig
from vertebral.data.synthesis.level_variants import VARIANTS, with_variant
from vertebral.data.synthesis.synthetic_ct import synthesise
from vertebral.data.synthesis.tissues import TISSUE_ID

STEP = 12
NAMES = ("T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5", "sacrum")
IDS = {name: BY_NAME[name].verse_id for name in (*NAMES, "T13", "L6")}


def spine(names: tuple[str, ...] = NAMES) -> torch.Tensor:
    """Cubes of 8 voxels from head to tail, 12 apart; the lowest lies 6 above the first plane."""
    labels = torch.zeros((16, 20, STEP * len(names) + 12), dtype=torch.uint8)
    for place, name in enumerate(reversed(names)):
        low = 6 + STEP * place
        labels[4:12, 6:14, low : low + 8] = IDS[name]
    return labels


def column(labels: torch.Tensor) -> list[str]:
    """The levels along the middle, from head to tail."""
    values = labels[8, 10].flip(0).tolist()
    return [BY_VERSE_ID[v].name for v, before in zip(values, [0, *values], strict=False) if v and v != before]


def varied(which: int, labels: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    monkeypatch.setattr(level_variants, "VARIANTS", (VARIANTS[which],))
    (heights,), found = with_variant([torch.arange(labels.shape[2]).expand(labels.shape)], labels, generator())
    return heights, found


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (0, ("T10", "T11", "T12", "T13", "L1", "L2", "L3", "L4", "L5")),
        (1, ("T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5", "L6")),
        (2, ("T10", "T11", "L1", "L2", "L3", "L4", "L5", "sacrum")),
        (3, ("T10", "T11", "T12", "L1", "L2", "L3", "L4", "sacrum")),
    ],
)
def test_one_vertebra_more_or_fewer_and_all_others_in_order(
    which: int, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extra one pushes the lowest out of the map, which has room for nine and a half steps."""
    _, found = varied(which, spine(), monkeypatch)
    names = column(found)
    assert tuple(names[: len(expected)]) == expected
    sizes = torch.bincount(found.flatten().int())
    assert {int(sizes[IDS[name]]) for name in expected[:-1]} == {512}


def test_what_is_above_stays_and_what_is_below_moves_by_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = spine()
    extra, _ = varied(0, labels, monkeypatch)
    # T12 is the third of nine: its lowest plane is 6 + 6 * 12; the cut lies in the middle of the disc below it.
    first, cut = 6 + 6 * STEP, 6 + 6 * STEP - 2
    assert extra[8, 10, cut:].tolist() == list(range(cut, labels.shape[2]))
    assert extra[8, 10, : cut - 1].tolist() == [z + STEP for z in range(cut - 1)]
    fewer, _ = varied(2, labels, monkeypatch)
    above = first + 8 + 2
    assert fewer[8, 10, above:].tolist() == list(range(above, labels.shape[2]))
    assert fewer[8, 10, : above - 1].tolist() == [max(0, z - STEP) for z in range(above - 1)]


def test_a_process_that_hangs_over_the_cut_goes_with_its_vertebra(monkeypatch: pytest.MonkeyPatch) -> None:
    """T11's process reaches down beside T12's body; where T12 is repeated, T12 gets one like it."""
    labels = spine()
    labels[8, 2, 6 + 6 * STEP : 6 + 6 * STEP + 8] = IDS["T11"]
    _, found = varied(0, labels, monkeypatch)
    assert int(found[8, 2, 6 + 6 * STEP + 4]) == IDS["T11"]
    assert int(found[8, 2, 6 + 5 * STEP + 4]) == IDS["T12"]


@pytest.mark.parametrize("names", [("T10", "T11", "L1"), ("L1", "L2", "L3"), ("L4", "L5", "L6")])
def test_nothing_changes_where_the_place_is_not_shown_or_the_spine_is_unusual(names: tuple[str, ...]) -> None:
    labels = spine(names)
    maps, found = with_variant([labels], labels, generator())
    assert maps[0] is labels and found is labels


def test_a_level_that_the_map_cuts_is_not_repeated() -> None:
    labels = spine(("T11", "T12", "L1"))[:, :, 6 + STEP + 3 :]
    assert with_variant([labels], labels, generator())[1] is labels


def test_each_variant_is_drawn() -> None:
    labels = spine()
    found = {tuple(column(with_variant([labels], labels, generator(seed))[1])) for seed in range(40)}
    assert len(found) == len(VARIANTS)


def test_synthesis_shows_them_as_often_as_asked_for() -> None:
    labels = np.pad(spine().numpy(), ((12, 12), (12, 12), (0, 0)))
    tissue = np.where(labels > 0, TISSUE_ID["vertebra_interior"], TISSUE_ID["fat"]).astype(np.uint8)
    body = CachedBody("spine", 1.0, tissue, labels, np.where(labels > 0, 300, 0).astype(np.int16))
    config = SynthesisConfig(
        cache_spacing_mm=3, scale=(1, 1), anisotropy=0, rotation_deg=0, elastic_mm=0, crop_probability=0,
        variant_probability=1,
    )  # fmt: skip
    never = config.model_copy(update={"variant_probability": 0.0})
    usual = set(np.unique(synthesise(body, never, 1, 3.0)[1].array))
    assert usual == {0, *(IDS[name] for name in NAMES)}
    shown = [set(np.unique(synthesise(body, config, seed, 3.0)[1].array)) for seed in range(8)]
    assert all(found != usual for found in shown)
    assert any(IDS["T13"] in found for found in shown) and any(IDS["L6"] in found for found in shown)
