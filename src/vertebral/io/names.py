"""What the names of files tell: which case an image belongs to, and which patient."""

import re
from pathlib import Path

from vertebral.core.errors import ConfigError
from vertebral.io.ct.image_header import IMAGE_SUFFIXES, suffix_of

_ENDINGS = ("_seg-vert_msk", "_msk", "_seg", "_ct")
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")


def case_of(path: Path) -> str:
    """The stem that a CT and its label maps share: without suffix, `_ct` and the usual endings of label maps."""
    return shared_stem(path.name.removesuffix(path.name[len(path.name) - len(suffix_of(path, IMAGE_SUFFIXES)) :]))


def shared_stem(stem: str) -> str:
    """`stem` without `_ct` and the usual endings of label maps."""
    while (shorter := without_ending(stem, _ENDINGS)) != stem:
        stem = shorter
    return stem


def without_ending(stem: str, endings: tuple[str, ...]) -> str:
    """`stem` without the first of `endings` that it ends with."""
    return next((stem.removesuffix(ending) for ending in endings if stem.endswith(ending)), stem)


def subject_of(stem: str, pattern: str | None = None) -> str:
    """The `sub-...` that `stem` begins with, or else all of it.

    `pattern` is a regular expression to find it by instead: what it matches, or its first group. Raises ConfigError for
    a bad expression, or one that does not match.
    """
    if pattern is None:
        found = _SUBJECT.match(stem)
        return found[0] if found else stem
    try:
        found = re.search(pattern, stem)
    except re.error as error:
        raise ConfigError(f"--subject {pattern!r}: not a regular expression ({error})") from None
    if found is None:
        raise ConfigError(f"--subject {pattern!r}: matches nothing in {stem!r}")
    return found[1] if found.re.groups else found[0]
