"""Votes: worked by hand on small blocks, spacing 2 mm."""

import numpy as np

from vertebral.stages.instances.bone import SpineBone
from vertebral.stages.instances.by_votes import owners_by_votes

SPACING_MM = 2.0
SHAPE = (40, 40, 60)


def bone_of(blocks: list[tuple[slice, slice, slice]]) -> tuple[SpineBone, np.ndarray]:
    """A mask of boxes and, for each voxel, the exact offset to the centre of its box."""
    mask = np.zeros(SHAPE, bool)
    offset_mm = np.zeros((3, *SHAPE), np.int8)
    for block in blocks:
        mask[block] = True
        grid = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in block], indexing="ij"))
        centre = np.array([(s.start + s.stop - 1) / 2 for s in block])[:, None, None, None]
        offset_mm[(slice(None), *block)] = np.rint((centre - grid) * SPACING_MM)
    probability = np.where(mask, 255, 0).astype(np.uint8)
    return SpineBone(mask, mask.astype(np.uint8), probability), offset_mm


def block(z: int, x: int = 15, size: int = 10) -> tuple[slice, slice, slice]:
    return slice(x, x + size), slice(15, 15 + size), slice(z, z + size)


def test_two_touching_vertebrae_of_one_class_are_separated() -> None:
    lower, upper = block(10), block(20)
    owner = owners_by_votes(*bone_of([lower, upper]), SPACING_MM)
    assert set(np.unique(owner[upper])) == {1}
    assert set(np.unique(owner[lower])) == {2}
    assert (owner > 0).sum() == 2 * 10**3


def test_a_blob_beside_the_spine_is_no_vertebra() -> None:
    blob = (slice(32, 38), slice(15, 21), slice(22, 28))
    spine = [block(5), block(20), block(35)]
    owner = owners_by_votes(*bone_of([*spine, blob]), SPACING_MM)
    assert owner.max() == 3
    assert not owner[blob].any()


def test_a_vertebra_that_is_missing_does_not_end_the_chain() -> None:
    owner = owners_by_votes(*bone_of([block(45), block(5)]), SPACING_MM)
    assert owner.max() == 2


def test_too_few_votes_are_no_vertebra() -> None:
    # 6^3 voxels of 8 mm3 are 1.7 ml, under the 2 ml that a centre needs.
    owner = owners_by_votes(*bone_of([block(20, size=6)]), SPACING_MM)
    assert not owner.any()


def test_no_bone_gives_nothing() -> None:
    assert not owners_by_votes(*bone_of([]), SPACING_MM).any()


def test_islands_of_a_vertebra_are_dropped() -> None:
    bone, offset_mm = bone_of([block(20)])
    island = (slice(15, 17), slice(27, 29), slice(24, 26))
    bone.mask[island] = True
    offset_mm[(slice(None), *island)] = np.array([8, -16, 0])[:, None, None, None]
    owner = owners_by_votes(bone, offset_mm, SPACING_MM)
    assert not owner[island].any()
    assert owner[block(20)].all()
