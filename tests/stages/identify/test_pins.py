"""Levels given by hand."""

from dataclasses import replace

import numpy as np
import pytest

from label_spines import cuboid_spine
from vertebral.core.anatomy import LEVELS, level_named
from vertebral.core.errors import ConfigError
from vertebral.stages.identify import identify
from vertebral.stages.instances.by_labels import instances_from_labels

INSTANCES = instances_from_labels(cuboid_spine("T10", "T11", "T12", "L1", "L2", "L3", "L4"), LEVELS)
UNSAID = replace(
    INSTANCES, items=tuple(replace(item, class_mass=np.zeros_like(item.class_mass)) for item in INSTANCES.items)
)


@pytest.mark.parametrize(
    ("pins", "names"),
    [
        ({3: "L1"}, ["T10", "T11", "T12", "L1", "L2", "L3", "L4"]),
        ({3: "L2"}, ["T11", "T12", "L1", "L2", "L3", "L4", "L5"]),
        ({6: "L3"}, ["T9", "T10", "T11", "T12", "L1", "L2", "L3"]),
        ({2: "T13", 3: "L1"}, ["T11", "T12", "T13", "L1", "L2", "L3", "L4"]),
    ],
)
def test_they_are_kept_and_the_others_follow(pins: dict[int, str], names: list[str]) -> None:
    spine = identify(UNSAID, pins={n: level_named(name) for n, name in pins.items()})
    assert [vertebra.level.name for vertebra in spine.vertebrae] == names
    assert all(spine.vertebrae[n].confidence == pytest.approx(1.0) for n in pins)


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ({0: "L1", 1: "T12"}, "L1 is above T12"),
        ({0: "L1", 1: "L1"}, "L1 is above L1"),
        ({0: "spine"}, "spine: not a level that can be set here"),
    ],
)
def test_those_that_cannot_be_are_refused(pins: dict[int, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        identify(INSTANCES, pins={n: level_named(name) for n, name in pins.items()})
