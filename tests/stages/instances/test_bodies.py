"""Columns without discs, 1 mm per position, divided by labels and heights."""

import numpy as np

from vertebral.core.anatomy import LEVELS
from vertebral.stages.instances.bodies import HEIGHT_MM, BodySegment, column_profile, find_bodies
from vertebral.stages.instances.rules import LabelMapRules

NAMES = [level.name for level in LEVELS]
RULES = LabelMapRules()


def cut(*runs: tuple[str, int]) -> list[tuple[str, int]]:
    """Bodies (name, height in mm) found in a column of solid bone whose labels come in `runs` from head to tail."""
    labels = np.concatenate([np.full(height, NAMES.index(name) + 1, np.uint8) for name, height in runs])
    found = np.repeat(labels[:, None], 5, axis=1)
    radius_mm = np.full(len(labels), 8.0)
    profile = column_profile(found, np.ones(found.shape, bool), radius_mm, LEVELS, RULES)
    bodies: list[BodySegment] = find_bodies(profile, RULES)
    return [(NAMES[body.best - 1], body.stop - body.start) for body in bodies]


def test_labels_in_order_are_right_though_bodies_are_low() -> None:
    neck = [("C2", 26), ("C3", 14), ("C4", 14), ("C5", 14), ("C6", 13), ("C7", 15)]
    assert cut(*neck) == neck


def test_two_bodies_under_one_label_are_too_high_for_one() -> None:
    """T7 and T8, of 21 and 23 mm: one of 44 mm is twice as high as any, however few discs are seen."""
    names = ["T5", "T6", "T7", "T9", "T10"]
    found = cut(("T5", 21), ("T6", 21), ("T7", 44), ("T9", 23), ("T10", 25))
    assert [name for name, _ in found] == [*names[:3], "T7", *names[3:]]
    assert all(abs(height - HEIGHT_MM[name]) <= 3 for name, height in found)


def test_two_labels_in_what_is_as_high_as_one_are_one() -> None:
    found = cut(("T5", 21), ("T6", 21), ("T7", 12), ("T8", 9), ("T9", 23))
    assert found == [("T5", 21), ("T6", 21), ("T7", 21), ("T9", 23)]
