"""`whatwhere plan`: how many neurons and images an experiment needs, before it is made."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.table import Column, Table

from whatwhere.cli import console
from whatwhere.cli.grids import finish, n_failed, part_of_grid, run
from whatwhere.cli.populations import options_by_concern, read_size, stimuli_name
from whatwhere.experiments.grid import check_folder
from whatwhere.experiments.images_needed import Goal, answer, find_needs, write_needs
from whatwhere.experiments.planning import MODELS, PLAN, PLANNED, check
from whatwhere.simulation import NOISES, POSITIONS, STIMULI


def plan(
    kind: Annotated[str, typer.Argument(help=f"Kind of neurons: {', '.join(PLANNED)}.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, figure and page; made if missing.")],
    target: Annotated[float, typer.Option(help="FEV that the recording is to reach, between 0 and 1.")] = 0.8,
    mean_rate: Annotated[
        float, typer.Option("--mean-rate", "--rate", help="Mean |rate| of every neuron under the stimuli, an image.")
    ] = 0.1,
    noise: Annotated[str, typer.Option(help=f"One of {', '.join(NOISES)}.")] = "paper",
    stimuli: Annotated[str | None, typer.Option(help=f"One of {', '.join(STIMULI)}; white-noise if not given.")] = None,
    photographs: Annotated[
        Path | None, typer.Option(help="Folder of photographs, of which the images are crops.")
    ] = None,
    types: Annotated[int | None, typer.Option(help="Cell types; the kind's own number if not given.")] = None,
    nonlinearity: Annotated[
        str | None, typer.Option(help="identity or relu; relu if not given and the noise needs counts.")
    ] = None,
    positions: Annotated[str, typer.Option(help=f"One of {', '.join(POSITIONS)}.")] = "random",
    image_size: Annotated[
        str | None, typer.Option("--image-size", metavar="HxW", help="Height and width, pixels; the preset's own.")
    ] = None,
    channels: Annotated[int, typer.Option(help="Colour channels.")] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As for simulate, e.g. population.variation=0; repeatable."),
    ] = None,
    seconds_per_image: Annotated[
        float, typer.Option("--seconds-per-image", help="From one image's onset to the next one's.")
    ] = 1.0,
    minutes_per_neuron: Annotated[
        float, typer.Option("--minutes-per-neuron", help="What a neuron more costs; 0: they come together.")
    ] = 0.0,
    preset: Annotated[str, typer.Option(help="quick: minutes on two cores; thorough: the paper's size.")] = "quick",
    models: Annotated[str | None, typer.Option(help=f"Of {', '.join(MODELS)}, with commas between.")] = None,
    neurons: Annotated[str | None, typer.Option(help="Numbers of neurons with commas between.")] = None,
    images: Annotated[
        str | None, typer.Option(help="Numbers of images, training and validation, with commas between.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds with commas between; 0-4 stands for 0,1,2,3,4.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one a core if not given, 1: none but this.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Do what the folder lacks, and what failed.")] = False,
) -> None:
    """Plan an experiment: FEV by number of neurons and images, and the cheapest recording that reaches a target.

    Populations as those of `simulate` are recorded and fitted with the factorised and with the posterior readout.
    Complex cells, alone or in a mixture, need ten times as many images: give --images, and for an answer soon --types.
    Ctrl-C loses only the points under way; go on with --resume, which also takes more points, or another target or
    price, for which nothing is fitted again.
    """
    goal = Goal(target, seconds_per_image, minutes_per_neuron)
    part = part_of_grid(models, neurons, images, seeds)
    grid = PLAN.grid(preset, **part)  # says what is wrong before anything is done
    further = options_by_concern(set_ or [])
    options = replace(
        PLAN.presets[preset].options,
        kind=kind,
        n_types=types,
        nonlinearity=nonlinearity,
        positions=positions,
        stimuli=stimuli_name(stimuli, photographs, further["stimuli"]),
        noise=noise,
        mean_rate=mean_rate,
        n_channels=channels,
        further={name: of_concern for name, of_concern in further.items() if of_concern},
        **({} if image_size is None else {"image_size": read_size(image_size)}),
    )
    check(options, grid)
    check_folder(out, resume=resume, overwrite=overwrite)
    table = run(PLAN, out, preset, **part, options=options, workers=workers, resume=resume, overwrite=overwrite)
    if n_failed(table) < len(table):
        _answer(out, table, goal)
    finish(table, out)


def _answer(out: Path, results: pd.DataFrame, goal: Goal) -> None:
    """Writes plan, figure and page, and prints what each population needs and what to record."""
    from whatwhere.report.plan import draw_plan  # drawing is loaded only where something is drawn

    needs = find_needs(results, goal)
    files = [write_needs(needs, out), *draw_plan(out, goal)]
    table = Table(Column("readout", no_wrap=True), "neurons", "images needed", "range over seeds", "minutes", box=None)
    for need in needs:
        table.add_row(need.model, f"{need.n_neurons:,}", *need.cells())
    console.out.print(table, markup=False)
    for line in (*answer(needs, goal), *(f"  {file}" for file in files)):
        console.out.print(line, markup=False)
