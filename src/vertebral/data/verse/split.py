"""Split a catalogue by subject into training, validation and test sets, reproducibly."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import ConfigError, ReadError
from vertebral.data.verse.catalogue import Catalogue, CatalogueCase
from vertebral.io.write import write_json

Mode = Literal["random", "challenge", "folds"]

REGIONS = ("cervical", "thoracic", "lumbar")
_SEVEREST_FIRST = ("test", "validation", "training")


class Fold(BaseModel):
    """Ids of the cases for training and validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: tuple[str, ...]
    validation: tuple[str, ...]


class LeftOut(BaseModel):
    """A scan in no set, by the path of its CT, and the reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ct: str
    why: str


class Split(BaseModel):
    """Ids of cases, sorted: one fold, or several for cross-validation, and a test set that no fold touches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    mode: Mode
    seed: int
    catalog_sha256: str
    folds: tuple[Fold, ...]
    test: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()


def make_split(
    catalogue: Catalogue, mode: Mode = "random", validation: float = 0.2, folds: int = 5, seed: int = 0
) -> Split:
    """Split the usable scans of `catalogue` so that all scans of a subject stay together.

    `random` puts the share `validation` of the subjects into the validation set; `folds` makes `folds` validation sets
    without common subjects, one per fold. Both are stratified by the regions (cervical, thoracic, lumbar) in the label
    maps of a subject and by whether they show a numerical anomaly (T13, L6, or T11 and L1 without T12). Subjects in a
    folder named `test` form the test set and are not drawn; if the catalogue has no others, they are drawn like any
    other, and the test set is empty. Folders named training and validation make no difference.

    `challenge` uses the sets that the folders name. A subject with scans in several of them goes to the test set if it
    has a scan there, otherwise to the validation set. Scans without such a folder are left out.

    The order of subjects is drawn from a hash of `seed` and their names, so the result depends neither on the order of
    the catalogue nor on the platform.

    Raises ConfigError if there are too few subjects, or the settings are out of range.
    """
    _check(mode, validation, folds)
    subsets = _subsets(catalogue.cases)
    left_out = [LeftOut(ct=case.ct, why="; ".join(case.problems)) for case in catalogue.cases if not case.usable]
    subjects = _by_subject(catalogue.usable)
    if len(subjects) < 2:
        raise ConfigError(
            f"{catalogue.root}: {len(subjects)} subject(s) with usable scans, but a split needs two: "
            "see the problems in the catalogue, or index more data"
        )
    if mode == "challenge":
        outside = [case for name, cases in subjects.items() if subsets[name] is None for case in cases]
        left_out += [LeftOut(ct=case.ct, why="no folder name gives its subset") for case in outside]
        chosen = [[name for name in subjects if subsets[name] == subset] for subset in reversed(_SEVEREST_FIRST)]
        drawn, test = _challenge(catalogue, *chosen)
    else:
        test = [name for name in subjects if subsets[name] == "test"]
        test = [] if len(test) == len(subjects) else test
        pool = {name: cases for name, cases in subjects.items() if name not in test}
        drawn = _random(pool, validation, seed) if mode == "random" else _folds(pool, folds, seed)
    return Split(
        mode=mode,
        seed=seed,
        catalog_sha256=catalogue.sha256,
        folds=tuple(Fold(train=_ids(subjects, a), validation=_ids(subjects, b)) for a, b in drawn),
        test=_ids(subjects, test),
        left_out=tuple(sorted(left_out, key=lambda item: item.ct)),
    )


def write_split(split: Split, path: Path) -> None:
    """Write `split` as JSON."""
    write_json(split.model_dump(mode="json"), path)


def load_split(path: Path, catalogue: Catalogue) -> Split:
    """Read a split of `catalogue`.

    Raises ReadError if `path` is not a split, was made from another catalogue, names a case that is not usable there,
    or has a subject in two sets.
    """
    try:
        split = Split.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file: make it with vertebral data split") from None
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ReadError(f"{path}: not a split ({reason}): make it with vertebral data split") from error
    if split.catalog_sha256 != catalogue.sha256:
        raise ReadError(f"{path}: was made from another catalogue, or before the data changed: make it again")
    subject = {case.case: case.subject for case in catalogue.usable}
    for fold in split.folds:
        sets = (fold.train, fold.validation, split.test)
        if unknown := [case for cases in sets for case in cases if case not in subject]:
            raise ReadError(f"{path}: the catalogue has no usable case {unknown[0]!r}: make the split again")
        names = [name for cases in sets for name in {subject[case] for case in cases}]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ReadError(f"{path}: {min(twice)} is in two sets of a fold: make the split again")
    return split


def has_anomaly(levels: Sequence[str]) -> bool:
    """Return whether a label map with these levels shows a T13, an L6, or an absent T12."""
    return "T13" in levels or "L6" in levels or ("T12" not in levels and "T11" in levels and "L1" in levels)


def describe(split: Split, catalogue: Catalogue) -> list[dict[str, Any]]:
    """Return a row per set: name, subjects, scans, and the numbers of subjects with each region or an anomaly."""
    cases = {case.case: case for case in catalogue.usable}
    many = len(split.folds) > 1
    sets: list[tuple[str, tuple[str, ...]]] = []
    for number, fold in enumerate(split.folds):
        of = f" {number + 1}" if many else ""
        sets += [(f"train{of}", fold.train), (f"validation{of}", fold.validation)]
    return [_row(name, [cases[case] for case in ids]) for name, ids in (*sets, ("test", split.test))]


def _row(name: str, cases: Sequence[CatalogueCase]) -> dict[str, Any]:
    strata = [_stratum(own) for own in _by_subject(cases).values()]
    regions = {region: sum(seen[index] for seen, _ in strata) for index, region in enumerate(REGIONS)}
    anomalies = sum(anomaly for _, anomaly in strata)
    return {"set": name, "subjects": len(strata), "scans": len(cases), **regions, "anomalies": anomalies}


def _check(mode: str, validation: float, folds: int) -> None:
    if mode not in get_args(Mode):
        raise ConfigError(f"--mode {mode}: use {', '.join(get_args(Mode))}")
    if not 0 < validation < 1:
        raise ConfigError(f"--validation {validation:g}: use a share between 0 and 1, such as 0.2")
    if folds < 2:
        raise ConfigError(f"--folds {folds}: use 2 or more")


def _by_subject(cases: Sequence[CatalogueCase]) -> dict[str, list[CatalogueCase]]:
    subjects: dict[str, list[CatalogueCase]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.ct):
        subjects[case.subject].append(case)
    return dict(sorted(subjects.items()))


def _subsets(cases: Sequence[CatalogueCase]) -> dict[str, str | None]:
    """Return the subset of each subject, from all of its scans, usable or not."""
    found: dict[str, set[str | None]] = defaultdict(set)
    for case in cases:
        found[case.subject].add(case.subset)
    return {name: next((s for s in _SEVEREST_FIRST if s in seen), None) for name, seen in found.items()}


def _ids(subjects: Mapping[str, Sequence[CatalogueCase]], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(case.case for name in names for case in subjects[name]))


Sides = tuple[list[str], list[str]]


def _challenge(
    catalogue: Catalogue, training: list[str], validation: list[str], test: list[str]
) -> tuple[list[Sides], list[str]]:
    for name, subjects in (("training", training), ("validation", validation)):
        if not subjects:
            raise ConfigError(f"{catalogue.root}: no usable scan is in a {name} folder: use --mode random")
    return [(training, validation)], test


def _random(subjects: Mapping[str, Sequence[CatalogueCase]], share: float, seed: int) -> list[Sides]:
    """Take every n-th of the ordered subjects, which keeps `share` in each stratum as well as overall."""
    order = _ordered(subjects, seed)
    if len(order) < 2:
        raise ConfigError(f"{len(order)} subject(s) outside the test folders, but a split needs two: index more data")
    count = min(max(1, round(len(order) * share)), len(order) - 1)
    phase = _draw(seed, "phase")
    steps = [math.floor(n * count / len(order) + phase) for n in range(len(order) + 1)]
    chosen = {name for name, low, high in zip(order, steps, steps[1:], strict=False) if high > low}
    return [([name for name in order if name not in chosen], [name for name in order if name in chosen])]


def _folds(subjects: Mapping[str, Sequence[CatalogueCase]], count: int, seed: int) -> list[Sides]:
    """Deal out the ordered subjects in turn."""
    order = _ordered(subjects, seed)
    if len(order) < count:
        raise ConfigError(f"--folds {count}: only {len(order)} subject(s) are available; use fewer folds")
    dealt = [order[turn::count] for turn in range(count)]
    return [([name for other in dealt if other is not own for name in other], own) for own in dealt]


def _ordered(subjects: Mapping[str, Sequence[CatalogueCase]], seed: int) -> list[str]:
    """Return the subjects stratum by stratum, in a random order within each."""
    return sorted(subjects, key=lambda name: (_stratum(subjects[name]), _draw(seed, f"subject {name}"), name))


def _stratum(cases: Sequence[CatalogueCase]) -> tuple[tuple[bool, ...], bool]:
    """Return which regions the scans of a subject show, and whether they show a numerical anomaly."""
    shown = {BY_NAME[name].region for case in cases for name in case.levels}
    return tuple(region in shown for region in REGIONS), any(has_anomaly(case.levels) for case in cases)


def _draw(seed: int, what: str) -> float:
    """Return a number in [0, 1) that depends only on `seed` and `what`."""
    digest = hashlib.sha256(json.dumps([seed, what]).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
