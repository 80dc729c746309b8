import sys

import numpy as np
import pytest

from vertebral.runtime import memory
from vertebral.runtime.memory import peak_memory_gb, reset_peak


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets a peak")
def test_the_peak_of_one_part() -> None:
    assert reset_peak()
    before = peak_memory_gb()
    held = np.ones(25_000_000)  # 0.2 GB
    during = peak_memory_gb()
    del held
    assert reset_peak()
    after = peak_memory_gb()
    assert before is not None and during is not None and after is not None
    assert during - before == pytest.approx(0.2, abs=0.03)
    assert after < during - 0.1


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", memory._STATUS / "none")
    monkeypatch.setattr(memory, "_CLEAR", memory._CLEAR / "none")
    assert not reset_peak()
    found = peak_memory_gb()  # from the other source
    assert found is None or found > 0.01
    monkeypatch.setattr(memory.sys, "platform", "win32")
    assert peak_memory_gb() is None
