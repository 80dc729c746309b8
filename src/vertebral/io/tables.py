"""Write tables of flat records as CSV and Parquet, atomically."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vertebral.core.about import DISCLAIMER
from vertebral.core.errors import ConfigError
from vertebral.core.measurements import Measurements, flat_rows, nested
from vertebral.io.write import atomic_write, write_json

Record = dict[str, Any]


def write_csv(records: Sequence[Record], path: Path) -> None:
    """Write records with the same keys as UTF-8 CSV with a header; None becomes an empty cell.

    Without records the file is a single empty line. Raises InputError if the folder is not writable.
    """
    with atomic_write(Path(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(records[0]) if records else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def write_parquet(records: Sequence[Record], path: Path) -> None:
    """Write records with the same keys as Parquet. Raises ConfigError if pyarrow is not installed."""
    require_parquet()
    import pyarrow
    import pyarrow.parquet

    columns = list(records[0]) if records else []
    table = pyarrow.table({name: [record[name] for record in records] for name in columns})
    with atomic_write(Path(path)) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def write_measurements(measurements: Measurements, csv_path: Path, json_path: Path) -> None:
    """Write a row per vertebra as CSV, and all tables as json."""
    write_csv(flat_rows(measurements.vertebrae), csv_path)
    write_json({"disclaimer": DISCLAIMER, **nested(measurements)}, json_path)


def require_parquet() -> None:
    """Raise ConfigError if pyarrow is not installed; call it before any work is done."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ConfigError(
            "--format parquet needs pyarrow: pip install 'vertebral[parquet]', or choose csv or json"
        ) from None
