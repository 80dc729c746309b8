"""Rule sets: the thresholds of a stage as one frozen dataclass, each with its unit and where its value comes from."""

import hashlib
import json
from dataclasses import asdict, field
from typing import Any, TypeVar

T = TypeVar("T")


def rule(value: T, unit: str, source: str) -> T:
    """Declare a rule in a frozen dataclass: its default `value`, `unit` ("mm", "share", "cost", ...) and `source`.

    `source` says where the value comes from: a paper, a standard, or the benchmark that chose it.
    """
    found: T = field(default=value, metadata={"unit": unit, "source": source})
    return found


def describe_rules(rules: Any) -> dict[str, Any]:
    """Return what a manifest records of a rule set: name, SHA-256 of the values, and those that are not the default."""
    values = asdict(rules)
    default = asdict(type(rules)())
    encoded = json.dumps(values, sort_keys=True, default=str).encode()
    return {
        "name": type(rules).__name__,
        "sha256": hashlib.sha256(encoded).hexdigest(),
        "changed": {name: value for name, value in values.items() if value != default[name]},
    }
