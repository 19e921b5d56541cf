"""The machine that something was timed on, for a file of results."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Processor, number of cores and operating system."""
    return {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()}


def _processor() -> str:
    """The processor's model name where Linux tells it, else what the platform module knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(*others: str) -> dict[str, str]:
    """Of Python, of what is timed, and of other packages by their names."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("whatwhere", "torch", "numpy", *others)},
    }


def load_average() -> list[float]:
    """Processes that wanted to run in the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def heading(machine: dict[str, Any], versions: dict[str, str], threads: int) -> str:
    """One line for above a table."""
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{machine['processor']}, {machine['cores']} cores, {threads} threads; {named}"
