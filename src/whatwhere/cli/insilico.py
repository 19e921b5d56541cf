"""`whatwhere insilico`: experiments on a fitted model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from whatwhere import formats
from whatwhere.catalogue import load_model
from whatwhere.cli import console
from whatwhere.cli.arguments import Nonfinite, check_recording_options
from whatwhere.cli.data import Format
from whatwhere.config import RunOptions
from whatwhere.errors import OptionError
from whatwhere.insilico import GratingOptions, MostExcitingOptions, SizeOptions
from whatwhere.insilico.studies import StudyOptions, check_out, study, write_study


def insilico(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its model.safetensors.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for tables and figures; if not given, the run's.")
    ] = None,
    recording: Annotated[
        Path | None,
        typer.Option(
            help="The recording fitted: its images say what grey and contrast are. Else what the model knows."
        ),
    ] = None,
    fields: Annotated[bool, typer.Option(help="Linearised receptive fields, as sprites.")] = True,
    gratings: Annotated[bool, typer.Option(help="Tuning for orientation, frequency and phase.")] = True,
    sizes: Annotated[bool, typer.Option("--sizes", help="Tuning for size, of the gratings preferred.")] = False,
    mei: Annotated[bool, typer.Option("--mei", help="Most exciting images: minutes for hundreds of neurons.")] = False,
    neurons: Annotated[int | None, typer.Option(help="This many neurons, drawn at random with the seed.")] = None,
    pixel_range: Annotated[
        tuple[float, float] | None,
        typer.Option("--pixel-range", metavar="LOW HIGH", help="Limits of most exciting images' pixels."),
    ] = None,
    smoothness: Annotated[
        float | None, typer.Option(help="Of most exciting images: a Gaussian's width, pixels (default 1).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the neurons drawn, and of the starts of most exciting images (0).")
    ] = None,
    memory: Annotated[float, typer.Option(help="GiB that images and feature maps may take at once.")] = 1.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what the folder holds, experiments not asked for again, too.")
    ] = False,
    format: Format = None,
    nonfinite: Nonfinite = None,
) -> None:
    """Ask a fitted model what each neuron prefers: linear fields, orientation, frequency, phase, size, best image.

    Writes tuning.csv (one row a neuron; degrees, where 0 is stripes that lie horizontally, cycles per pixel, pixels),
    fields.npz, curves.npz, most_exciting.npz and figures. In the run's folder `whatwhere report` finds them.
    """
    own = {"smoothness": smoothness, "pixel_range": pixel_range}
    given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    if given and not mei:
        raise OptionError(f"{' and '.join(given)}: of most exciting images, which are not asked for: add --mei.")
    if seed is not None and neurons is None and not mei:
        raise OptionError("--seed has nothing to act on without --neurons or --mei: leave it out.")
    check_recording_options(recording, format, nonfinite)
    seed = seed or 0
    exciting = MostExcitingOptions(**given, seed=seed)
    options = StudyOptions(
        fields=fields,
        gratings=GratingOptions() if gratings else None,
        sizes=SizeOptions() if sizes else None,
        most_exciting=exciting if mei else None,
        n_neurons=neurons,
        seed=seed,
        memory_gib=memory,
    )
    out = out or (run if run.is_dir() else run.parent)
    check_out(out, overwrite=overwrite)
    model = load_model(run)
    images = None
    if recording is not None:
        loaded = formats.load(recording, format, nonfinite=nonfinite or RunOptions().nonfinite)
        images = loaded.images
        console.show_notes(filter(None, [model.doubt(loaded)]))
    found = study(model, options, images=images, told=lambda text: console.out.print(text, markup=False))

    from whatwhere.report.insilico import draw_study  # drawing is loaded only where something is drawn

    for file in [*write_study(found, out, overwrite=overwrite), *draw_study(found, out)]:
        console.out.print(f"  {file}", markup=False)
