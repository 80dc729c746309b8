"""Painting: from a tissue map to HU. All torch, one generator, so the same seed gives the same CT."""

from dataclasses import dataclass

import torch

from vertebral.core.anatomy import BY_VERSE_ID
from vertebral.data.synthesis.config import FindingsConfig, SynthesisConfig
from vertebral.data.synthesis.random_draws import happens, smooth_field, uniform
from vertebral.data.synthesis.tissues import TISSUE_ID, TISSUES

_COMMON_FIELD_HU = 20.0
# The voxel size for which `paint` gives the widths of the textures.
_TEXTURE_SPACING_MM = 2.0
_ARTERIAL_LIVER_HU, _ARTERIAL_VEIN_HU, _ARTERIAL_TEXTURE_HU = (50.0, 90.0), (35.0, 120.0), 35.0
_FIXED = tuple(TISSUE_ID[name] for name in ("canal", "disc", "cartilage", "tooth")) + tuple(
    n for name, n in TISSUE_ID.items() if name.startswith(("bone", "vertebra"))
)


@dataclass(frozen=True)
class Patient:
    """Drawn once per scan, before painting: mean HU and texture of each tissue, bone density of each VerSe id."""

    mean_hu: torch.Tensor
    texture_hu: torch.Tensor
    density: torch.Tensor
    gas_share: float


def breathe(tissue: torch.Tensor, shift: int) -> torch.Tensor:
    """Move soft tissue caudally by `shift` voxels (towards low K) and leave the skeleton where it is.

    Routine CT is taken in deep inspiration, unlike body maps: lungs, diaphragm and kidneys are lower relative to the
    spine by up to two vertebrae. Gaps that bone leaves become muscle.
    """
    if shift == 0:
        return tissue
    fixed = torch.zeros(len(TISSUES), dtype=torch.bool)
    fixed[list(_FIXED)] = True
    skeleton = fixed[tissue.int()]
    soft = torch.where(skeleton, TISSUE_ID["muscle"], tissue)
    planes = (torch.arange(tissue.shape[2]) + shift).clamp(0, tissue.shape[2] - 1)
    return torch.where(skeleton, tissue, soft[:, :, planes])


def draw_patient(generator: torch.Generator, config: SynthesisConfig) -> Patient:
    """Draw the HU of every tissue. A scan shows contrast medium in all vessels and organs or in none."""
    contrast = happens(generator, config.contrast_probability)
    mean = [uniform(generator, t.contrast_hu if contrast and t.contrast_hu else t.hu) for t in TISSUES]
    texture = [t.texture_hu * uniform(generator, config.texture) for t in TISSUES]
    if config.findings is not None:
        _change_patient(mean, texture, contrast, generator, config.findings)
    interior, cortex = TISSUE_ID["vertebra_interior"], TISSUE_ID["vertebra_cortex"]
    mean[cortex] = max(mean[cortex], mean[interior] + 60)
    density = 1 + 0.12 * torch.randn(max(BY_VERSE_ID) + 1, generator=generator)
    return Patient(torch.tensor(mean), torch.tensor(texture), density.clamp(0.5, 1.6), uniform(generator, (0, 0.6)))


def _change_patient(
    mean: list[float], texture: list[float], contrast: bool, generator: torch.Generator, config: FindingsConfig
) -> None:
    """Draw the arterial phase of a scan with contrast medium, and osteoporosis. Changes both lists in place."""
    if contrast and happens(generator, config.arterial_probability):
        blood = uniform(generator, config.aorta_hu)
        mean[TISSUE_ID["artery"]] = blood
        mean[TISSUE_ID["heart"]] = blood * uniform(generator, (0.6, 1.0))
        mean[TISSUE_ID["organ"]] = uniform(generator, config.arterial_organ_hu)
        mean[TISSUE_ID["liver"]] = uniform(generator, _ARTERIAL_LIVER_HU)
        mean[TISSUE_ID["vein"]] = uniform(generator, _ARTERIAL_VEIN_HU)
        # Spleen and renal cortex enhance unevenly at first.
        texture[TISSUE_ID["organ"]] = _ARTERIAL_TEXTURE_HU
    if happens(generator, config.osteoporosis_probability):
        mean[TISSUE_ID["vertebra_interior"]] = uniform(generator, config.osteoporotic_hu)
        mean[TISSUE_ID["bone_interior"]] = uniform(generator, config.osteoporotic_hu)
        texture[TISSUE_ID["vertebra_interior"]] *= 0.6


def paint(
    tissue: torch.Tensor,
    labels: torch.Tensor,
    patient: Patient,
    generator: torch.Generator,
    spacing_mm: float = _TEXTURE_SPACING_MM,
) -> torch.Tensor:
    """Return HU, float32 (I, J, K), for uint8 `tissue` and `labels` of that shape, `spacing_mm` apart."""
    finer = _TEXTURE_SPACING_MM / spacing_mm
    index = tissue.int()
    hu = patient.mean_hu[index]
    fine = torch.randn(tissue.shape, generator=generator)
    coarse = smooth_field(tissue.shape, max(2, round(6 * finer)), generator)
    hu += patient.texture_hu[index] * (0.7 * fine + 0.7 * coarse)
    bone = labels > 0
    hu[bone] *= patient.density[labels[bone].int()]
    pockets = smooth_field(tissue.shape, max(2, round(5 * finer)), generator)
    hu[(tissue == TISSUE_ID["bowel"]) & (pockets > 1.2 - patient.gas_share)] = -900.0
    marbling = (tissue == TISSUE_ID["muscle"]) & (pockets > 1.5)
    hu[marbling] = patient.mean_hu[TISSUE_ID["fat"]]
    return hu + _COMMON_FIELD_HU * smooth_field(tissue.shape, max(2, round(24 * finer)), generator)
