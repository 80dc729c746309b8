"""`report.html`: the spine in 3D, slices, tables and provenance of one result in one file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebral.core.measurements import Measurements
from vertebral.core.records import Surface
from vertebral.stages.report.contents import contents, measured_for_page
from vertebral.stages.report.html import write_page
from vertebral.stages.report.result import PAGE

__all__ = ["PAGE", "add_page", "measured_for_page"]


def add_page(
    folder: Path,
    manifest: Mapping[str, Any],
    surfaces: Sequence[Surface],
    measured: Callable[[], tuple[Measurements, dict[str, bytes]]],
) -> list[str]:
    """Write `report.html` beside the files in `folder`; return a warning where that failed, nothing otherwise.

    `manifest` is that of `vertebral run`, but for `outputs`; `measured` gives what `measured_for_page` makes.
    """
    try:
        files = sorted(path.name for path in folder.iterdir() if path.name != PAGE)
        made = contents(manifest, files, surfaces, *measured())
        write_page(made, folder / PAGE)
    except OSError:
        raise
    except Exception as error:  # a page is an extra: whatever it trips over must not cost the results
        return [f"no {PAGE}: {type(error).__name__}: {error}"]
    return []
