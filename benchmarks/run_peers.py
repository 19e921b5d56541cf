"""`make bench-peers`: a training step of whatwhere beside released libraries. See `benchmarks/README.md`."""

import argparse
import json
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import torch
from agreement import TOLERANCE, differences
from arguments import read_options
from contention import Watch
from machine import heading, load_average, machine, versions
from memory import peak_in_own_process
from peers.agreement import difference
from peers.classes import CLASSES, LIBRARIES, PeerError, public, shims
from peers.table import DIFFERS, PEERS, UNLIKE, implementations, make_step
from peers.work import PEER_WORKLOADS
from timing import measure
from torch import Tensor
from workloads import Workload, make_data

RESULTS = Path(__file__).parent / "results-peers.json"
MEMORY = Path(__file__).parent / "memory_peers.py"


def main() -> int:
    """Runs the workloads asked for, prints their table and writes the results; 1 where predictions do not agree."""
    options = read_options("A training step of whatwhere beside released libraries.", PEER_WORKLOADS, RESULTS)
    torch.set_num_threads(options.threads)
    try:
        about = {"machine": machine(), "versions": _versions(), "shims": shims()}
    except PeerError as error:
        print(error, file=sys.stderr)
        return 2
    print(heading(about["machine"], about["versions"], options.threads))
    for name, reason in about["shims"].items():
        print(f"shim {name}: {reason}")
    print(f"load average {load_average()}; a quiet round is one that other processes did not disturb")
    print(f"{'workload':<9}{'implementation':<18}{'ms/step':>9}{'ratio':>7}{'peak MiB':>10}{'differs by':>12}   rounds")
    watch, rows = Watch(), []
    for name in options.workloads:
        new = _run(PEER_WORKLOADS[name], options, watch)
        rows += [{**row, **about} for row in new]
        wrong = [row["implementation"] for row in new if not (row["difference"] or 0.0) <= TOLERANCE]
        if wrong:
            print(f"workload {name}: {', '.join(wrong)} differs from whatwhere by more than {TOLERANCE}")
            return 1
    _print_differences(options.workloads)
    options.out.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"written to {options.out}")
    return 0


def _versions() -> dict[str, str]:
    """Raises `PeerError` where a library or one of its classes is not there."""
    for name in CLASSES:
        public(name)
    try:
        return versions(*LIBRARIES)
    except PackageNotFoundError as error:
        raise PeerError(f"{error.name} is not installed: run `make bench-peers`, which installs it.") from error


def _run(workload: Workload, options: argparse.Namespace, watch: Watch) -> list[dict[str, Any]]:
    """One workload: agreement, time, memory; prints its lines of the table."""
    images, responses = make_data(workload)
    names = implementations(workload)
    found = {name: _difference(workload, name, images, responses) for name in names}
    steps = {name: make_step(workload, name, images, responses) for name in names}
    timing = measure(steps, {}, watch, options.rounds, options.steps or workload.steps)
    steps.clear()
    rows = []
    for name in names:
        rows.append(
            {
                "workload": workload.name,
                "implementation": name,
                "ratio": round(timing.ms(name) / timing.ms("whatwhere"), 4),
                "peak_mib": round(peak_in_own_process(workload.name, name, options.threads, str(MEMORY)), 1),
                **timing.row(name),
                "difference": found[name],
                "differs": DIFFERS[workload.name].get(name, ""),
                "load_average": load_average(),
                "threads": options.threads,
                "description": workload.description,
            }
        )
        _print_line(rows[-1])
    return rows


def _difference(workload: Workload, name: str, images: Tensor, responses: Tensor) -> float | None:
    """The largest relative difference of what whatwhere computes; None where there is nothing to agree."""
    if name == "whatwhere" or name in UNLIKE:
        return None
    if name == "plain":
        return max(differences(workload, images, responses, torch.float64))
    return difference(PEERS[name](workload), images, responses)


def _print_line(row: dict[str, Any]) -> None:
    agreement = "-" if row["difference"] is None else f"{row['difference']:.0e}"
    print(
        f"{row['workload']:<9}{row['implementation']:<18}{row['ms_per_step']:>9.1f}{row['ratio']:>7.2f}"
        f"{row['peak_mib']:>10.0f}{agreement:>12}   {row['quiet_rounds']}/{row['rounds']}"
        + ("  CONTENDED: other processes were busy in every round; shortest times shown" if row["contended"] else ""),
        flush=True,
    )


def _print_differences(names: list[str]) -> None:
    print("what differs from whatwhere beside the code:")
    for name in names:
        for implementation, text in DIFFERS[name].items():
            print(f"{name:<4}{implementation}: {text}")


if __name__ == "__main__":
    sys.exit(main())
