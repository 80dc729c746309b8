"""The bodies to paint, and the ranges from which each painted patch draws its patient and scanner."""

from typing import Literal

from pydantic import Field, model_validator

from vertebral.core.config import Config, Probability


class SourceConfig(Config):
    """One kind of training data; globs are relative to the data folder.

    `body`: whole-body label maps (`bodies`, each with a JSON file of names). `vertebrae`: vertebra-only label maps
    (`labels`), each placed in `placements` of the `bodies`. `scan`: real CTs (`ct`) with label maps (`labels`); if
    `bodies` is given too, the HU of bone is real and the rest is painted from the body map.
    """

    kind: Literal["body", "vertebrae", "scan"]
    weight: float = Field(1.0, gt=0)
    bodies: str | None = None
    labels: str | None = None
    ct: str | None = None
    placements: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _has_its_globs(self) -> "SourceConfig":
        needed = {"body": ("bodies",), "vertebrae": ("bodies", "labels"), "scan": ("ct", "labels")}[self.kind]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"kind {self.kind} needs {' and '.join(missing)}")
        return self


class FindingsConfig(Config):
    """Findings of a painted patient: the probability of each in a patch (0 is never), and its range.

    Arms: CT of the trunk is taken with the arms raised or at the side; the label maps have none. `arterial_probability`
    is the share of contrast-enhanced scans in the arterial phase: aorta, spleen and renal cortex about 30 s after the
    injection, as in protocols of CT angiography. Osteoporosis: trabecular bone well below the 110 HU that make it
    likely (Pickhardt et al., Ann Intern Med 2013), with a normal cortex. Fracture: a loss of height as in grades 1-3 of
    Genant et al. (J Bone Miner Res 1993), in front, in the middle or of the whole body. The other HU are those of
    cancellous to compact bone, and of PMMA with barium. Probabilities exceed those in the population, so that the
    network sees enough of each finding.
    """

    arms_probability: Probability = 0.15
    arterial_probability: Probability = 0.4
    aorta_hu: tuple[float, float] = (250.0, 450.0)
    arterial_organ_hu: tuple[float, float] = (120.0, 250.0)
    osteoporosis_probability: Probability = 0.2
    osteoporotic_hu: tuple[float, float] = (20.0, 80.0)
    sclerosis_probability: Probability = 0.15
    sclerosis_hu: tuple[float, float] = (150.0, 500.0)
    endplate_probability: Probability = 0.3
    endplate_hu: tuple[float, float] = (50.0, 350.0)
    osteophyte_probability: Probability = 0.25
    vacuum_probability: Probability = 0.15
    calcification_probability: Probability = 0.25
    calcification_hu: tuple[float, float] = (300.0, 1100.0)
    cement_probability: Probability = 0.03
    cement_hu: tuple[float, float] = (1200.0, 2800.0)
    fracture_probability: Probability = 0.12
    fracture_loss: tuple[float, float] = (0.15, 0.5)


class ArtefactsConfig(Config):
    """Artefacts of a painted scan: the probability of each in a patch (0 is never), and its range.

    The table is a shell of carbon fibre around foam. Beam hardening lowers HU by `beam_hardening_hu` where the rays are
    longest and adds streaky noise along them (Barrett and Keat, RadioGraphics 2004). `sharpness` is the share of detail
    that a bone kernel adds or, below 0, a soft kernel removes. Motion shifts part of the data by `motion_mm`.
    """

    table_probability: Probability = 0.5
    clothes_probability: Probability = 0.2
    lines_probability: Probability = 0.15
    beam_hardening_probability: Probability = 0.25
    beam_hardening_hu: tuple[float, float] = (10.0, 80.0)
    kernel_probability: Probability = 0.3
    sharpness: tuple[float, float] = (-0.5, 1.2)
    metal_probability: Probability = 0.03
    motion_probability: Probability = 0.08
    motion_mm: tuple[float, float] = (1.0, 4.0)


class SynthesisConfig(Config):
    """Ranges from which each training patch draws its patient and scanner.

    `texture` scales the deviation of HU within each tissue (`synthesis.tissues`); (0, 0) paints uniform tissues.
    `variant_probability` is that of one vertebra more or fewer (T13, L6, no T12, no L5) if a patch shows the place;
    numbers of presacral vertebrae other than 24 are not rare (Carrino et al., Radiology 2011). With `findings` and
    `artefacts` null, patients are healthy, without arms and without a table.
    """

    cache_spacing_mm: float = Field(2.0, gt=0)
    scale: tuple[float, float] = (0.8, 1.2)
    anisotropy: float = Field(0.08, ge=0)
    rotation_deg: float = Field(15.0, ge=0)
    elastic_mm: float = Field(5.0, ge=0)
    elastic_step_mm: float = Field(45.0, gt=0)
    mirror_probability: float = Field(0.3, ge=0, le=1)
    contrast_probability: float = Field(0.5, ge=0, le=1)
    texture: tuple[float, float] = (0.4, 1.6)
    slice_mm: tuple[float, float] = (0.6, 6.0)
    noise_hu: tuple[float, float] = (3.0, 45.0)
    breathing_mm: tuple[float, float] = (0.0, 0.0)
    crop_probability: float = Field(0.25, ge=0, le=1)
    spine_centred: float = Field(0.85, ge=0, le=1)
    variant_probability: Probability = 0.0
    findings: FindingsConfig | None = None
    artefacts: ArtefactsConfig | None = None
