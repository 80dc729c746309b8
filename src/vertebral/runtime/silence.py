"""Silences log messages and warnings of other packages."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silenced(logger: str, level: int) -> Iterator[None]:
    """Suppress all warnings, and messages of the logger named `logger` below `level`."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
