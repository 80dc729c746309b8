"""Fixtures that several folders of tests share."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Tests run in parallel; threads of networks that wait for each other would eat what the others need.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_LAYOUT = Path(__file__).parent / "data" / "verse" / "verse_layout.py"
_SPEC = importlib.util.spec_from_file_location("verse_layout", _LAYOUT)
assert _SPEC is not None and _SPEC.loader is not None
_VERSE_LAYOUT = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_VERSE_LAYOUT)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep converted networks out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEBRAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def make_verse() -> Callable[..., Path]:
    """`make_verse(root, subjects=4, year=2020, spacing_mm=4.0, levels=..., subset="training")` of `verse_layout`."""
    function: Callable[..., Path] = _VERSE_LAYOUT.make_verse
    return function


@pytest.fixture(scope="session")
def write_verse_case() -> Callable[..., None]:
    """`write_case(dataset, subject, stem, ct, labels, year=2020)` of `verse_layout`."""
    function: Callable[..., None] = _VERSE_LAYOUT.write_case
    return function


@pytest.fixture(scope="session")
def verse_root(tmp_path_factory: pytest.TempPathFactory, make_verse: Any) -> Path:
    """A folder with VerSe 2020's three data sets, of 4, 2 and 2 subjects. Do not change it: copy it first."""
    root: Path = tmp_path_factory.mktemp("verse")
    for subset, subjects in (("training", 4), ("validation", 2), ("test", 2)):
        make_verse(root, subjects, subset=subset)
    return root
