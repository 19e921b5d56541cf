"""What verbs that measure a grid of points share: a part of it from flags, its run, and how that ended."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import typer

from whatwhere import runs
from whatwhere.cli import console
from whatwhere.errors import OptionError
from whatwhere.experiments.experiment import Experiment
from whatwhere.experiments.grid import GridPlan, GridProgress


def part_of_grid(models: str | None, neurons: str | None, images: str | None, seeds: str | None) -> dict[str, Any]:
    """The keywords of `Experiment.grid` from the flags of their names, None where not given."""
    return {
        "models": None if models is None else [name.strip() for name in models.split(",")],
        "neurons": numbers("--neurons", neurons),
        "images": numbers("--images", images),
        "seeds": numbers("--seeds", seeds),
    }


def run(experiment: Experiment, out: Path, preset: str, **how: Any) -> pd.DataFrame:
    """The table of an experiment run with these keywords; Ctrl-C says what is kept and ends with exit code 130."""
    try:
        return experiment.run(out, preset, **how, observer=_observer(experiment.name))
    except KeyboardInterrupt:
        console.out.print(f"interrupted: what is done is kept in {out}; go on with --resume.", markup=False)
        raise typer.Exit(130) from None


def n_failed(table: pd.DataFrame) -> int:
    """How many points have no outcome."""
    return int((table["status"] != "done").sum())


def finish(table: pd.DataFrame, out: Path) -> None:
    """Says how many points there are; where some failed, so much, and ends with exit code 5."""
    failed = n_failed(table)
    console.out.print(f"{len(table) - failed} points in {out / runs.RESULTS_FILE}", markup=False)
    if failed:
        console.out.print(
            f"{failed} points failed; {runs.RESULTS_FILE} says why, and --resume tries them again.", markup=False
        )
        raise typer.Exit(5)


def numbers(flag: str, text: str | None) -> list[int] | None:
    """Whole numbers with commas between, and ranges.

    >>> numbers("--seeds", "0-2,7")
    [0, 1, 2, 7]
    """
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        ends = part.strip().split("-")
        if not all(end.isascii() and end.isdigit() for end in ends) or len(ends) > 2:
            raise OptionError(f"{flag} is {text!r}: expected whole numbers with commas between, or ranges, as 0-4,7.")
        numbers += range(int(ends[0]), int(ends[-1]) + 1)
    return numbers


def _observer(name: str) -> Callable[[GridPlan | GridProgress], None]:
    """Prints the plan, then a line for each point: on a terminal all, elsewhere few, but every failure."""
    last = [-math.inf]

    def observe(event: GridPlan | GridProgress) -> None:
        if isinstance(event, GridPlan):
            _show_plan(name, event)
            return
        late = time.monotonic() - last[0] >= console.SECONDS_BETWEEN_LINES
        ended = event.n_done + event.n_failed == event.n_points
        if not (console.out.is_terminal or late or ended or event.reason):
            return
        last[0] = time.monotonic()
        point = event.point
        neurons = f"{point.n_neurons:,} neuron" + ("" if point.n_neurons == 1 else "s")
        what = f"{point.model}, {neurons}, {point.n_images:,} images, seed {point.seed}"
        how = f"failed: {event.reason}" if event.fev is None else f"FEV {event.fev:.3f}"
        left = "" if ended else f", about {console.duration(event.seconds_left)} left"
        console.out.print(f"  {event.n_done} of {event.n_points}{left}: {what}: {how}", markup=False)

    return observe


def _show_plan(name: str, plan: GridPlan) -> None:
    done = f", {plan.n_done:,} of them done already" if plan.n_done else ""
    processes = "this process" if plan.n_workers == 1 else f"{plan.n_workers} processes"
    console.out.print(
        f"[bold]{name}[/]: {plan.n_points:,} points{done}, in {processes}: very roughly"
        f" {console.duration(plan.seconds)}."
    )
