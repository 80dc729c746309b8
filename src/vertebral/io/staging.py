"""A hidden folder in which results are made, so that they appear all at once or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vertebral.core.errors import InputError, VertebralError

_PREFIX = ".partial-"


@contextmanager
def staging_in(out: Path) -> Iterator[Path]:
    """Yield a fresh hidden folder inside `out`, on the same file system; it, and a new `out` left empty, go afterwards.

    Made before the work starts, so that a place that cannot be written to shows at once, as InputError.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=out))
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); choose another --out") from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            if any(folder.iterdir()):
                break
            folder.rmdir()


def remove_leftovers(out: Path) -> None:
    """Remove what `staging_in` left in `out` where its process was killed; nobody else may be working there."""
    for folder in out.glob(f"{_PREFIX}*") if out.is_dir() else ():
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn a full disk and its like into a VertebralError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise VertebralError(
            f"{out}: the results could not be written ({reason}); free space or choose another --out"
        ) from error
