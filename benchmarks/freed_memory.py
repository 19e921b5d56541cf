"""Steps of a workload in processes that keep the memory they free, and in others that leave it to the C library."""

import argparse
import statistics
import subprocess
import sys
import time

import torch
from workloads import WORKLOADS, make_data, make_model, step_of

from whatwhere.process_memory import keep_freed_memory, peak_memory


def main() -> None:
    """Prints a line for each of the two: the median over processes, in turn, of ms a step and of the peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="2", choices=sorted(WORKLOADS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--processes", type=int, default=5, help="of each")
    parser.add_argument("--one", choices=["kept", "left"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(options)
        return
    found: dict[str, list[tuple[float, float]]] = {"kept": [], "left": []}
    for _ in range(options.processes):
        for which, results in found.items():
            done = subprocess.run(
                [sys.executable, *sys.argv, "--one", which], capture_output=True, text=True, check=True
            )
            ms, mib = map(float, done.stdout.split())
            results.append((ms, mib))
    for which, results in found.items():
        ms, mib = (statistics.median(values) for values in zip(*results, strict=True))
        print(
            f"workload {options.workload}, freed memory {which}: {ms:.1f} ms a step, peak of the process {mib:.0f} MiB"
        )


def _one(options: argparse.Namespace) -> None:
    if options.one == "kept" and not keep_freed_memory():
        raise SystemExit("this C library keeps what it will")
    torch.set_num_threads(options.threads)
    workload = WORKLOADS[options.workload]
    step = step_of(make_model(workload), *make_data(workload))
    times = []
    for _ in range(options.steps + 3):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(1e3 * statistics.median(times[3:]), peak_memory() / 2**20)


if __name__ == "__main__":
    main()
