"""`make bench`: a training step of whatwhere beside plain PyTorch, in time and memory. See `benchmarks/README.md`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import plain
import torch
from agreement import TOLERANCE, differences, make_pair
from arguments import read_options
from contention import Watch
from machine import heading, load_average, machine, versions
from memory import peak_in_own_process
from timing import Timing, measure
from workloads import WORKLOADS, Workload, make_data, step_of

RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    """Runs the workloads asked for, prints their table and writes the results; 1 where the two do not agree."""
    options = read_options("A training step of whatwhere beside plain PyTorch.", WORKLOADS, RESULTS)
    torch.set_num_threads(options.threads)
    about, watch = {"machine": machine(), "versions": versions()}, Watch()
    print(heading(**about, threads=options.threads))
    print(f"load average {load_average()}; a quiet round is one that other processes did not disturb")
    print(f"{'workload':<9}{'whatwhere':>12}{'plain':>12}{'ratio':>8}{'whatwhere':>12}{'plain':>10}   rounds")
    print(f"{'':<9}{'ms/step':>12}{'ms/step':>12}{'':>8}{'peak MiB':>12}{'peak MiB':>10}   quiet/all")
    rows: list[dict[str, Any]] = []
    for name in options.workloads:
        new = _run(WORKLOADS[name], options, watch)
        rows += [{**row, **about} for row in new]
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
    pair, batch_size = make_pair(workload), workload.options.training.batch_size
    steps = {
        "whatwhere": step_of(pair.ours, images, responses),
        "plain": plain.step_of(pair.plain, images, responses, batch_size),
    }
    timing = measure(steps, {"plain": workload.plain_every}, watch, options.rounds, n_steps)
    rows = [
        {
            "workload": workload.name,
            "implementation": name,
            "ratio": round(timing.ms(name) / timing.ms("plain"), 4),
            "peak_mib": round(peak_in_own_process(workload.name, name, options.threads), 1),
            **timing.row(name),
            "loss_difference": max(loss_float32, loss_float64),
            "gradient_difference": gradients_float64,
            "gradient_difference_float32": gradients_float32,
            "load_average": load_average(),
            "threads": options.threads,
            "description": workload.description,
        }
        for name in steps
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


if __name__ == "__main__":
    sys.exit(main())
