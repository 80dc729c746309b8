"""The usual adult spine: steps between neighbours, volumes, and the levels that vary from person to person.

Steps are distances between the centroids of whole vertebrae (body and posterior elements, as in a label map); volumes
are those of whole vertebrae. Both are rounded medians over the 31 training label maps (complete vertebrae only; C1-C5
in 4-7 maps, C6-C7 in 12, T1-L5 in 13-27). C6 is often cut in these maps, so its volume is set between those of its
neighbours. The maps do not label the sacrum: steps to it are rounded from sacra that the shipped network finds, and
depend on how much of it is in the field of view.
"""

from functools import cache
from itertools import pairwise

from vertebral.core.anatomy import BY_NAME, Level, sort_levels

# Most people lack the rare levels. Nearly everybody has T12 and L5, but either may be absent.
RARE = ("T13", "L6")
ABSENT = ("T12", "L5")

# Distance to the level below, mm, at scale 1.
STEPS_MM: dict[tuple[str, str], float] = {
    ("C1", "C2"): 18.0,
    ("C2", "C3"): 19.5,
    ("C3", "C4"): 16.5,
    ("C4", "C5"): 16.7,
    ("C5", "C6"): 17.0,
    ("C6", "C7"): 18.0,
    ("C7", "T1"): 19.8,
    ("T1", "T2"): 21.8,
    ("T2", "T3"): 22.4,
    ("T3", "T4"): 22.7,
    ("T4", "T5"): 23.3,
    ("T5", "T6"): 24.0,
    ("T6", "T7"): 24.6,
    ("T7", "T8"): 25.0,
    ("T8", "T9"): 25.1,
    ("T9", "T10"): 25.8,
    ("T10", "T11"): 27.7,
    ("T11", "T12"): 30.2,
    ("T12", "L1"): 31.7,
    ("L1", "L2"): 32.4,
    ("L2", "L3"): 33.4,
    ("L3", "L4"): 33.2,
    ("L4", "L5"): 31.3,
    ("L5", "sacrum"): 49.0,
    ("sacrum", "coccyx"): 70.0,
    # With a rare level, or with an absent one.
    ("T12", "T13"): 31.2,
    ("T13", "L1"): 31.9,
    ("T11", "L1"): 31.0,
    ("L5", "L6"): 32.0,
    ("L6", "sacrum"): 49.0,
    ("L4", "sacrum"): 49.0,
}

VOLUMES_ML: dict[str, float] = {
    **dict(zip((f"C{n}" for n in range(1, 8)), (15.8, 21.0, 13.8, 13.0, 13.2, 15.5, 19.5), strict=True)),
    **dict(
        zip(
            (f"T{n}" for n in range(1, 14)),
            (23.8, 24.2, 23.6, 24.4, 25.9, 28.3, 30.8, 34.0, 36.1, 38.9, 43.4, 48.0, 49.5),
            strict=True,
        )
    ),
    **dict(zip((f"L{n}" for n in range(1, 7)), (51.5, 57.6, 62.5, 65.8, 66.2, 68.0), strict=True)),
    "sacrum": 180.0,
    "coccyx": 6.0,
}

_COMMON = sort_levels(BY_NAME[name] for name in VOLUMES_ML if name not in RARE)


@cache
def distance_mm(upper: Level, lower: Level, absent: str | None = None) -> float:
    """Return the distance in mm between two levels at scale 1, with all common levels between them except `absent`."""
    chain = [upper.name, *(level.name for level in between(upper, lower) if level.name != absent), lower.name]
    return sum(STEPS_MM[pair] for pair in pairwise(chain))


def between(upper: Level, lower: Level) -> tuple[Level, ...]:
    """Return the levels strictly between two others that nearly everybody has."""
    return tuple(level for level in _COMMON if upper.rank < level.rank < lower.rank)


def nameable(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Return the levels that may be assigned if `levels` have a class: also T13 with T12 and L1, and L6 with L5."""
    names = {level.name for level in levels}
    extra = {BY_NAME["T13"]} if {"T12", "L1"} <= names else set()
    extra |= {BY_NAME["L6"]} if "L5" in names else set()
    return sort_levels({*levels, *extra})


def shifted(level: Level, by: int) -> Level | None:
    """Return the level `by` places further down, None if there is none: L1 after T12 (and after T13), L6 after L5.

    The sacrum does not shift: if the vertebrae above it do, there is one more or one fewer of them.
    """
    if not level.is_vertebra or by == 0:
        return level
    order = [other for other in _COMMON if other.is_vertebra] + [BY_NAME["L6"]]
    if level.name == "T13":
        return BY_NAME["L1" if by > 0 else "T12"] if abs(by) == 1 else None
    index = order.index(level) + by
    return order[index] if 0 <= index < len(order) else None
