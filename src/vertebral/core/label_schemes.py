"""Converts label ids of other tools to VerSe ids and back.

Sources, read in November 2026:

- `verse`: https://github.com/anjany/verse, README.md (C1-L6 1-25, sacrum 26, coccyx 27, T13 28).
- `totalsegmentator` (v2) and `totalsegmentator-v1`: https://github.com/wasserth/TotalSegmentator,
  totalsegmentator/map_to_binary.py, class maps `total` and `total_v1`. S1 is a class of its own in v2.
- `vista3d`: https://github.com/Project-MONAI/VISTA, vista3d/data/jsons/label_dict.json.
- `monailabel`: https://github.com/Project-MONAI/MONAILabel, sample-apps/radiology/lib/configs/localization_vertebra.py.
- `cads` (all structures in one map) and `cads-vertebrae` (its model 552): https://github.com/murong-xu/CADS,
  cads/dataset_utils/bodyparts_labelmaps.py.
- `plain`: 1, 2, 3, ... from C1 to L6, as nnU-Net requires consecutive ids (documentation/dataset_format.md).
"""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vertebral.core.anatomy import BY_NAME, LEVELS, TOTALSEGMENTATOR_V2_IDS, Level, sort_levels
from vertebral.core.errors import ConfigError
from vertebral.core.volume import Array

_HEAD_TO_TAIL = tuple(level.name for level in LEVELS if level.is_vertebra and level.name not in ("T13", "L6"))


def _upwards(first: int) -> dict[int, str]:
    """Number the levels from L5 (`first`) up to C1 (`first` + 23)."""
    return {first + n: name for n, name in enumerate(reversed(_HEAD_TO_TAIL))}


# If two ids map to one level, the first one is written.
SCHEMES: MappingProxyType[str, dict[int, str]] = MappingProxyType(
    {
        "verse": {level.verse_id: level.name for level in LEVELS},
        "totalsegmentator": TOTALSEGMENTATOR_V2_IDS,
        "totalsegmentator-v1": {**_upwards(18), 92: "sacrum"},
        "vista3d": {**_upwards(33), 131: "L6", 97: "sacrum", 127: "sacrum"},
        "monailabel": dict(enumerate(_HEAD_TO_TAIL, start=1)),
        "cads": {**_upwards(18), 70: "sacrum"},
        "cads-vertebrae": _upwards(1),
        "plain": dict(enumerate((*_HEAD_TO_TAIL, "L6"), start=1)),
    }
)


@dataclass(frozen=True)
class ConvertedLabels:
    """`array` holds VerSe ids; `ignored` maps each id that is no vertebra, sacrum or coccyx to its number of voxels."""

    array: NDArray[np.uint8]
    ignored: dict[int, int]


def check_scheme(name: str) -> None:
    """Raise ConfigError if `name` is not a known scheme."""
    if name not in SCHEMES:
        raise ConfigError(f"unknown scheme {name!r}: use one of {', '.join(SCHEMES)}")


def to_verse(labels: Array, scheme: str) -> ConvertedLabels:
    """Convert a label map of non-negative integers (any shape) from the ids of `scheme` to VerSe ids."""
    check_scheme(scheme)
    counts = _counts(labels)
    table = np.zeros(len(counts), np.uint8)
    ids = SCHEMES[scheme]
    for value, name in ids.items():
        if value < len(table):
            table[value] = BY_NAME[name].verse_id
    ignored = {int(n): int(counts[n]) for n in np.flatnonzero(counts) if n and n not in ids}
    return ConvertedLabels(table[labels], ignored)


def from_verse(labels: NDArray[np.uint8], scheme: str) -> Array:
    """Convert a label map from VerSe ids to `scheme`. Raises ConfigError if the scheme has no id for a level."""
    check_scheme(scheme)
    values: dict[str, int] = {}
    for value, name in SCHEMES[scheme].items():
        values.setdefault(name, value)
    table = np.zeros(256, np.uint8)
    present = set(np.flatnonzero(_counts(labels)).tolist()) - {0}
    without_id: list[Level] = []
    for level in LEVELS:
        if level.verse_id in present:
            if level.name in values:
                table[level.verse_id] = values[level.name]
            else:
                without_id.append(level)
    if without_id:
        names = ", ".join(level.name for level in sort_levels(without_id))
        raise ConfigError(f"scheme {scheme} has no id for {names}: choose another scheme, such as verse")
    return np.asarray(table[labels])


def _counts(labels: Array) -> NDArray[np.int64]:
    """Count each id, plane by plane, because `bincount` needs 8 bytes per voxel."""
    counts = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    for plane in np.moveaxis(labels, int(np.argmax(labels.strides)), 0) if labels.ndim > 1 else (labels,):
        counts += np.bincount(plane.ravel(order="K"), minlength=len(counts))
    return counts
