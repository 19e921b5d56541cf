"""How much memory this process has taken at most."""

import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory() -> int:
    """The most that was resident at once, bytes, since the process began or `forget_peak`; 0 where none can tell.

    Linux tells it of this process alone; elsewhere it is `ru_maxrss`.
    """
    if _STATUS.exists():
        lines = [line for line in _STATUS.read_text().splitlines() if "VmHWM" in line]
        return 1024 * int(lines[0].split()[1]) if lines else 0
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def forget_peak() -> None:
    """Has the peak begin anew from what is resident now, where the system can."""
    if _CLEAR.exists():
        with suppress(OSError):
            _CLEAR.write_text("5")
