"""The level table: the only source of names, VerSe ids, display colours and cranio-caudal order.

The numeric order of VerSe ids is not anatomical: T13 (28) lies between T12 (19) and L1 (20). Sort by `Level.rank`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from vertebral.core.errors import ConfigError


@dataclass(frozen=True)
class Level:
    """One anatomical level. `rank` increases from head to tail; `rgb` is its display colour (0-255)."""

    name: str
    verse_id: int
    rank: int
    region: str
    rgb: tuple[int, int, int]

    @property
    def is_vertebra(self) -> bool:
        """True for C1-L6 and T13, False for sacrum, coccyx and the spine as a whole."""
        return self.region in ("cervical", "thoracic", "lumbar")


_CRANIO_CAUDAL_IDS: tuple[tuple[str, int, str], ...] = (
    *((f"C{n}", n, "cervical") for n in range(1, 8)),
    *((f"T{n}", 7 + n, "thoracic") for n in range(1, 13)),
    ("T13", 28, "thoracic"),
    *((f"L{n}", 19 + n, "lumbar") for n in range(1, 7)),
    ("sacrum", 26, "sacral"),
    ("coccyx", 27, "sacral"),
)

# Six colours that remain distinct with red-green colour blindness (Okabe and Ito 2008), ordered for contrast.
_COLOURS: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),
    (0, 114, 178),
    (240, 228, 66),
    (204, 121, 167),
    (0, 158, 115),
    (86, 180, 233),
)

LEVELS: tuple[Level, ...] = tuple(
    Level(name, verse_id, rank, region, _COLOURS[rank % len(_COLOURS)])
    for rank, (name, verse_id, region) in enumerate(_CRANIO_CAUDAL_IDS)
)
# Any vertebra, the foreground class of a network with two classes. VerSe has no id for it; 100 is our own.
SPINE = Level("spine", 100, len(LEVELS), "whole", (230, 159, 0))
BY_NAME: dict[str, Level] = {level.name: level for level in (*LEVELS, SPINE)}
BY_VERSE_ID: dict[int, Level] = {level.verse_id: level for level in (*LEVELS, SPINE)}

# TotalSegmentator v2 task `total`: https://github.com/wasserth/TotalSegmentator (class_map, version 2).
# S1 is a class of its own there; in VerSe it is part of the sacrum.
TOTALSEGMENTATOR_V2_IDS: dict[int, str] = {
    25: "sacrum",
    26: "sacrum",
    **{27 + offset: f"L{5 - offset}" for offset in range(5)},
    **{32 + offset: f"T{12 - offset}" for offset in range(12)},
    **{44 + offset: f"C{7 - offset}" for offset in range(7)},
}


def level_named(name: str) -> Level:
    """Return the level called `name`, ignoring case. Raises ConfigError for an unknown name."""
    known = {key.lower(): level for key, level in BY_NAME.items()}
    try:
        return known[name.strip().lower()]
    except KeyError:
        raise ConfigError(f"unknown level {name!r}: use one of {', '.join(BY_NAME)}") from None


def parse_levels(text: str) -> tuple[Level, ...]:
    """Parse `"L1-L5"`, `"T12,L1"` or `"C1-C7,T3"` into unique levels in cranio-caudal order.

    A range follows the table, so `T12-L1` includes T13. Raises ConfigError for an unknown level or a reversed range.
    """
    chosen: set[Level] = set()
    for item in text.split(","):
        first, dash, last = item.partition("-")
        start = level_named(first)
        stop = level_named(last) if dash else start
        if stop.rank < start.rank:
            raise ConfigError(f"level range {item.strip()!r} is reversed: write it from head to tail, as in T12-L5")
        chosen.update(level for level in (*LEVELS, SPINE) if start.rank <= level.rank <= stop.rank)
    return sort_levels(chosen)


def sort_levels(levels: Iterable[Level]) -> tuple[Level, ...]:
    """Sort `levels` from head to tail."""
    return tuple(sorted(levels, key=lambda level: level.rank))
