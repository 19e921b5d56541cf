"""The verbs: arguments in, a library call, its result shown."""

import shlex
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer

from whatwhere import comparison, formats, runs
from whatwhere.catalogue import MODELS, USUAL, load_model, make_model
from whatwhere.checks import check_choice
from whatwhere.cli import console
from whatwhere.cli.arguments import (
    Board,
    Config,
    Device,
    Devices,
    Neurons,
    Nodes,
    Nonfinite,
    Out,
    Overwrite,
    Preset,
    RecordingPath,
    Resume,
    Seed,
    Set,
    Threads,
    check_launched,
    check_out,
    common_options,
    end,
    load_recording,
)
from whatwhere.cli.cell_types import types
from whatwhere.cli.data import Format, data
from whatwhere.cli.grids import numbers
from whatwhere.cli.insilico import insilico
from whatwhere.cli.options import gather, options_help, transfer_help
from whatwhere.cli.plan import plan
from whatwhere.cli.report import NoReport, end_with_report, report
from whatwhere.cli.reproduce import reproduce
from whatwhere.cli.search import search
from whatwhere.cli.shared import fit_shared, transfer
from whatwhere.cli.simulate import simulate
from whatwhere.comparison.plan import options_of
from whatwhere.comparison.subsets import ALL
from whatwhere.config import RunOptions
from whatwhere.errors import OptionError
from whatwhere.estimators import Estimator
from whatwhere.estimators.shared import KINDS
from whatwhere.export import check_onnx, export_onnx
from whatwhere.parallel import helps
from whatwhere.predicting import predict_file

