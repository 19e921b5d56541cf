"""Peak memory of training with one implementation, in a process of its own.

`python benchmarks/memory.py WORKLOAD IMPLEMENTATION THREADS` prints the peak of resident memory over a few steps, less
what was resident once the data were built: parameters, gradients, Adam's moments, activations, temporaries; in MiB.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

import plain
import torch
import workloads

N_STEPS = 2  # the second has Adam's moments from its start
N_PROCESSES = 3
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
"""glibc returns every freed block above 1 MiB at once: the peak is what is needed, not how holes happened to fit."""

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def peak_in_own_process(name: str, implementation: str, threads: int) -> float:
    """Peak in MiB of one implementation of a workload: the median of a few fresh processes."""
    command = [sys.executable, __file__, name, implementation, str(threads)]
    environment = {**os.environ, **_GIVE_BACK}
    return median(
        float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)
        for _ in range(N_PROCESSES)
    )


def _peak(name: str, implementation: str) -> float:
    workload = workloads.WORKLOADS[name]
    images, responses = workloads.make_data(workload)
    before = _reset_peak()
    if implementation == "plain":
        step = plain.step_of(plain.MODELS[name](), images, responses, workload.options.training.batch_size)
    else:
        step = workloads.step_of(workloads.make_model(workload), images, responses)
    for _ in range(N_STEPS):
        step()
    return _peak_mib() - before


def _reset_peak() -> float:
    """Forgets, where the system can, the peak so far, and gives the one that counts from here, in MiB."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")
    return _peak_mib()


def _peak_mib() -> float:
    """The peak of this process alone: Linux's `ru_maxrss` would begin with that of the process that started it."""
    if _STATUS.exists():
        return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if "VmHWM" in line) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    print(_peak(sys.argv[1], sys.argv[2]))
