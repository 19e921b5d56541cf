"""`whatwhere reproduce`: a figure of the paper, measured again."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from whatwhere.checks import check_choice
from whatwhere.cli import console
from whatwhere.cli.options import parse_assignments
from whatwhere.errors import OptionError
from whatwhere.experiments.catalogue import EXPERIMENTS
from whatwhere.experiments.grid import GridPlan, GridProgress, check_folder

_SECONDS_BETWEEN_LINES = 20.0


def reproduce(
    experiment: Annotated[str, typer.Argument(help=f"One of {', '.join(EXPERIMENTS)}.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for table, figures and page; made if missing.")],
    preset: Annotated[str, typer.Option(help="quick: minutes on two cores; paper: the whole grid.")] = "quick",
    models: Annotated[str | None, typer.Option(help="Names with commas between; all if not given.")] = None,
    neurons: Annotated[
        str | None, typer.Option(help="Numbers of neurons with commas between (fig4: of each type).")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Numbers of images, training and validation, with commas between.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds with commas between; 0-4 stands for 0,1,2,3,4.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One option of the experiment, e.g. image_size=[36,64]; repeatable."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one a core if not given, 1: none but this.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Do what the folder lacks, and what failed.")] = False,
) -> None:
    """Measure a figure of the paper again: a table, the figure, and a page that sets the paper's numbers beside.

    fig1: what sharing one model is worth. fig3: FEV by model, neurons and images. fig4: cell types found. Every point
    is kept as it is done, so Ctrl-C loses only those under way; go on with --resume.
    """
    chosen = EXPERIMENTS[check_choice("experiment", experiment, EXPERIMENTS)]
    part: dict[str, Any] = {
        "models": None if models is None else [name.strip() for name in models.split(",")],
        "neurons": _numbers("--neurons", neurons),
        "images": _numbers("--images", images),
        "seeds": _numbers("--seeds", seeds),
    }
    chosen.grid(preset, **part)  # says what is wrong before anything is done
    options = chosen.options(preset, parse_assignments(set_ or []))
    check_folder(out, resume=resume, overwrite=overwrite)
    try:
        table = chosen.run(
            out,
            preset,
            **part,
            options=options,
            workers=workers,
            resume=resume,
            overwrite=overwrite,
            observer=_observer(experiment),
        )
    except KeyboardInterrupt:
        console.out.print(f"interrupted: what is done is kept in {out}; go on with --resume.", markup=False)
        raise typer.Exit(130) from None
    failed = int((table["status"] != "done").sum())
    if failed < len(table):
        from whatwhere.report.reproduction import write_report  # drawing is loaded only where something is drawn

        for file in write_report(out):
            console.out.print(f"  {file}", markup=False)
    console.out.print(f"{len(table) - failed} points in {out / 'results.csv'}", markup=False)
    if failed:
        console.out.print(f"{failed} points failed; results.csv says why, and --resume tries them again.", markup=False)
        raise typer.Exit(5)


def _numbers(flag: str, text: str | None) -> list[int] | None:
    """Whole numbers with commas between, and ranges.

    >>> _numbers("--seeds", "0-2,7")
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
        late = time.monotonic() - last[0] >= _SECONDS_BETWEEN_LINES
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
