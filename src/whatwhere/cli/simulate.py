"""`whatwhere simulate`: a recording whose truth is known, written to a file."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from whatwhere.cli import console
from whatwhere.cli.populations import options_by_concern, read_size, stimuli_name
from whatwhere.simulation import (
    NOISES,
    POPULATIONS,
    POSITIONS,
    STIMULI,
    SimulationPlan,
    SimulationProgress,
    has_mean_rate,
    make_noise,
    make_population,
    make_positions,
    make_stimulus,
    nonlinearity_for,
    simulate_to_file,
)


def simulate(
    kind: Annotated[str, typer.Argument(help=f"Kind of neurons: {', '.join(POPULATIONS)}.")],
    out: Annotated[Path, typer.Option("--out", help="File to write: .h5.")],
    neurons: Annotated[int, typer.Option(help="Number of neurons.")] = 1000,
    images: Annotated[int, typer.Option(help="Number of training images, each shown once.")] = 4096,
    test_images: Annotated[int, typer.Option("--test-images", help="Number of test images.")] = 200,
    repeats: Annotated[
        int, typer.Option(help="How often each test image is shown; 0: its responses are the noise-free rates.")
    ] = 10,
    stimuli: Annotated[str | None, typer.Option(help=f"One of {', '.join(STIMULI)}; white-noise if not given.")] = None,
    photographs: Annotated[
        Path | None, typer.Option(help="Folder of photographs, of which the images are crops.")
    ] = None,
    noise: Annotated[str, typer.Option(help=f"One of {', '.join(NOISES)}.")] = "paper",
    image_size: Annotated[
        str | None,
        typer.Option("--image-size", metavar="HxW", help="Height and width, pixels; 48x48, or 44x44 for vgg."),
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Colour channels; 1, or 3 for vgg.")] = None,
    types: Annotated[
        int | None, typer.Option(help="Cell types: sizes, orientations or feature maps; the kind's own number.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Of vgg: seeded (a stand-in, no download), hub (550 MB, once) or a file.")
    ] = None,
    positions: Annotated[str, typer.Option(help=f"One of {', '.join(POSITIONS)}.")] = "random",
    nonlinearity: Annotated[
        str | None, typer.Option(help="identity or relu; relu if not given and the noise needs counts.")
    ] = None,
    mean_rate: Annotated[
        float, typer.Option("--mean-rate", help="Mean |rate| of every neuron under the stimuli.")
    ] = 0.1,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One option, e.g. stimuli.block_size=3, noise.variance=0.1, positions.scatter=4,"
            " population.variation=0; repeatable.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of neurons, images and noise.")] = 0,
    compress: Annotated[bool, typer.Option("--compress", help="Smaller and slower.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Simulate a recording whose truth is known, and write it, with the truth beside, like any other recording.

    dog: on-centre, off-surround (the paper's, of two sizes). gabor: simple cells. complex: energy model. mixture: a
    third of each. vgg: units of VGG-19, whose feature maps are the types (the paper's nonlinear population).
    """
    options = options_by_concern(set_ or [])
    shown = stimuli_name(stimuli, photographs, options["stimuli"])
    noise_model = make_noise(noise, **options["noise"])
    given: dict[str, Any] = (
        {"nonlinearity": nonlinearity} if nonlinearity is not None else nonlinearity_for(kind, noise_model)
    )
    of_population = {
        "n_types": types,
        "positions": make_positions(positions, **options["positions"]),
        "seed": seed,
    }
    flags = {
        "image_size": read_size(image_size) if image_size is not None else None,
        "n_channels": channels,
        "weights": weights,
        "mean_rate": mean_rate if has_mean_rate(kind) else None,
    }
    given |= {name: value for name, value in flags.items() if value is not None}
    population = make_population(kind, neurons, **{**of_population, **given, **options["population"]})
    own_rate = shown == "white-noise" and has_mean_rate(kind)  # the kernels' norms set it
    with _observer(compress) as observer:
        simulate_to_file(
            out,
            population,
            images,
            n_test_images=test_images,
            n_repeats=repeats,
            stimuli=make_stimulus(shown, **options["stimuli"]),
            noise=noise_model,
            mean_rate=None if own_rate else mean_rate,
            seed=seed,
            compress=compress,
            overwrite=overwrite,
            observer=observer,
        )
    console.out.print(f"{images:,} images, {neurons:,} neurons: {out}", markup=False)


@contextmanager
def _observer(compress: bool) -> Iterator[Any]:
    """Prints the plan, then how far it is: a bar on a terminal, few and lasting lines elsewhere."""
    columns = (
        TextColumn("  {task.completed:,.0f} of {task.total:,.0f} images"),
        BarColumn(),
        TextColumn("{task.fields[left]}"),
    )
    bar = Progress(*columns, console=console.out)
    task = bar.add_task("", total=None, left="")
    in_place = console.out.is_terminal
    last = [-math.inf]

    def observe(event: SimulationPlan | SimulationProgress) -> None:
        if isinstance(event, SimulationPlan):
            _show_plan(event, compress)
            bar.update(task, total=event.n_images + event.n_test_images)
            if in_place:
                bar.start()
            return
        left = f"{console.duration(event.seconds_left)} left"
        bar.update(task, completed=event.n_done, left=left)
        if not in_place and time.monotonic() - last[0] > console.SECONDS_BETWEEN_LINES:
            last[0] = time.monotonic()
            console.out.print(f"  {event.n_done:,} of {event.n_images:,} images, {left}")
        console.show_notes(event.notes)

    try:
        yield observe
    finally:
        if in_place:
            bar.stop()


def _show_plan(plan: SimulationPlan, compress: bool) -> None:
    shape = " x ".join(map(str, plan.image_shape))
    console.out.print(
        f"{plan.n_neurons:,} neurons, {plan.n_images:,} images of {shape} pixels, {plan.n_test_images:,} test images"
        f" shown {plan.n_repeats:,} times: {console.size(plan.n_bytes)} on disk{' at most' if compress else ''}, about"
        f" {console.size(plan.memory)} of memory, {console.duration(plan.seconds)}."
    )
