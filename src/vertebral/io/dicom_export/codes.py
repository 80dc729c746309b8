"""SNOMED CT codes of the levels, from PS3.16 of the DICOM standard (2024).

T13 and L6 have no code: both are coded as `Vertebra`, and their name is in the label.
"""

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from vertebral.core.anatomy import SPINE, Level

ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
VERTEBRA = Code("51282000", "SCT", "Vertebra")

_OTHERS = {
    "sacrum": Code("54735007", "SCT", "Sacrum"),
    "coccyx": Code("64688005", "SCT", "Coccyx"),
    SPINE.name: Code("421060004", "SCT", "Vertebral column"),
}


def level_code(level: Level) -> Code:
    """Return the SNOMED CT code of a level; that of any vertebra if the standard has no specific one."""
    if level.name in _OTHERS:
        return _OTHERS[level.name]
    if level.name in ("T13", "L6"):
        return VERTEBRA
    code: Code = getattr(codes.SCT, f"{level.name}Vertebra")
    return code
