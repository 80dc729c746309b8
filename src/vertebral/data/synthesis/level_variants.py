"""Spines with one vertebra more or fewer than usual: T13, L6, no T12, no L5. All torch, one generator.

The whole body is changed along an oblique plane through a disc. Everything below it moves down by one vertebra, and the
vertebra above the plane is repeated in the gap; or everything moves up by one vertebra over the one that is removed.
"""

from dataclasses import dataclass

import torch

from vertebral.core.anatomy import BY_NAME, BY_VERSE_ID

# How far below the box a removed vertebra may require tissue, in mm.
REACH_MM = 48.0
_FEWEST_VOXELS = 160


@dataclass(frozen=True)
class LevelVariant:
    """`level` is repeated as `new`, or removed if `new` is None; `before` and `after` are its neighbours."""

    level: int
    before: int
    after: int
    new: int | None


def _variant(level: str, before: str, after: str, new: str | None) -> LevelVariant:
    ids = [BY_NAME[name].verse_id for name in (level, before, after)]
    return LevelVariant(ids[0], ids[1], ids[2], BY_NAME[new].verse_id if new else None)


VARIANTS = (
    _variant("T12", "T11", "L1", "T13"),
    _variant("L5", "L4", "sacrum", "L6"),
    _variant("T12", "T11", "L1", None),
    _variant("L5", "L4", "sacrum", None),
)


def with_variant(
    maps: list[torch.Tensor], labels: torch.Tensor, generator: torch.Generator
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Repeat or leave out a vertebra in uint8 `labels` (VerSe ids) and in `maps` of the same shape (I, J, K), axes RAS.

    Draws one of the variants for which `labels` show the level and its neighbours whole. Nothing changes if there is
    none, or if the spine already has T13 or L6.
    """
    counts = torch.bincount(labels.flatten().int(), minlength=max(BY_VERSE_ID) + 1)
    unusual = any(counts[BY_NAME[name].verse_id] for name in ("T13", "L6"))
    whole = set() if unusual else _whole(labels, counts)
    fitting = [v for v in VARIANTS if {v.level, v.before} <= whole and counts[v.after]]
    which = int(torch.randint(0, 12, (), generator=generator))  # a multiple of every possible number of variants
    if not fitting:
        return maps, labels
    chosen = fitting[which % len(fitting)]
    level, before = (_centroid(labels, value) for value in (chosen.level, chosen.before))
    step = level - before
    plane = level + (step if chosen.new else -step) / 2
    below = _side(labels.shape, plane, step) >= 0
    shift = (-step if chosen.new else step).round().long().tolist()
    above_names, below_names = (torch.arange(256, dtype=torch.uint8) for _ in range(2))
    if chosen.new is not None:
        above_names[chosen.after] = chosen.new
        below_names[chosen.level], below_names[chosen.before] = chosen.new, chosen.level
    else:
        above_names[chosen.level], below_names[chosen.level] = chosen.after, chosen.before
    moved = [torch.where(below, _shifted(values, shift), values) for values in maps]
    named = torch.where(below, below_names[_shifted(labels, shift).int()], above_names[labels.int()])
    return moved, named


def _whole(labels: torch.Tensor, counts: torch.Tensor) -> set[int]:
    """Return the levels that do not touch the lowest or the highest plane."""
    cut = {int(v) for plane in (0, -1) for v in torch.nonzero(torch.bincount(labels[:, :, plane].flatten().int()))}
    return {v for v in BY_VERSE_ID if v < len(counts) and int(counts[v]) >= _FEWEST_VOXELS and v not in cut}


def _centroid(labels: torch.Tensor, value: int) -> torch.Tensor:
    return 2 * torch.nonzero(labels[::2, ::2, ::2] == value).float().mean(0)


def _side(shape: torch.Size, plane: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """Return (I, J, K): the distance of each voxel beyond the plane through `plane`, along `normal`."""
    i, j, k = ((torch.arange(n) - float(p)) * float(c) for n, p, c in zip(shape, plane, normal, strict=True))
    return i[:, None, None] + j[None, :, None] + k[None, None, :]


def _shifted(values: torch.Tensor, shift: list[int]) -> torch.Tensor:
    """Return `values` read `shift` voxels further along each axis; the last voxel repeats beyond the border."""
    for axis, (n, by) in enumerate(zip(values.shape, shift, strict=True)):
        values = values.index_select(axis, (torch.arange(n) + by).clamp(0, n - 1))
    return values
