"""`report.html`: the spine in 3D, slices, tables and provenance of one result in one file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebral.measure import measure
from vertebral.measurements import Measurements
from vertebral.page.contents import contents, shown_volumes
from vertebral.page.html import write_page
from vertebral.page.result import PAGE
from vertebral.records import Surface
from vertebral.volume import Volume

__all__ = ["PAGE", "Measured", "add_page", "measured_for_page"]


@dataclass(frozen=True)
class Measured:
    """What a page takes from the voxels: measurements, and what `shown_volumes` gives."""

    measurements: Measurements
    volumes: dict[str, bytes]


def measured_for_page(ct: Volume, labels: Volume) -> Measured:
    """Measure and pack what the page shows of `ct` (HU) and `labels` (VerSe ids), both on one grid."""
    return Measured(measure(labels, ct), shown_volumes(ct, labels))


def add_page(
    folder: Path, manifest: Mapping[str, Any], surfaces: Sequence[Surface], measured: Callable[[], Measured]
) -> list[str]:
    """Write `report.html` beside the files in `folder`; return a warning where that failed, nothing otherwise.

    `manifest` is that of `vertebral run`, but for `outputs`; `measured` gives what `measured_for_page` makes.
    """
    try:
        files = sorted(path.name for path in folder.iterdir() if path.name != PAGE)
        found = measured()
        made = contents(manifest, files, surfaces, found.measurements, found.volumes)
        write_page(made, folder / PAGE)
    except OSError:
        raise
    except Exception as error:  # a page is an extra: whatever it trips over must not cost the results
        return [f"no {PAGE}: {type(error).__name__}: {error}"]
    return []
