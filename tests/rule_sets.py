"""What holds for every rule set."""

from dataclasses import fields
from typing import Any


def undocumented(rules: type[Any]) -> list[str]:
    """Return the names of the rules of a class that lack a unit or a source."""
    return [entry.name for entry in fields(rules) if not entry.metadata.get("unit") or not entry.metadata.get("source")]
