"""What a process keeps of the memory that it frees."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from whatwhere import process_memory
from whatwhere.process_memory import _SETTINGS, _c_library, keep_freed_memory

RESIDENT = """
import ctypes
import torch
from whatwhere.process_memory import _MMAP_THRESHOLD, keep_freed_memory
# each block by itself, given back when freed: what glibc does left alone depends on where its heap happens to end
assert ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 2**20)
{called}

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

before = resident()
for _ in range(3):
    blocks = [torch.ones(6 * 2**20) for _ in range(4)]  # 24 MiB each, as the maps of a step
    del blocks
print(resident() - before)
"""


def resident_of_what_was_freed(called: str, **settings: str) -> float:
    """MiB that a process still has after it freed four blocks of 24."""
    program = RESIDENT.format(called=called)
    environment = {name: value for name, value in os.environ.items() if name not in _SETTINGS} | settings
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


@pytest.mark.skipif(not hasattr(_c_library(), "mallopt"), reason="not the C library that can be told")
def test_one_freed_block_stays_with_a_process_that_keeps_them():
    kept, given_back = (resident_of_what_was_freed(called) for called in ("assert keep_freed_memory()", ""))
    assert given_back < 60 < 90 < kept


@pytest.mark.skipif(not hasattr(_c_library(), "mallopt"), reason="not the C library that can be told")
def test_what_no_user_chose_does_not_stay():
    """As in a worker of Dask."""
    dasks = {"MALLOC_TRIM_THRESHOLD_": "65536"}
    assert resident_of_what_was_freed(f"assert keep_freed_memory({dasks})", **dasks) > 90


def test_elsewhere_than_on_linux_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


def test_what_the_environment_says_stays(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    monkeypatch.setattr(process_memory, "_c_library", lambda: SimpleNamespace(mallopt=lambda *_: pytest.fail("set")))
    assert not keep_freed_memory()
    assert not keep_freed_memory({"MALLOC_TRIM_THRESHOLD_": "65536"})


def test_a_library_that_refuses_the_first_is_not_asked_for_the_second(monkeypatch):
    for name in _SETTINGS:
        monkeypatch.delenv(name, raising=False)
    asked = []
    monkeypatch.setattr(
        process_memory, "_c_library", lambda: SimpleNamespace(mallopt=lambda *what: asked.append(what) or 0)
    )
    assert not keep_freed_memory()
    assert len(asked) == 1
