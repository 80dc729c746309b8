"""Coded concepts for the columns of `measure` in a structured report.

Standard codes are used where one matches the measurement exactly; the others are in a private scheme, with codes of at
most 16 characters, as DICOM requires. Definitions: docs/measurements.md.
"""

from dataclasses import dataclass

from pydicom.sr.coding import Code

SCHEME = "99VERTEBRAL"
_MM, _DEG, _HU = Code("mm", "UCUM", "mm"), Code("deg", "UCUM", "degree"), Code("[hnsf'U]", "UCUM", "Hounsfield unit")
_CM3, _CM2 = Code("cm3", "UCUM", "cubic centimeter"), Code("cm2", "UCUM", "square centimeter")
_PERCENT, _RATIO = Code("%", "UCUM", "percent"), Code("{ratio}", "UCUM", "ratio")
_MEAN, _SD = Code("373098007", "SCT", "Mean"), Code("386136009", "SCT", "Standard Deviation")


@dataclass(frozen=True)
class Concept:
    """The name, the unit (1 ml is written as 1 cm3) and, if needed, the derivation of a measurement."""

    name: Code
    unit: Code
    derivation: Code | None = None


def _own(code: str, meaning: str, unit: Code, derivation: Code | None = None) -> Concept:
    return Concept(Code(code, SCHEME, meaning), unit, derivation)


VERTEBRA: dict[str, Concept] = {
    "volume_ml": Concept(Code("118565006", "SCT", "Volume"), _CM3),
    "surface_area_cm2": Concept(Code("C0JK", "IBSI", "Surface Area of Mesh"), _CM2),
    "body_width_mm": _own("body_width", "Width of vertebral body", _MM),
    "body_depth_mm": _own("body_depth", "Depth of vertebral body", _MM),
    "body_volume_ml": _own("body_volume", "Volume of vertebral body", _CM3),
    "height_anterior_mm": _own("height_ant", "Anterior height of vertebral body", _MM),
    "height_middle_mm": _own("height_mid", "Middle height of vertebral body", _MM),
    "height_posterior_mm": _own("height_post", "Posterior height of vertebral body", _MM),
    "height_ratio_anterior_posterior": _own("ratio_ant_post", "Anterior to posterior height of vertebral body", _RATIO),
    "height_ratio_middle_posterior": _own("ratio_mid_post", "Middle to posterior height of vertebral body", _RATIO),
    "height_loss_percent": _own("height_loss", "Loss of height of vertebral body", _PERCENT),
    "wedge_sagittal_deg": _own("wedge_sagittal", "Sagittal wedge angle of vertebral body", _DEG),
    "wedge_coronal_deg": _own("wedge_coronal", "Coronal wedge angle of vertebral body", _DEG),
    "tilt_sagittal_deg": _own("tilt_sagittal", "Sagittal tilt of vertebral body", _DEG),
    "tilt_coronal_deg": _own("tilt_coronal", "Coronal tilt of vertebral body", _DEG),
    "rotation_axial_deg": _own("rotation_axial", "Axial rotation of vertebral body", _DEG),
    "core_mean_hu": _own("core_mean", "Attenuation of trabecular core, mean", _HU, _MEAN),
    "core_sd_hu": _own("core_sd", "Attenuation of trabecular core, standard deviation", _HU, _SD),
    "core_volume_ml": _own("core_volume", "Volume of trabecular core", _CM3),
}
GAP: dict[str, Concept] = {
    "disc_height_anterior_mm": _own("disc_height_ant", "Anterior disc height", _MM),
    "disc_height_middle_mm": _own("disc_height_mid", "Middle disc height", _MM),
    "disc_height_posterior_mm": _own("disc_height_post", "Posterior disc height", _MM),
    "angle_sagittal_deg": _own("disc_sagittal", "Sagittal angle between endplates", _DEG),
    "angle_coronal_deg": _own("disc_coronal", "Coronal angle between endplates", _DEG),
    "listhesis_mm": _own("listhesis", "Anterior displacement of upper vertebra", _MM),
    "listhesis_right_mm": _own("listhesis_right", "Displacement of upper vertebra to the right", _MM),
}
REGION: dict[str, Concept] = {
    "angle_deg": _own("region_angle", "Sagittal angle of region (lordosis or kyphosis)", _DEG),
    "length_mm": _own("region_length", "Arc length of region", _MM),
}
CURVE: dict[str, Concept] = {
    "angle_deg": Concept(Code("285285000", "SCT", "Cobb angle"), _DEG),
    "apex_offset_mm": _own("apex_offset", "Offset of apical vertebra", _MM),
}
TABLES: dict[str, dict[str, Concept]] = {"vertebrae": VERTEBRA, "gaps": GAP, "regions": REGION, "curves": CURVE}
