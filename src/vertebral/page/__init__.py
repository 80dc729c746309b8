"""`report.html`: the spine in 3D, slices, tables and provenance of one result in one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebral.measure import measure
from vertebral.page.contents import contents, shown_volumes
from vertebral.page.html import write_page
from vertebral.page.result import PAGE
from vertebral.records import Surface
from vertebral.volume import Volume

__all__ = ["PAGE", "add_page"]


def add_page(
    folder: Path, manifest: Mapping[str, Any], ct: Volume, labels: Volume, surfaces: Sequence[Surface]
) -> list[str]:
    """Write `report.html` beside the files in `folder`; return a warning where that failed, nothing otherwise.

    `manifest` is that of `vertebral run`, but for `outputs`. `ct` (HU) and `labels` (VerSe ids) are on one grid.
    """
    try:
        files = sorted(path.name for path in folder.iterdir() if path.name != PAGE)
        measured = measure(labels, ct)
        made = contents(manifest, files, surfaces, measured, shown_volumes(ct, labels))
        write_page(made, folder / PAGE)
    except OSError:
        raise
    except Exception as error:  # a page is an extra: whatever it trips over must not cost the results
        return [f"no {PAGE}: {type(error).__name__}: {error}"]
    return []
