"""`whatwhere fit-shared` and `transfer`: several recordings with one core, and that core for another recording."""

from pathlib import Path
from typing import Annotated

import typer

from whatwhere import runs, shared_runs
from whatwhere.catalogue import make_shared
from whatwhere.checks import check_choice
from whatwhere.cli import console
from whatwhere.cli.arguments import (
    Board,
    Config,
    Device,
    Neurons,
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
from whatwhere.cli.data import Format
from whatwhere.cli.options import gather
from whatwhere.config import RunOptions
from whatwhere.errors import OptionError
from whatwhere.estimators import transferred
from whatwhere.estimators.given_core import CORES
from whatwhere.estimators.shared import KINDS


def fit_shared(
    recordings: Annotated[
        list[str], typer.Argument(help="Recordings, as for fit: PATH, or NAME=PATH where files have the same name.")
    ],
    out: Out,
    model: Annotated[str, typer.Option(help=f"One of {', '.join(KINDS)}.")] = "factorized",
    preset: Preset = None,
    config: Config = None,
    set_: Set = None,
    neurons: Neurons = None,
    seed: Seed = None,
    device: Device = None,
    threads: Threads = None,
    nonfinite: Nonfinite = None,
    tensorboard: Board = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    format: Format = None,
) -> None:
    """Fit several recordings at once: a core that all share, a readout for each, and a run for each in OUT/NAME.

    Their images must have one size and as many channels; neurons, images and repeats may differ. OUT/metrics.json and
    OUT/scores.csv are over the neurons of all; evaluate, predict and export take OUT/NAME.
    """
    check_choice("model", model, KINDS)
    flags = {"preset": preset, "neurons": neurons, "seed": seed, "device": device}
    flags |= {"threads": threads, "nonfinite": nonfinite}
    options, values = gather(config, set_ or [], flags)
    _check_alone(options)
    own = runs.own_values(model, [model], values)
    estimator = make_shared(model, own, preset=options.preset, **common_options(options, without=("devices", "nodes")))
    paths = _named(recordings)
    check_out(out, overwrite, resume, tensorboard)
    loaded = {name: load_recording(path, format, options) for name, path in paths.items()}
    told = {f"{name}: {note}" for name, recording in loaded.items() for note in recording.notes}
    observer = console.observer(model, told)
    run = shared_runs.fit_shared_run(
        estimator, loaded, out, overwrite=overwrite, resume=resume, observer=observer, tensorboard=tensorboard
    )
    console.show_new_notes(run.model.notes_, told)
    for name in run.model:
        console.out.print(f"{name}:", markup=False)
        console.show_scores(run.scores.get(name))
    if len(run.scores) > 1:
        console.out.print("all neurons:")
        console.show_scores(run.pooled)
    end(out, run.model.stopped_)


def transfer(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or of fit-shared, whose core is taken.")],
    recording: RecordingPath,
    out: Out,
    core: Annotated[str, typer.Option(help="frozen: it stays as it is; trained: training goes on from it.")] = "frozen",
    config: Config = None,
    set_: Set = None,
    neurons: Neurons = None,
    seed: Seed = None,
    device: Device = None,
    threads: Threads = None,
    nonfinite: Nonfinite = None,
    tensorboard: Board = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    format: Format = None,
) -> None:
    """Fit a new recording with the core of a fitted model: its neurons' readout is learned, the core is given.

    Options are those of the fitted model, but for those given here.
    """
    check_choice("core", core, CORES)
    flags = {"neurons": neurons, "seed": seed, "device": device, "threads": threads, "nonfinite": nonfinite}
    options, values = gather(config, set_ or [], flags)
    _check_alone(options)
    if options.preset != RunOptions().preset:
        raise OptionError(f"preset (={options.preset!r}) has nothing to act on: options are those of {run}.")
    source = shared_runs.model_with_core(run)
    own = runs.own_values(source.name, [source.name], values)
    estimator = transferred(source, core, own, seed=options.seed)
    estimator.set_params(device=options.device, threads=options.threads, nonfinite=options.nonfinite)
    check_out(out, overwrite, resume, tensorboard)
    loaded = load_recording(recording, format, options)
    told = set(loaded.notes)
    observer = console.observer(estimator.name, told)
    found = runs.fit_run(
        estimator, loaded, out, overwrite=overwrite, resume=resume, observer=observer, tensorboard=tensorboard
    )
    console.show_new_notes(found.model.notes_, told)
    console.show_scores(found.scores)
    end(out, found.model.stopped_)


def _check_alone(options: RunOptions) -> None:
    """Raises `OptionError` where several processes are asked for, or run already."""
    check_launched(options)
    if options.devices * options.nodes > 1:
        raise OptionError(
            f"devices={options.devices} on nodes={options.nodes} are for a fit of one recording with a core of its own:"
            " leave them at 1."
        )


def _named(texts: list[str]) -> dict[str, Path]:
    """The recordings by name: that of the file unless another is given."""
    paths: dict[str, Path] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        path = Path(rest) if equals and not Path(text).exists() else Path(text)
        name = name if path != Path(text) else path.stem
        if name in paths:
            raise OptionError(f"two recordings are named {name!r}: give them names, NAME=PATH.")
        paths[name] = path
    return paths
