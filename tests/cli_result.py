"""What every refusal of the command line looks like."""

from typing import Any


def assert_one_line(result: Any, *parts: str, code: int = 2) -> None:
    """One line on standard error that holds `parts`, nothing on standard output, and the exit code."""
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("vertebral: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr
