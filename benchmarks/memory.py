"""Peak memory of training with one implementation, in a process of its own.

`python benchmarks/memory.py WORKLOAD IMPLEMENTATION THREADS` prints the peak of resident memory over a few steps, less
what was resident once the data were built: parameters, gradients, Adam's moments, activations, temporaries; in MiB.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median

import plain
import torch
import workloads
from torch import Tensor

from whatwhere.process_memory import forget_peak, peak_memory

N_STEPS = 2  # the second has Adam's moments from its start
N_PROCESSES = 3
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
"""glibc returns every freed block above 1 MiB at once: the peak is what is needed, not how holes happened to fit."""


def peak_in_own_process(name: str, implementation: str, threads: int, script: str = __file__) -> float:
    """Peak in MiB of one implementation of a workload: the median of a few fresh processes, each running `script`."""
    command = [sys.executable, script, name, implementation, str(threads)]
    environment = {**os.environ, **_GIVE_BACK}
    return median(
        float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)
        for _ in range(N_PROCESSES)
    )


def peak_of(workload: workloads.Workload, make_step: Callable[[Tensor, Tensor], Callable[[], None]]) -> float:
    """Peak in MiB of a few steps, made from images and responses once what came before is forgotten."""
    images, responses = workloads.make_data(workload)
    forget_peak()
    before = peak_memory()
    step = make_step(images, responses)
    for _ in range(N_STEPS):
        step()
    return (peak_memory() - before) / 2**20


def _peak(name: str, implementation: str) -> float:
    workload = workloads.WORKLOADS[name]
    if implementation == "plain":
        batch_size = workload.options.training.batch_size
        return peak_of(workload, lambda *data: plain.step_of(plain.MODELS[name](), *data, batch_size))
    return peak_of(workload, lambda *data: workloads.step_of(workloads.make_model(workload), *data))


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    print(_peak(sys.argv[1], sys.argv[2]))
