"""The plan and the loop of the benchmark: how each map is corrupted, in a fixed order and with fixed seeds."""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from benchmarks.identification.cases import Case, find_maps, load_case, with_l6, with_t13, without_t12
from benchmarks.identification.corrupt import KINDS, noise
from benchmarks.identification.scores import NameScore, score
from rich.progress import track
from scipy import ndimage

from vertebral.core.anatomy import LEVELS, Level
from vertebral.core.records import Instance, Instances
from vertebral.stages.identify import identify
from vertebral.stages.instances.by_labels import instances_from_labels

STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
KIND_STRENGTH = 0.6
MADE_NOISE = 0.3
CURVES = ("mixture", "noise")
MADE: dict[str, Callable[[Case], Case | None]] = {
    "T12 absent": without_t12,
    "T13": with_t13,
    "L6": with_l6,
}


@dataclass(frozen=True)
class Outcome:
    """One corrupted map, named and scored; `given` is the score when the true instances are given, as to the rivals."""

    case: str
    kind: str
    strength: float
    repeat: int
    instances_seconds: float
    identify_seconds: float
    score: NameScore
    given: NameScore


def run_benchmark(sources: list[Path], repeats: int, seed: int) -> list[Outcome]:
    """Corrupt every map of `sources` `repeats` times in each way and score the result.

    Curves run over `STRENGTHS`, the other kinds at `KIND_STRENGTH`; each unchanged map is scored once. Spines with one
    vertebra more or less are made from the maps that allow it and labelled with noise of `MADE_NOISE`. The same seed
    gives the same corruptions, whatever the other maps. Raises InputError for sources that are not label maps.
    """
    rows = []
    for path in track(find_maps(sources), "corrupting and naming"):
        case = load_case(path)
        rows += [_outcome(case, "as it is", 0.0, 0)]
        for repeat in range(repeats):
            for kind, strength in _plan():
                rows.append(_outcome(corrupted(case, kind, strength, repeat, seed), kind, strength, repeat))
            for kind, make in MADE.items():
                made = make(case)
                if made is not None:
                    rng = _generator(seed, case.name, kind, MADE_NOISE, repeat)
                    noisy = noise(replace(made, truth=made.claims), MADE_NOISE, rng)
                    rows.append(_outcome(replace(noisy, truth=made.truth), kind, MADE_NOISE, repeat))
    return rows


def _plan() -> list[tuple[str, float]]:
    curves = [(kind, strength) for kind in CURVES for strength in STRENGTHS]
    return curves + [(kind, KIND_STRENGTH) for kind in KINDS if kind not in CURVES]


def corrupted(case: Case, kind: str, strength: float, repeat: int, seed: int) -> Case:
    """Return `case` corrupted in one way; the same arguments give the same corruption."""
    return KINDS[kind](case, strength, _generator(seed, case.name, kind, strength, repeat))


def _generator(seed: int, *parts: object) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32("|".join(map(str, parts)).encode())])


def _outcome(case: Case, kind: str, strength: float, repeat: int) -> Outcome:
    start = time.perf_counter()
    instances = instances_from_labels(case.volume(case.claims), network_classes(case))
    middle = time.perf_counter()
    spine = identify(instances)
    end = time.perf_counter()
    given = score(identify(true_instances(case)), case)
    return Outcome(case.name, kind, strength, repeat, middle - start, end - middle, score(spine, case), given)


def true_instances(case: Case) -> Instances:
    """Return one instance for each vertebra of the truth: its voxels that are still labelled, with their claims."""
    classes = network_classes(case)
    table = np.zeros(256, np.int64)
    table[[level.verse_id for level in classes]] = np.arange(1, len(classes) + 1)
    grid = case.volume(case.truth).grid
    items = []
    for level, box in ((n, box) for n, box in enumerate(ndimage.find_objects(case.truth), start=1) if box is not None):
        own = (case.truth[box] == level) & (case.claims[box] > 0)
        if not own.any():
            continue
        mass = np.bincount(table[case.claims[box][own]], minlength=len(classes) + 1).astype(np.float64)
        where = np.argwhere(own) + np.array([s.start for s in box])
        x, y, z = grid.to_world(where.mean(0))
        cut = bool((where == 0).any() or (where == np.array(grid.shape) - 1).any())
        items.append(Instance(own.astype(np.float32), box, mass, (float(x), float(y), float(z)), cut))
    return Instances(tuple(sorted(items, key=lambda item: -item.centroid_mm[2])), classes, grid)


def network_classes(case: Case) -> tuple[Level, ...]:
    """Return the classes of a network: every level but the coccyx, and T13 only if the claims contain it."""
    t13 = next(level for level in LEVELS if level.name == "T13")
    return tuple(
        level
        for level in LEVELS
        if level.name != "coccyx" and (level != t13 or bool((case.claims == t13.verse_id).any()))
    )
