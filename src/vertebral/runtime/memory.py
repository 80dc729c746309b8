"""How much memory this process has held at most, of all it did or of one part of it."""

import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def peak_memory_gb() -> float | None:
    """Peak resident memory of this process since `restart_peak`, in GB (1e9 bytes); None where unknown."""
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


def restart_peak() -> bool:
    """Forget the peak so far; False where the system (anything but Linux) does not allow it."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True
