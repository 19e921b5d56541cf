"""The command line of the benchmarks."""

import argparse
from collections.abc import Collection
from pathlib import Path

import torch


def read_options(description: str, names: Collection[str], out: Path) -> argparse.Namespace:
    """What the command line asks: which of the workloads `names`, how long, and where to write the results."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workloads", nargs="+", choices=names, default=list(names), help="which (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="undisturbed rounds wanted of each workload (5)")
    parser.add_argument("--steps", type=int, help="steps of a round (default: as many as take about a second)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: one a core")
    parser.add_argument("--out", type=Path, default=out, help=f"default: benchmarks/{out.name}")
    options = parser.parse_args()
    if options.rounds < 1 or (options.steps is not None and options.steps < 1):
        parser.error(f"--rounds (={options.rounds}) and --steps (={options.steps}) must be 1 or more.")
    return options
