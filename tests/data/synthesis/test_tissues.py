import numpy as np
import pytest

from vertebral.core.anatomy import BY_NAME
from vertebral.data.synthesis.tissues import TISSUE_ID, TISSUES, level_of, tissue_of


@pytest.mark.parametrize(
    ("structure", "tissue"),
    [
        ("rib_left_10", "bone_interior"),
        ("hip_right", "bone_interior"),
        ("clavicula_left", "bone_interior"),
        ("costal_cartilages", "cartilage"),
        ("teeth", "tooth"),
        ("lung_upper_lobe_left", "lung"),
        ("pulmonary_vein", "vein"),
        ("portal_vein_and_splenic_vein", "vein"),
        ("iliac_vena_left", "vein"),
        ("brachiocephalic_trunk", "artery"),
        ("atrial_appendage_left", "heart"),
        ("gallbladder", "fluid"),
        ("small_bowel", "bowel"),
        ("spleen", "organ"),
        ("adrenal_gland_left", "organ"),
        ("spinal_cord", "canal"),
        ("spinal_canal(derived)", "canal"),
        ("intervertebral_disc", "disc"),
        ("autochthon_left", "muscle"),
        ("soft_tissue_unlabelled(fat)", "fat"),
        ("airway_pharynx_larynx", "gas"),
        ("oesophagus", "soft"),
        ("a name nobody foresaw", "soft"),
    ],
)
def test_structure_names_of_both_label_maps_fall_into_tissues(structure: str, tissue: str) -> None:
    assert TISSUES[tissue_of(structure)].name == tissue
    assert level_of(structure) is None


@pytest.mark.parametrize(
    ("structure", "level"),
    [
        ("C1", "C1"),
        ("vertebrae_T12", "T12"),
        ("vertebrae_T13", "T13"),
        ("L6", "L6"),
        ("vertebrae_S1", "sacrum"),
        ("sacrum", "sacrum"),
        ("sacrum_and_coccyx", "sacrum"),
        ("coccyx", "coccyx"),
    ],
)
def test_vertebrae_and_sacrum_are_levels_of_vertebral_bone(structure: str, level: str) -> None:
    assert level_of(structure) is BY_NAME[level]
    assert TISSUES[tissue_of(structure)].name == "vertebra_interior"


def test_air_is_zero_so_that_an_empty_array_is_air() -> None:
    assert TISSUE_ID["air"] == 0
    assert list(TISSUE_ID.values()) == list(range(len(TISSUES)))


def test_ranges_are_ordered_and_those_of_a_ct() -> None:
    bounds = np.array([t.hu for t in TISSUES] + [t.contrast_hu for t in TISSUES if t.contrast_hu])
    assert (bounds[:, 0] < bounds[:, 1]).all()
    assert bounds.min() >= -1024 and bounds.max() <= 3071


def test_contrast_medium_only_brightens() -> None:
    assert all(sum(t.contrast_hu) > sum(t.hu) for t in TISSUES if t.contrast_hu)
