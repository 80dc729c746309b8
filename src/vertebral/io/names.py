"""Case and patient of a file, from its name."""

import re
from pathlib import Path

from vertebral.core.errors import ConfigError
from vertebral.io.ct.image_header import IMAGE_SUFFIXES, suffix_of

_ENDINGS = ("_seg-vert_msk", "_msk", "_seg", "_ct")
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")


def case_of(path: Path) -> str:
    """Return the stem shared by a CT and its label maps: without suffix, `_ct` and the usual label-map endings."""
    return shared_stem(path.name.removesuffix(path.name[len(path.name) - len(suffix_of(path, IMAGE_SUFFIXES)) :]))


def shared_stem(stem: str) -> str:
    """Return `stem` without `_ct` and the usual endings of label maps."""
    while (shorter := without_ending(stem, _ENDINGS)) != stem:
        stem = shorter
    return stem


def without_ending(stem: str, endings: tuple[str, ...]) -> str:
    """Return `stem` without the first of `endings` that matches."""
    return next((stem.removesuffix(ending) for ending in endings if stem.endswith(ending)), stem)


def subject_of(stem: str, pattern: str | None = None) -> str:
    """Return the `sub-...` at the start of `stem`, or all of `stem` without one.

    With `pattern`, a regular expression, return its match instead, or its first group. Raises ConfigError for an
    invalid expression, or one that does not match.
    """
    if pattern is None:
        found = _SUBJECT.match(stem)
        return found[0] if found else stem
    try:
        found = re.search(pattern, stem)
    except re.error as error:
        raise ConfigError(f"--subject {pattern!r}: not a valid regular expression ({error})") from None
    if found is None:
        raise ConfigError(f"--subject {pattern!r}: no match in {stem!r}; change the expression")
    return found[1] if found.re.groups else found[0]
