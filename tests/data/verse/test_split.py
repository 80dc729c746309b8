"""Splits of catalogues that exist on paper only."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebral.core.errors import ConfigError, ReadError
from vertebral.data.verse.catalogue import Catalogue, CatalogueCase
from vertebral.data.verse.split import Mode, Split, describe, has_anomaly, load_split, make_split, write_split

LUMBAR, NECK = ("L1", "L2"), ("C1", "C2")


def case(
    name: str, subject: str = "", subset: Any = None, levels: Sequence[str] = LUMBAR, problems: Sequence[str] = ()
) -> CatalogueCase:
    return CatalogueCase(
        case=name,
        subject=subject or name,
        dataset="d",
        subset=subset,
        ct=f"d/images/{name}.nii.gz",
        labels=f"d/labels/{name}.nii.gz",
        centroids=None,
        shape=(2, 3, 4),
        spacing_mm=(1, 1, 1),
        orientation="RAS",
        levels=tuple(levels),
        cut=(),
        sha256_ct=name,
        sha256_labels=name,
        problems=tuple(problems),
    )


def catalogue(*cases: CatalogueCase) -> Catalogue:
    return Catalogue(root=Path("root"), cases=cases)


def many(count: int, prefix: str = "s", **values: Any) -> list[CatalogueCase]:
    return [case(f"{prefix}{n}", **values) for n in range(count)]


def test_random_is_four_to_one_by_subject() -> None:
    cases = [case(f"s{n}-{scan}", f"s{n}") for n in range(10) for scan in range(1 + n % 3)]
    split = make_split(catalogue(*cases))
    (fold,) = split.folds
    assert len({name.split("-")[0] for name in fold.validation}) == 2
    assert len({name.split("-")[0] for name in fold.train}) == 8
    assert sorted(fold.train + fold.validation) == sorted(c.case for c in cases)
    assert (split.mode, split.seed, split.test, split.left_out) == ("random", 0, (), ())


def test_another_seed_is_another_split() -> None:
    data = catalogue(*many(40))
    drawn = {make_split(data, seed=seed).folds for seed in range(10)}
    assert len(drawn) == 10


def test_the_draw_is_the_same_on_every_machine() -> None:
    (fold,) = make_split(catalogue(*many(10)), seed=1).folds
    assert fold.validation == ("s0", "s3")


def test_strata_are_divided_alike() -> None:
    necks = many(10, prefix="neck", levels=NECK)
    odd = many(5, prefix="odd", levels=("L5", "L6"))
    lumbar = many(20, prefix="lumbar")
    for seed in range(5):
        (fold,) = make_split(catalogue(*necks, *odd, *lumbar), seed=seed).folds
        counts = Counter(name.rstrip("0123456789") for name in fold.validation)
        assert counts.total() == 7
        assert abs(counts["neck"] - 2) <= 1 and abs(counts["odd"] - 1) <= 1 and abs(counts["lumbar"] - 4) <= 1


def test_folds_deal_every_stratum_out() -> None:
    data = catalogue(*many(10, prefix="neck", levels=NECK), *many(5, prefix="odd", levels=("T12", "T13", "L1")))
    split = make_split(data, "folds", folds=5)
    for fold in split.folds:
        counts = Counter(name.rstrip("0123456789") for name in fold.validation)
        assert counts == {"neck": 2, "odd": 1}
    assert sorted(name for fold in split.folds for name in fold.validation) == sorted(c.case for c in data.cases)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["T11", "T12", "L1"], False),
        (["T11", "L1"], True),
        (["T12", "T13", "L1"], True),
        (["L5", "L6"], True),
        (["T10", "T11"], False),
        (["L1", "L2"], False),
        ([], False),
    ],
)
def test_anomalies_of_number(levels: list[str], expected: bool) -> None:
    assert has_anomaly(levels) is expected


def test_challenge_takes_the_folders_word() -> None:
    data = catalogue(case("a", subset="training"), case("b", subset="validation"), case("c", subset="test"), case("d"))
    split = make_split(data, "challenge")
    (fold,) = split.folds
    assert (fold.train, fold.validation, split.test) == (("a",), ("b",), ("c",))
    assert [(item.ct, item.why) for item in split.left_out] == [
        ("d/images/d.nii.gz", "no folder name gives its subset")
    ]


def test_challenge_keeps_a_subject_out_of_training_that_is_tested_elsewhere() -> None:
    data = catalogue(
        case("a1", "a", "training"),
        case("a2", "a", "test"),
        case("b1", "b", "training"),
        case("b2", "b", "validation"),
        case("c1", "c", "training"),
        case("c2", "c", "test", problems=["broken"]),
        case("d1", "d", "training"),
        case("d2", "d"),
    )
    split = make_split(data, "challenge")
    (fold,) = split.folds
    assert (fold.train, fold.validation, split.test) == (("d1", "d2"), ("b1", "b2"), ("a1", "a2", "c1"))


@pytest.mark.parametrize("mode", ["random", "folds"])
def test_test_folders_stay_the_test_set(mode: Mode) -> None:
    data = catalogue(*many(6, prefix="a"), *many(3, prefix="b", subset="test"), case("a0-again", "a0", "test"))
    split = make_split(data, mode, folds=2)
    assert split.test == ("a0", "a0-again", "b0", "b1", "b2")
    for fold in split.folds:
        assert sorted(fold.train + fold.validation) == ["a1", "a2", "a3", "a4", "a5"]


def test_a_catalogue_of_test_scans_alone_is_drawn_from() -> None:
    split = make_split(catalogue(*many(5, subset="test")))
    assert split.test == ()
    assert (len(split.folds[0].train), len(split.folds[0].validation)) == (4, 1)


def test_problems_are_left_out_with_their_reason() -> None:
    data = catalogue(*many(3), case("x", problems=["no mask", "odd"]))
    (left_out,) = make_split(data).left_out
    assert (left_out.ct, left_out.why) == ("d/images/x.nii.gz", "no mask; odd")


@pytest.mark.parametrize(
    ("cases", "options", "message"),
    [
        ([], {}, "root: 0 subject.*a split needs two"),
        ([case("a1", "a"), case("a2", "a"), case("b", problems=["x"])], {}, "root: 1 subject.*a split needs two"),
        (many(2), {"mode": "best"}, "--mode best: use random, challenge, folds"),
        (many(2), {"validation": 0}, "--validation 0: use a share between 0 and 1"),
        (many(2), {"validation": 1.5}, "--validation 1.5"),
        (many(2), {"folds": 1}, "--folds 1: use 2 or more"),
        (many(2), {"mode": "folds", "folds": 3}, "--folds 3: only 2 subject"),
        ([case("a"), case("b", subset="test")], {}, "1 subject.*outside the test folders"),
        (many(2, subset="validation"), {"mode": "challenge"}, "no usable scan is in a training folder"),
        (many(2, subset="training"), {"mode": "challenge"}, "no usable scan is in a validation folder"),
    ],
)
def test_what_cannot_be_split(cases: list[CatalogueCase], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_split(catalogue(*cases), **options)


def test_a_share_leaves_a_subject_on_each_side() -> None:
    for validation in (0.01, 0.99):
        (fold,) = make_split(catalogue(*many(3)), validation=validation).folds
        assert fold.train and fold.validation


def test_the_file_is_as_documented(tmp_path: Path) -> None:
    data = catalogue(*many(5), case("t", subset="test"))
    split = make_split(data, seed=7)
    write_split(split, tmp_path / "split.json")
    stored = json.loads((tmp_path / "split.json").read_text())
    assert set(stored) == {"version", "mode", "seed", "catalog_sha256", "folds", "test", "left_out"}
    assert (stored["version"], stored["mode"], stored["seed"], stored["test"]) == (1, "random", 7, ["t"])
    assert stored["catalog_sha256"] == data.sha256
    assert set(stored["folds"][0]) == {"train", "validation"}
    assert load_split(tmp_path / "split.json", data) == split


def test_a_split_of_something_else_is_refused(tmp_path: Path) -> None:
    data, path = catalogue(*many(5)), tmp_path / "split.json"
    split = make_split(data)
    write_split(split, path)
    with pytest.raises(ReadError, match=r"split\.json: was made from another catalogue.*make it again"):
        load_split(path, catalogue(*many(6)))
    (fold,) = split.folds
    spoilt = {
        "no usable case 'x'": fold.model_copy(update={"train": ("x",)}),
        f"{fold.validation[0]} is in two sets": fold.model_copy(update={"train": fold.train + fold.validation}),
    }
    for message, other in spoilt.items():
        write_split(split.model_copy(update={"folds": (other,)}), path)
        with pytest.raises(ReadError, match=message):
            load_split(path, data)
    path.write_text("{}")
    with pytest.raises(ReadError, match=r"split\.json: not a split \(Field required\)"):
        load_split(path, data)
    with pytest.raises(ReadError, match=r"none\.json: no such file: make it with vertebral data split"):
        load_split(tmp_path / "none.json", data)


def test_sets_are_described() -> None:
    data = catalogue(
        case("a1", "a", "training", ("C7", "T1")),
        case("a2", "a", "training", ("T11", "L1")),
        case("b", "b", "validation", NECK),
        case("c", "c", "test"),
    )
    counts = ("set", "subjects", "scans", "cervical", "thoracic", "lumbar", "anomalies")
    assert [tuple(row[name] for name in counts) for row in describe(make_split(data, "challenge"), data)] == [
        ("train", 1, 2, 1, 1, 1, 1),
        ("validation", 1, 1, 1, 0, 0, 0),
        ("test", 1, 1, 0, 0, 1, 0),
    ]
    rows = describe(make_split(catalogue(*many(4)), "folds", folds=2), catalogue(*many(4)))
    assert [row["set"] for row in rows] == ["train 1", "validation 1", "train 2", "validation 2", "test"]


@st.composite
def catalogs(draw: st.DrawFn) -> Catalogue:
    """Up to 12 subjects with up to 3 scans each, some of them not usable."""
    cases = []
    for subject in range(draw(st.integers(2, 12))):
        for scan in range(draw(st.integers(1, 3))):
            levels = draw(st.sampled_from([LUMBAR, NECK, ("T11", "L1"), ("T12", "L1", "L6"), ()]))
            subset = draw(st.sampled_from([None, "training", "validation", "test"]))
            problems = draw(st.sampled_from([(), (), ("bad",)]))
            cases.append(case(f"s{subject}-{scan}", f"s{subject}", subset, levels, problems))
    return catalogue(*draw(st.permutations(cases)))


@settings(max_examples=150, deadline=None)
@given(catalogs(), st.sampled_from(get_args(Mode)), st.floats(0.01, 0.99), st.integers(2, 4), st.integers(0, 99))
def test_no_subject_on_two_sides_and_every_scan_once(
    data: Catalogue, mode: Mode, validation: float, folds: int, seed: int
) -> None:
    try:
        split = make_split(data, mode, validation, folds, seed)
    except ConfigError:
        return
    subject = {c.case: c.subject for c in data.usable}
    tested = {c.subject for c in data.cases if c.subset == "test"}
    left_out = {item.ct for item in split.left_out}
    expected = sorted(c.case for c in data.usable if c.ct not in left_out)
    for fold in split.folds:
        sets = [fold.train, fold.validation, split.test]
        assert sorted(name for names in sets for name in names) == expected
        subjects = [name for names in sets for name in {subject[c] for c in names}]
        assert len(subjects) == len(set(subjects))
        assert fold.train and fold.validation
        if split.test or mode == "challenge":
            assert not tested & {subject[c] for c in fold.train + fold.validation}
    if mode == "folds":
        assert len(split.folds) == folds
        validated = [name for fold in split.folds for name in fold.validation]
        assert sorted(validated + list(split.test)) == expected
    reversed_data = data.model_copy(update={"cases": data.cases[::-1]})
    assert make_split(reversed_data, mode, validation, folds, seed) == split
    assert Split.model_validate_json(split.model_dump_json()) == split