app = typer.Typer(
    help="Fit models of large neural populations that separate what each neuron computes from where it looks.",
    epilog="Exit codes: 0 well, 2 wrong options, 3 unusable data, 4 a folder or file that cannot be used, 5 training"
    " failed, 130 Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.add_typer(data, name="data")


def show_version(wanted: bool) -> None:
    """Prints the version and ends."""
    if wanted:
        console.out.print(f"whatwhere {version_of('whatwhere')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True)] = False,
) -> None:
    """Fit models of large neural populations that separate what each neuron computes from where it looks."""


@app.command(epilog=options_help())
def fit(
    recording: RecordingPath,
    out: Out,
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "factorized",
    preset: Preset = None,
    config: Config = None,
    set_: Set = None,
    neurons: Neurons = None,
    seed: Seed = None,
    device: Device = None,
    threads: Threads = None,
    nonfinite: Nonfinite = None,
    devices: Devices = None,
    nodes: Nodes = None,
    tensorboard: Board = False,
    no_report: NoReport = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    format: Format = None,
) -> None:
    """Fit one model, score it on the held-out part, and keep it in a folder, with report.html to explore it."""
    check_choice("model", model, MODELS)
    flags = {"preset": preset, "neurons": neurons, "seed": seed, "device": device, "threads": threads}
    flags |= {"nonfinite": nonfinite, "devices": devices, "nodes": nodes}
    options, values = gather(config, set_ or [], flags)
    estimator = make_model(
        model, runs.own_values(model, [model], values), preset=options.preset, **common_options(options)
    )
    check_out(out, overwrite, resume, tensorboard)  # before the recording is read
    _join([estimator], options)
    loaded = load_recording(recording, format, options)
    told = set(loaded.notes)
    observer = console.observer(model, told)
    run = runs.fit_run(
        *(estimator, loaded, out),
        overwrite=overwrite,
        resume=resume,
        observer=observer,
        tensorboard=tensorboard,
        command=shlex.join(["whatwhere", *(word for word in sys.argv[1:] if word not in ("--resume", "--overwrite"))]),
    )
    _end_help()
    console.show_new_notes(run.model.notes_, told)
    console.show_scores(run.scores)
    if not no_report:
        end_with_report(out)
    end(out, run.model.stopped_)


@app.command(epilog=options_help())
def compare(
    recording: RecordingPath,
    out: Out,
    models: Annotated[str, typer.Option(help=f"Names with commas between, of {', '.join(MODELS)}.")] = ",".join(USUAL),
    preset: Preset = None,
    config: Config = None,
    set_: Set = None,
    neurons: Neurons = None,
    seed: Seed = None,
    seeds: Annotated[int, typer.Option(help="How many: networks are fitted with each, and their mean is judged.")] = 1,
    images: Annotated[
        str | None, typer.Option(help="A learning curve: numbers of images with commas between, or all.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    nonfinite: Nonfinite = None,
    devices: Devices = None,
    nodes: Nodes = None,
    tensorboard: Board = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    format: Format = None,
) -> None:
    """Fit several models under one split, judge all on the held-out part, and print their scores side by side.

    The first is set against the others; differences.csv has every pair. An option of one model alone goes under its
    name: --set fixed-mask.penalties.feature_l1=0.01. Several of one kind are told apart by words after @: --models
    factorized,factorized@deep --set factorized@deep.core.kernel_sizes=[9,5,5,5].

    --seeds 3 fits networks with seed, seed + 1 and seed + 2 under the split of the first, and judges the mean of their
    predictions too. --images 250,500,all fits every model to so many images (training and validation; each subset holds
    the smaller ones), and with three numbers or more says what twice the images would give.

    What is done is kept: go on, or ask for more models, seeds or images, with --resume.
    """
    names = [name.strip() for name in models.split(",")]
    flags = {"preset": preset, "neurons": neurons, "seed": seed, "device": device, "threads": threads}
    flags |= {"nonfinite": nonfinite, "devices": devices, "nodes": nodes}
    options, values = gather(config, set_ or [], flags)
    own = options_of(names, values, options.preset)  # says what is wrong before the recording is read
    estimators = [make_model(name, own[name], preset=options.preset, **common_options(options)) for name in names]
    of_images = _numbers_of_images(images)
    check_out(out, overwrite, resume, tensorboard)
    _join(estimators, options)
    loaded = load_recording(recording, format, options)
    told = set(loaded.notes)
    compared = comparison.compare(
        *(loaded, names, out),
        values=values,
        preset=options.preset,
        seeds=seeds,
        images=of_images,
        overwrite=overwrite,
        resume=resume,
        observe=lambda label: console.observer(label, told),
        tensorboard=tensorboard,
        **common_options(options),
    )
    _end_help()
    for label, notes in compared.notes.items():
        console.show_new_notes([f"{label}: {note}" for note in notes if note not in told], told)
    if not compared.interrupted:
        from whatwhere.report.comparison import draw_comparison  # drawing is loaded only where something is drawn

        console.show_comparison(compared)
        for figure in draw_comparison(compared, out):
            console.out.print(f"  {figure}", markup=False)
    end(out, "interrupted" if compared.interrupted else "")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its model.safetensors.")],
    recording: RecordingPath,
    out: Annotated[Path | None, typer.Option(help="Write metrics.json and scores.csv into this folder too.")] = None,
    format: Format = None,
    nonfinite: Nonfinite = None,
    overwrite: Overwrite = False,
) -> None:
    """Score a fitted model on the held-out part of a recording that holds the neurons that it was fitted to."""
    model = load_model(run)
    if out is not None:
        runs.check_scores_folder(out, run, overwrite=overwrite)
    scores = model.evaluate(formats.load(recording, format, nonfinite=nonfinite or RunOptions().nonfinite))
    console.show_scores(scores)
    if out is not None:
        runs.write_scores(model, scores, out)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its model.safetensors.")],
    images: Annotated[
        Path, typer.Argument(help="A .npy of images (n_images, n_channels, height, width); with --of, a recording.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="Responses (n_images, n_neurons): .npy; .npz, .h5 or .csv name the neurons."),
    ],
    of: Annotated[str | None, typer.Option(help="Of a recording: its test or its training images.")] = None,
    format: Format = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict the responses of a fitted model's neurons to new images."""
    written = predict_file(load_model(run), images, out, of=of, format=format, overwrite=overwrite)
    console.out.print(f"{written[0]:,} images, {written[1]:,} neurons: {out}", markup=False)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its model.safetensors.")],
    out: Annotated[Path, typer.Option("--out", help="The .onnx to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a fitted model as an ONNX file, which predicts without whatwhere, in other languages too."""
    check_onnx()  # before the model is read
    console.show_exported(export_onnx(load_model(run), out, overwrite=overwrite))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for metrics and figures.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the population, its noise and the fit.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Simulate two cell types, fit them, and say how much was explained and how far off the locations are."""
    from whatwhere.report.demo import draw_demo  # drawing is loaded only where something is drawn

    runs.open_folder(out, overwrite=overwrite)
    result, figures = draw_demo(out, seed=seed, observer=console.observer("factorized"))
    console.out.print(result.story(), markup=False)
    for figure in figures:
        console.out.print(f"  {figure}", markup=False)
    end_with_report(out)
    if result.model.stopped_ == "interrupted":
        console.out.print("interrupted: these are the numbers of the best model so far.")
        raise typer.Exit(130)


app.command("fit-shared", epilog=options_help(KINDS))(fit_shared)
app.command(epilog=transfer_help())(transfer)
app.command()(types)
app.command()(report)
app.command()(search)
app.command()(simulate)
app.command()(reproduce)
app.command()(plan)
app.command()(insilico)


def _numbers_of_images(text: str | None) -> list[int | str]:
    """Numbers of images, and `all`."""
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    some = ",".join(part for part in parts if part != ALL)
    return [*(numbers("--images", some) or [] if some else []), *(part for part in parts if part == ALL)]


def _join(models: list[Estimator], options: RunOptions) -> None:
    """Starts the processes that a fit is shared by, where there are several; those that only help say nothing."""
    wanted = options.devices * options.nodes
    check_launched(options)
    if wanted > max(model.join().size for model in models):
        names = ", ".join(model.name for model in models)
        raise OptionError(
            f"devices={options.devices} on nodes={options.nodes} are for networks, and {names} is none: ask for one."
        )
    if helps():
        console.hush()


def _end_help() -> None:
    """Ends a process that only helped, well whatever the first one has to say."""
    if helps():
        raise typer.Exit
