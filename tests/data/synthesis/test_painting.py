import pytest
import torch

from vertebral.data.synthesis.config import SynthesisConfig
from vertebral.data.synthesis.painting import Patient, breathe, draw_patient, paint
from vertebral.data.synthesis.random_draws import smooth_field, uniform
from vertebral.data.synthesis.tissues import TISSUE_ID, TISSUES


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_patient(**hu: float) -> Patient:
    """No texture, density 1; tissues at `hu`, else 0."""
    mean = torch.zeros(len(TISSUES))
    for name, value in hu.items():
        mean[TISSUE_ID[name]] = value
    return Patient(mean, torch.zeros(len(TISSUES)), torch.ones(29), gas_share=0.0)


def test_uniform_stays_in_its_bounds() -> None:
    drawn = [uniform(seeded(n), (-3, 5)) for n in range(50)]
    assert min(drawn) >= -3 and max(drawn) <= 5
    assert max(drawn) - min(drawn) > 6


def test_a_seed_is_a_patient() -> None:
    one, same, other = (draw_patient(seeded(n), SynthesisConfig()) for n in (1, 1, 2))
    assert torch.equal(one.mean_hu, same.mean_hu) and torch.equal(one.density, same.density)
    assert not torch.equal(one.mean_hu, other.mean_hu)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_contrast_medium_reaches_all_that_take_it_up_or_none(probability: float) -> None:
    config = SynthesisConfig(contrast_probability=probability)
    for seed in range(20):
        patient = draw_patient(seeded(seed), config)
        for tissue, mean in zip(TISSUES, patient.mean_hu.tolist(), strict=True):
            low, high = tissue.contrast_hu if probability and tissue.contrast_hu else tissue.hu
            top = 10_000 if tissue.name == "vertebra_cortex" else high + 1e-3
            assert low - 1e-3 <= mean <= top, tissue.name


def test_cortex_is_denser_than_what_it_encloses() -> None:
    for seed in range(50):
        mean = draw_patient(seeded(seed), SynthesisConfig()).mean_hu
        assert mean[TISSUE_ID["vertebra_cortex"]] >= mean[TISSUE_ID["vertebra_interior"]] + 59.9


def test_painting_gives_each_tissue_its_mean_within_the_common_field() -> None:
    tissue = torch.zeros((24, 24, 24), dtype=torch.uint8)
    tissue[:, :, 12:] = TISSUE_ID["liver"]
    hu = paint(tissue, torch.zeros_like(tissue), plain_patient(air=-1000, liver=60), seeded())
    assert hu.shape == tissue.shape and hu.dtype == torch.float32
    difference = hu[:, :, 12:].mean() - hu[:, :, :12].mean()
    assert abs(float(difference) - 1060) < 60
    assert float(hu[:, :, :12].std()) < 40


def test_painting_is_a_function_of_the_seed() -> None:
    tissue = torch.full((8, 8, 8), TISSUE_ID["muscle"], dtype=torch.uint8)
    patient = draw_patient(seeded(), SynthesisConfig())
    one, same, other = (paint(tissue, torch.zeros_like(tissue), patient, seeded(n)) for n in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_density_scales_the_bone_of_one_vertebra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vertebral.data.synthesis.painting._COMMON_FIELD_HU", 0.0)
    tissue = torch.full((4, 4, 4), TISSUE_ID["vertebra_interior"], dtype=torch.uint8)
    labels = torch.full((4, 4, 4), 20, dtype=torch.uint8)
    labels[2:] = 21
    patient = plain_patient(vertebra_interior=200)
    patient.density[20], patient.density[21] = 1.5, 0.5
    hu = paint(tissue, labels, patient, seeded())
    assert hu[:2].unique().tolist() == [300]
    assert hu[2:].unique().tolist() == [100]


def test_bowel_holds_gas_and_muscle_holds_fat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vertebral.data.synthesis.painting._COMMON_FIELD_HU", 0.0)
    patient = plain_patient(fat=-100, muscle=50, bowel=20)
    gassy = Patient(patient.mean_hu, patient.texture_hu, patient.density, gas_share=0.6)
    for name, values in (("bowel", [-900, 20]), ("muscle", [-100, 50]), ("fat", [-100])):
        tissue = torch.full((40, 40, 40), TISSUE_ID[name], dtype=torch.uint8)
        assert paint(tissue, torch.zeros_like(tissue), gassy, seeded()).unique().tolist() == values


def test_a_smooth_field_is_linear_between_its_knots() -> None:
    """21 voxels at step 10 have 4 knots, 20 / 3 voxels apart: second differences vanish between them."""
    field = smooth_field(torch.Size((21, 2, 2)), 10, seeded())[:, 0, 0]
    bend = field.diff(n=2).abs()
    knots = (20 / 3, 40 / 3)
    for index, value in enumerate(bend.tolist(), start=1):
        if all(abs(index - knot) > 1 for knot in knots):
            assert value < 1e-5


def test_a_smooth_field_has_unit_variance_at_its_knots() -> None:
    corners = torch.stack([smooth_field(torch.Size((6, 6, 6)), 3, seeded(n))[::5, ::5, ::5] for n in range(200)])
    assert float(corners.mean()) == pytest.approx(0, abs=0.1)
    assert float(corners.std()) == pytest.approx(1, abs=0.1)


def test_breathing_moves_what_is_soft_and_leaves_bone() -> None:
    liver, muscle, cortex = (TISSUE_ID[name] for name in ("liver", "muscle", "bone_cortex"))
    column = [cortex, 0, 0, liver, cortex, liver]  # along K, tail first
    moved = breathe(torch.tensor(column, dtype=torch.uint8).reshape(1, 1, 6), 1)
    # One voxel tailwards: the liver at 3 comes to 2; behind the bone at 4 there was none, so muscle; the end repeats.
    assert moved.flatten().tolist() == [cortex, 0, liver, muscle, cortex, liver]
    still = torch.tensor(column, dtype=torch.uint8).reshape(1, 1, 6)
    assert breathe(still, 0) is still
