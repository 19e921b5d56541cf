"""How much memory this process has taken at most, and what becomes of blocks that it frees."""

import ctypes
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

_LARGEST_KEPT = 2**25
"""Bytes of a block: the largest that every glibc takes. Larger ones, as of recordings, go back to the system."""
_MOST_KEPT = 2**30
"""Bytes at the end of the heap; what lies free below a block in use stays in any case."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of `mallopt`'s options, in malloc.h
_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""Of the environment, by which a user may have chosen."""

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
    """Has the peak begin anew from what is in use now, where the system can."""
    library = _c_library()
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
    if _CLEAR.exists():
        with suppress(OSError):
            _CLEAR.write_text("5")


def keep_freed_memory(not_chosen: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Keeps blocks of up to 32 MiB that this process frees for what it allocates next; whether that could be done.

    Left alone, glibc gives the maps of each training step back to the system, which clears them page by page before
    the next step has them again (`benchmarks/freed_memory.py`). Where a user has set glibc's thresholds in the
    environment they stay, but for those that are `not_chosen`, by a user; other C libraries are left alone.
    """
    library = _c_library()
    chosen = [name for name in _SETTINGS if name in os.environ and os.environ[name] != not_chosen.get(name)]
    if not hasattr(library, "mallopt") or chosen:
        return False
    # in this order: to set either ends glibc's own choice of both, and without the first the second makes it worse
    return bool(library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and library.mallopt(_TRIM_THRESHOLD, _MOST_KEPT))


def _c_library() -> Any:  # its functions are found by name, or not
    """Of Linux; elsewhere None."""
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None
