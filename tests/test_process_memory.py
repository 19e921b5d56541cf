"""What a process keeps of the memory that it frees."""

import subprocess
import sys

import pytest

from whatwhere.process_memory import keep_freed_memory

RESIDENT = """
import torch
from whatwhere.process_memory import keep_freed_memory
{called}

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

before = resident()
for _ in range(3):
    torch.ones(2**24)  # 64 MiB
print(resident() - before)
"""


def resident_of_what_was_freed(called: str) -> float:
    """MiB that a process still has after it freed blocks of 64."""
    program = RESIDENT.format(called=called)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux")
def test_one_freed_block_stays_with_a_process_that_keeps_them():
    kept, left_alone = (resident_of_what_was_freed(called) for called in ("assert keep_freed_memory()", ""))
    assert left_alone < 20
    assert kept > 60


def test_elsewhere_than_on_linux_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
