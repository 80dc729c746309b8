"""Other packages' remarks, kept off the screen."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hushed(logger: str, level: int) -> Iterator[None]:
    """Keep all warnings, and what the logger named `logger` says below `level`, off the screen."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
