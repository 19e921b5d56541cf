"""Peak memory of training with another library, in a process of its own, as `memory.py` has it."""

import sys

import torch
from memory import peak_of
from peers.classes import CLASSES, public
from peers.table import make_step
from peers.work import PEER_WORKLOADS


def main(name: str, implementation: str, threads: int) -> None:
    """Prints the peak in MiB; whichever is measured, all libraries are imported before."""
    torch.set_num_threads(threads)
    for each in CLASSES:
        public(each)
    workload = PEER_WORKLOADS[name]
    print(peak_of(workload, lambda *data: make_step(workload, implementation, *data)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
