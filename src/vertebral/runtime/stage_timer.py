"""What each stage of a run takes: seconds, and the most memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vertebral.runtime.memory import peak_memory_gb, restart_peak

Progress = Callable[[str, float], None]


@dataclass
class Clock:
    """Seconds and peak memory (GB, where the system tells it apart) per stage, in the order of the stages.

    It tells `progress(stage, share)` where the run is.
    """

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    memory_gb: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        """Measure the block as the stage `name`; what is yielded takes the share of it that is done."""
        self.progress(name, 0.0)
        apart, start = restart_peak(), time.perf_counter()
        yield lambda share: self.progress(name, share)
        self.seconds[name] = round(time.perf_counter() - start, 3)
        peak_gb = peak_memory_gb()
        if apart and peak_gb is not None:  # else it would be that of all stages so far
            self.memory_gb[name] = peak_gb
        self.progress(name, 1.0)

    @property
    def peak_memory_gb(self) -> float | None:
        """The most of all stages."""
        return max(self.memory_gb.values(), default=peak_memory_gb())
