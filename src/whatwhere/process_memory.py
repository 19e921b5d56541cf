"""How much memory this process has taken at most, and what becomes of blocks that it frees."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

_KEPT = 2**30
"""Bytes: freed blocks are kept up to this size, and up to so many in all at the end of the heap."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of `mallopt`'s options, in malloc.h

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


def keep_freed_memory() -> bool:
    """Keeps what this process frees for what it allocates next; whether the C library can be told so (glibc's).

    Left alone it gives the maps of each training step back to the system, which clears them page by page before the
    next step has them again: 10 to 30 % of a step of three layers. The peak grows by some 5 %, by holes between blocks.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    done = [library.mallopt(option, _KEPT) for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD)]
    return all(done)
