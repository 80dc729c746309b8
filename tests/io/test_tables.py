import sys
from pathlib import Path

import pytest

from vertebral.core.errors import ConfigError, InputError
from vertebral.io.tables import write_csv, write_parquet

RECORDS = [{"name": "L1", "mm": 1.5, "why": None}, {"name": "L2", "mm": None, "why": "a, b"}]


def test_csv(tmp_path: Path) -> None:
    write_csv(RECORDS, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == 'name,mm,why\nL1,1.5,\nL2,,"a, b"\n'


def test_csv_without_records(tmp_path: Path) -> None:
    write_csv([], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "\n"


def test_csv_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose another output folder"):
        write_csv(RECORDS, tmp_path / "missing" / "a.csv")


def test_parquet_keeps_numbers_and_nulls(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an optional extra")
    write_parquet(RECORDS, tmp_path / "a.parquet")
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == RECORDS


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'vertebral\[parquet\]'"):
        write_parquet(RECORDS, tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())
