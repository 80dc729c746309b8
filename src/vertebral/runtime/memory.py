"""Peak memory of this process, over its lifetime or since the last reset."""

import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def peak_memory_gb() -> float | None:
    """Peak resident memory of this process since `reset_peak`, in GB (1e9 bytes); None if unknown."""
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(int(line.split()[1]) * 1024 / 1e9, 2)
    except (OSError, ValueError, StopIteration):
        pass
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


def reset_peak() -> bool:
    """Reset the peak to the current use; return False where this is impossible (anything but Linux)."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True
