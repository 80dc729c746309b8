from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.sensitivity import append_row, main, markdown, read_rows, recorded, states, variations, varied
from benchmarks.sensitivity_trials import Difference, Trial, compare_figures, compare_spines

from label_spines import cuboid_spine
from vertebral.core.rules import rule
from vertebral.io.write import write_labels
from vertebral.stages.identify import IdentifyRules


@dataclass(frozen=True)
class ToyRules:
    used: float = rule(2.0, "mm", "toy")
    switched_off: float = rule(1.0, "mm", "toy")
    never: int = rule(3, "steps", "toy")
    fatal: int = rule(1, "steps", "toy")


def toy(case: float, rules: ToyRules) -> dict[str, Any]:
    bonus = 0 * rules.switched_off
    return {("table", "row", "result"): (case * rules.used + bonus + 1 / rules.fatal, "good")}


TOY = Trial("toy", "two numbers", ToyRules(), [1.0, 0.0], toy, compare_figures)


@pytest.mark.parametrize(
    ("value", "share", "expected"),
    [
        (10.0, -0.2, 8.0),
        (-500.0, 0.2, -600.0),
        (3, 0.2, 4),
        (3, -0.2, 2),
        (10, 0.2, 12),
        ((1, 10, 0.1), 0.2, (2, 12, pytest.approx(0.12))),
        ((-14.0, 0.0, 14.0), -0.2, (pytest.approx(-11.2), 0.0, pytest.approx(11.2))),
    ],
)
def test_rules_are_varied_by_a_share(value: Any, share: float, expected: Any) -> None:
    assert varied(value, share) == expected


def test_what_is_read_is_recorded() -> None:
    read: set[str] = set()
    rules = recorded(ToyRules(), read)
    assert rules.used == 2.0 and rules == replace(rules)
    assert "used" in read and rules.never == 3 and isinstance(rules, ToyRules)


def test_a_row_states_what_a_rule_changes() -> None:
    rows = list(variations(TOY, set()))
    assert [row.rule for row in rows] == [name for name in ToyRules.__annotations__ for _ in range(2)]
    by_rule = {row.rule: row for row in rows}
    assert (by_rule["used"].changed, by_rule["used"].of, by_rule["used"].value) == (1, 2, "2.4")
    assert (by_rule["switched_off"].state, by_rule["never"].state) == ("same", "not read")
    broken = next(row for row in rows if row.value == "0")
    assert broken.state == "changed" and "ZeroDivisionError" in broken.detail
    found = states(rows)
    assert list(found.values()) == ["changed", "same", "not read", "changed"]
    assert "| ToyRules | 4 | 2 | 0 | 1 | 1 |" in markdown(rows)


def test_rows_are_kept_and_skipped(tmp_path: Path) -> None:
    rows = list(variations(TOY, set()))
    for row in rows:
        append_row(row, tmp_path / "rows.csv")
    assert read_rows(tmp_path / "rows.csv") == rows
    assert not list(variations(TOY, {(row.trial, row.data, row.rule, row.share) for row in rows}))


def test_figures_differ_by_a_percent_or_in_quality() -> None:
    before = {(0, ("vertebrae", "L1", c)): (100.0, "good") for c in ("width", "depth", "height")}
    after = before | {(0, ("vertebrae", "L1", "width")): (101.1, "good")}
    assert compare_figures(before, after) == Difference(1, 3, False, "width")
    assert compare_figures(before, before | {(0, ("vertebrae", "L1", "depth")): (100.5, "good")}).changed == 0
    assert compare_figures(before, before | {(0, ("vertebrae", "L1", "depth")): (100.0, "check")}).changed == 1


def test_spines_differ_in_names_and_voxels() -> None:
    before = {(0, "L1"): ("a", (), 0.9, 1.0), (0, "score"): (True, 1, 1)}
    after = {(0, "L2"): ("a", (), 0.9, 1.0), (0, "score"): (False, 0, 1)}
    found = compare_spines(dict(before), after)
    assert (found.changed, found.of, found.identical) == (2, 2, False)
    assert "all right 1/1, id rate 1.000 -> all right 0/1, id rate 0.000" in found.detail
    assert "names lost: L1, new: L2" in found.detail
    slight = compare_spines(dict(before), {(0, "L1"): ("a", (), 0.8, 1.0), (0, "score"): (True, 1, 1)})
    assert (slight.changed, slight.identical) == (0, False)


def test_the_naming_rules_on_a_small_spine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spine_seg-vert_msk.nii.gz"
    write_labels(cuboid_spine("T12", "L1", "L2", "L3"), path)
    words = [str(path), "--out", str(tmp_path / "out"), "--kinds", "noise", "--only", "names"]
    main(words)
    rows = read_rows(tmp_path / "out" / "sensitivity.csv")
    assert len(rows) == 2 * len(IdentifyRules.__dataclass_fields__)
    assert {row.rules for row in rows} == {"IdentifyRules"} and any(row.read for row in rows)
    assert "| IdentifyRules |" in (tmp_path / "out" / "sensitivity.md").read_text()
    capsys.readouterr()
    main(words)
    assert read_rows(tmp_path / "out" / "sensitivity.csv") == rows
    with pytest.raises(SystemExit):
        main([*words, "scan names"])
