"""`make bench`: a training step of whatwhere beside plain PyTorch, in time and memory. See `benchmarks/README.md`."""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from agreement import TOLERANCE, differences, make_pair
from contention import Watch
from memory import peak_in_own_process
from timing import IMPLEMENTATIONS, Timing, measure
from workloads import WORKLOADS, Workload, make_data

RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    """Runs the workloads asked for, prints their table and writes the results; 1 where the two do not agree."""
    options = _options()
    torch.set_num_threads(options.threads)
    machine, watch = _machine(), Watch()
    versions = ", ".join(f"{name} {number}" for name, number in _versions().items())
    print(f"{machine['processor']}, {machine['cores']} cores, {options.threads} threads; {versions}")
    print(f"load average {_load_average()}; a quiet round is one that other processes did not disturb")
    print(f"{'workload':<9}{'whatwhere':>12}{'plain':>12}{'ratio':>8}{'whatwhere':>12}{'plain':>10}   rounds")
    print(f"{'':<9}{'ms/step':>12}{'ms/step':>12}{'':>8}{'peak MiB':>12}{'peak MiB':>10}   quiet/all")
    rows: list[dict[str, Any]] = []
    for name in options.workloads:
        new = _run(WORKLOADS[name], options, watch)
        rows += [{**row, "machine": machine, "versions": _versions()} for row in new]
        if not max(new[0]["loss_difference"], new[0]["gradient_difference"]) <= TOLERANCE:
            print(f"workload {name}: loss or gradients differ from plain PyTorch's by more than {TOLERANCE}")
            return 1
    options.out.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"written to {options.out}")
    return 0


def _run(workload: Workload, options: argparse.Namespace, watch: Watch) -> list[dict[str, Any]]:
    """One workload: agreement, time, memory; prints its line of the table."""
    images, responses = make_data(workload)
    loss_float32, gradients_float32 = differences(workload, images, responses, torch.float32)
    loss_float64, gradients_float64 = differences(workload, images, responses, torch.float64)
    n_steps = options.steps or workload.steps
    timing = measure(workload, make_pair(workload), images, responses, watch, options.rounds, n_steps)
    peaks = {name: peak_in_own_process(workload.name, name, options.threads) for name in IMPLEMENTATIONS}
    rows = [
        {
            "workload": workload.name,
            "implementation": name,
            "ms_per_step": round(timing.ms(name), 3),
            "ratio": round(timing.ms(name) / timing.ms("plain"), 4),
            "peak_mib": round(peaks[name], 1),
            "contended": timing.contended,
            "quiet_rounds": len(timing.quiet),
            "rounds": len(timing.rounds),
            "ms_per_round": [round(each.ms[name], 3) for each in timing.rounds],
            "other_cores_busy": [round(each.load.others, 2) for each in timing.rounds],
            "loss_difference": max(loss_float32, loss_float64),
            "gradient_difference": gradients_float64,
            "gradient_difference_float32": gradients_float32,
            "load_average": _load_average(),
            "threads": options.threads,
            "description": workload.description,
        }
        for name in IMPLEMENTATIONS
    ]
    _print_line(rows, timing)
    return rows


def _print_line(rows: list[dict[str, Any]], timing: Timing) -> None:
    ours, plain = rows
    print(
        f"{ours['workload']:<9}{ours['ms_per_step']:>12.1f}{plain['ms_per_step']:>12.1f}{ours['ratio']:>8.3f}"
        f"{ours['peak_mib']:>12.0f}{plain['peak_mib']:>10.0f}   {len(timing.quiet)}/{len(timing.rounds)}"
        + ("  CONTENDED: other processes were busy in every round; shortest times shown" if timing.contended else ""),
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A training step of whatwhere beside plain PyTorch.")
    parser.add_argument(
        "--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="which (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="undisturbed rounds wanted of each workload (5)")
    parser.add_argument("--steps", type=int, help="steps of a round (default: as many as take about a second)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: one a core")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: benchmarks/results.json")
    options = parser.parse_args()
    if options.rounds < 1 or (options.steps is not None and options.steps < 1):
        parser.error(f"--rounds (={options.rounds}) and --steps (={options.steps}) must be 1 or more.")
    return options


def _machine() -> dict[str, Any]:
    return {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()}


def _processor() -> str:
    """The processor's model name where Linux tells it, else what the platform module knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("whatwhere", "torch", "numpy")},
    }


def _load_average() -> list[float]:
    return [round(load, 2) for load in os.getloadavg()]


if __name__ == "__main__":
    sys.exit(main())
