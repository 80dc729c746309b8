"""The tissues that synthesis paints, and the tissue of each structure name in public label maps."""

import re
from dataclasses import dataclass

from vertebral.core.anatomy import BY_NAME, Level


@dataclass(frozen=True)
class Tissue:
    """A tissue. `hu` is the range of its mean over patients, `texture_hu` the standard deviation within one patient.

    Ranges follow Hounsfield tables of radiology textbooks (for example Bushberg, The Essential Physics of Medical
    Imaging), widened for contrast medium (`contrast_hu`, if a scan has it) and for partial volume at 2 mm.
    """

    name: str
    hu: tuple[float, float]
    texture_hu: float = 10.0
    contrast_hu: tuple[float, float] | None = None


TISSUES: tuple[Tissue, ...] = (
    Tissue("air", (-1010, -980), 3),
    Tissue("fat", (-125, -75), 15),
    Tissue("muscle", (30, 70), 18),
    Tissue("skin", (-20, 60), 15),
    Tissue("lung", (-900, -700), 70),
    Tissue("gas", (-1000, -800), 30),
    Tissue("soft", (15, 65), 20),
    Tissue("liver", (35, 75), 10, (70, 140)),
    Tissue("organ", (25, 60), 12, (80, 220)),
    Tissue("artery", (30, 60), 8, (120, 420)),
    Tissue("vein", (30, 60), 8, (80, 200)),
    Tissue("bowel", (-40, 60), 60, (0, 350)),
    Tissue("heart", (30, 60), 12, (80, 300)),
    Tissue("fluid", (-5, 25), 6, (0, 200)),
    Tissue("brain", (22, 45), 6),
    Tissue("canal", (5, 50), 10),
    Tissue("disc", (50, 130), 15),
    Tissue("cartilage", (50, 200), 50),
    Tissue("tooth", (900, 2200), 200),
    Tissue("bone_interior", (20, 320), 50),
    Tissue("bone_cortex", (280, 1000), 140),
    Tissue("vertebra_interior", (50, 330), 45),
    Tissue("vertebra_cortex", (180, 720), 110),
)
TISSUE_ID: dict[str, int] = {tissue.name: index for index, tissue in enumerate(TISSUES)}

# The first match wins; names are those in the label maps of BodyParts3D and TotalSegmentator.
_NAME_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"rib_|sternum|clavic|scapula|skull|mandible|hyoid|^hip_|femur|humerus|other_bone", "bone_interior"),
    (r"tooth|teeth", "tooth"),
    (r"lung", "lung"),
    (r"trachea|airway", "gas"),
    (r"colon|bowel|duodenum|stomach", "bowel"),
    (r"heart|atri", "heart"),
    (r"vena|vein", "vein"),
    (r"aorta|arter|trunk", "artery"),
    (r"liver", "liver"),
    (r"kidney|spleen|pancreas|adrenal|thyroid|gland", "organ"),
    (r"bladder|csf|eye|bileduct", "fluid"),
    (r"brain", "brain"),
    (r"spinal_c", "canal"),
    (r"disc", "disc"),
    (r"costal_cartilage|cartilage", "cartilage"),
    (r"fat|soft_tissue", "fat"),
    (r"skin", "skin"),
    (r"muscle|autochthon|glut|iliopsoas|diaphragm|tongue", "muscle"),
)


def tissue_of(structure: str) -> int:
    """Return the tissue id of a structure name: `vertebra_interior` for vertebrae and sacrum, `soft` if unknown."""
    if level_of(structure) is not None:
        return TISSUE_ID["vertebra_interior"]
    for pattern, tissue in _NAME_PATTERNS:
        if re.search(pattern, structure):
            return TISSUE_ID[tissue]
    return TISSUE_ID["soft"]


def level_of(structure: str) -> Level | None:
    """Return the level of a structure name, or None if it is neither a vertebra nor the sacrum."""
    name = structure.removeprefix("vertebrae_")
    if name == "S1" or name.startswith("sacrum"):
        return BY_NAME["sacrum"]
    return BY_NAME.get(name)
