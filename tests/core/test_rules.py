from dataclasses import dataclass, replace

from rule_sets import undocumented
from vertebral.core.rules import describe_rules, rule


@dataclass(frozen=True)
class GapRules:
    gap_mm: float = rule(2.0, "mm", "Smith 2001")
    votes: int = rule(3, "count", "benchmarks/votes.py")
    share: float = 0.5


def test_a_description_names_what_was_changed() -> None:
    default, changed = describe_rules(GapRules()), describe_rules(replace(GapRules(), gap_mm=3.0))
    assert default["name"] == "GapRules" and default["changed"] == {}
    assert changed["changed"] == {"gap_mm": 3.0}
    assert changed["sha256"] != default["sha256"] == describe_rules(GapRules())["sha256"]


def test_rules_without_unit_or_source_are_found() -> None:
    assert undocumented(GapRules) == ["share"]
