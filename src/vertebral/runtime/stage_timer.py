"""Wall time and peak memory of each stage of a run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vertebral.runtime.memory import peak_memory_gb, reset_peak

Progress = Callable[[str, float], None]


def no_progress(stage: str, share: float) -> None:
    """Take the place of a progress bar where nobody looks."""


@dataclass
class StageTimer:
    """Seconds and, on Linux, peak memory (GB) of each stage, in the order in which they ran.

    Calls `progress(stage, share)` as the run advances; `share` runs from 0 to 1.
    """

    progress: Progress = no_progress
    seconds: dict[str, float] = field(default_factory=dict)
    memory_gb: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        """Time the block as stage `name`; yields a function that takes the share of the stage that is done."""
        self.progress(name, 0.0)
        has_own_peak, start = reset_peak(), time.perf_counter()
        yield lambda share: self.progress(name, share)
        self.seconds[name] = round(time.perf_counter() - start, 3)
        peak_gb = peak_memory_gb()
        if has_own_peak and peak_gb is not None:  # else it would be the peak of all stages so far
            self.memory_gb[name] = peak_gb
        self.progress(name, 1.0)

    @property
    def peak_memory_gb(self) -> float | None:
        """The highest peak of all stages."""
        return max(self.memory_gb.values(), default=peak_memory_gb())
