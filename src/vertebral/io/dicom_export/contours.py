"""Outlines of a mask in one slice, as polygons along pixel edges."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]
Polygon = list[Point]


def outlines(mask: NDArray[np.bool_]) -> list[Polygon]:
    """Return one closed polygon (first point not repeated) for each 4-connected component of `mask` (columns, rows).

    Points are pixel corners: (c, r) is the corner shared by pixels (c - 1, r - 1) and (c, r), so pixel (c, r) covers
    [c, c + 1] x [r, r + 1]. A hole is joined to the outline around it by a zero-width channel along pixel edges (a
    "keyhole", PS3.3 C.8.8.6.3): the pixel centres inside the polygon then equal `mask` under both the even-odd and the
    winding rule.
    """
    if not mask.any():
        return []
    loops = [_without_straight(loop) for loop in _loops(_edges(mask))]
    outers = [loop for loop in loops if _twice_area(loop) > 0]
    holes = sorted((loop for loop in loops if _twice_area(loop) < 0), key=min)
    for hole in holes:
        _join(outers, hole)
    return outers


def _edges(mask: NDArray[np.bool_]) -> dict[Point, list[Point]]:
    """Map each corner to the ends of the directed edges that start there.

    With c to the right and r downwards, outlines run clockwise on the screen, and holes counterclockwise.
    """
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    goes: dict[Point, list[Point]] = {}
    shifts = (
        (padded[1:-1, :-2], (0, 0), (1, 0)),  # nothing above: to the right along the top
        (padded[2:, 1:-1], (1, 0), (1, 1)),  # nothing to the right: downwards
        (padded[1:-1, 2:], (1, 1), (0, 1)),  # nothing below: to the left
        (padded[:-2, 1:-1], (0, 1), (0, 0)),  # nothing to the left: upwards
    )
    for neighbour, start, stop in shifts:
        for c, r in np.argwhere(inside & ~neighbour).tolist():
            goes.setdefault((c + start[0], r + start[1]), []).append((c + stop[0], r + stop[1]))
    return goes


def _loops(goes: dict[Point, list[Point]]) -> list[Polygon]:
    loops = []
    while goes:
        start = next(iter(goes))
        loop, here, came = [start], _take(goes, start, None), start
        while here != start or (start in goes and not _right_turn(came, here, loop[1])):  # passed twice: go on
            loop.append(here)
            came, here = here, _take(goes, here, came)
        loops.append(loop)
    return loops


def _take(goes: dict[Point, list[Point]], here: Point, came: Point | None) -> Point:
    """Remove and return the next corner; of two, the right turn, which stays on the same pixel."""
    ways = goes[here]
    chosen = 0
    if len(ways) == 2 and came is not None:
        chosen = next(n for n, way in enumerate(ways) if _right_turn(came, here, way))
    way = ways.pop(chosen)
    if not ways:
        del goes[here]
    return way


def _right_turn(a: Point, b: Point, c: Point) -> bool:
    return (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0]) > 0


def _without_straight(loop: Polygon) -> Polygon:
    """Return the corners at which the loop turns."""
    before, after = loop[-1:] + loop[:-1], loop[1:] + loop[:1]
    return [
        b
        for a, b, c in zip(before, loop, after, strict=True)
        if (b[0] - a[0], b[1] - a[1]) != (c[0] - b[0], c[1] - b[1])
    ]


def _twice_area(loop: Sequence[Point]) -> int:
    after = [*loop[1:], loop[0]]
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(loop, after, strict=True))


def _join(outers: list[Polygon], hole: Polygon) -> None:
    """Splice `hole` into the nearest outline to the left of its leftmost, topmost corner.

    Holes are joined from left to right, so everything to the left is part of an outline already.
    """
    first = hole.index(min(hole))
    c0, r0 = hole[first]
    best: tuple[int, int, int] | None = None
    for number, outer in enumerate(outers):
        for n, (a, b) in enumerate(zip(outer, [*outer[1:], outer[0]], strict=True)):
            met = a[0] == b[0] < c0 and min(a[1], b[1]) <= r0 <= max(a[1], b[1])
            if met and (best is None or a[0] > best[0]):
                best = (a[0], number, n)
    assert best is not None  # a hole is inside an outline
    column, number, n = best
    outer, gate = outers[number], (column, r0)
    inner = [*hole[first:], *hole[:first], hole[first]]
    before = [] if outer[n] == gate else [gate]
    after = [] if outer[(n + 1) % len(outer)] == gate else [gate]
    outers[number] = [*outer[: n + 1], *before, *inner, *after, *outer[n + 1 :]]
