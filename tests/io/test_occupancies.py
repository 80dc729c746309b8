from pathlib import Path

import numpy as np
import pytest

from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import ReadError
from vertebral.core.records import Instance, Spine, Vertebra
from vertebral.core.volume import Grid
from vertebral.io.occupancies import read_occupancies, write_occupancies


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    grid = Grid((9, 8, 7), np.diag([1.25, 1.25, 1.25, 1.0]))
    values = np.random.default_rng(0).random((3, 4, 2), np.float32)
    box = (slice(2, 5), slice(1, 5), slice(4, 6))
    instance = Instance(values, box, np.zeros(2), (0, 0, 0), False)
    write_occupancies(Spine((Vertebra(BY_NAME["T13"], 0.9, instance),), grid), tmp_path / "a_occupancy.npz")
    back, (part,) = read_occupancies(tmp_path / "a_occupancy.npz")
    assert back.matches(grid)
    assert (part.level.name, part.box) == ("T13", box)
    assert part.values.dtype == np.float32
    assert np.abs(part.values - values).max() <= 0.5 / 255 + 1e-6
    assert [path.name for path in tmp_path.iterdir()] == ["a_occupancy.npz"]


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ReadError, match=r"a\.npz: not an occupancy file"):
        read_occupancies(tmp_path / "a.npz")


def test_an_array_is_missing(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", shape=np.array([1, 1, 1]))
    with pytest.raises(ReadError, match="run it again"):
        read_occupancies(tmp_path / "a.npz")
