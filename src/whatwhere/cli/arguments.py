"""What several verbs have in common: their arguments, and how a run begins and ends."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from whatwhere import formats, runs
from whatwhere.catalogue import COMMON
from whatwhere.cli import console
from whatwhere.config import RunOptions
from whatwhere.errors import OptionError
from whatwhere.presets import PRESETS
from whatwhere.recording import Recording
from whatwhere.tracking import check_tensorboard

RecordingPath = Annotated[
    Path, typer.Argument(help="HDF5, npz or NWB file, Antolik region's folder, or file tree of one .npy per trial.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder for the run; made if missing.")]
Preset = Annotated[str | None, typer.Option(help=f"Default options: one of {', '.join(PRESETS)} (default recording).")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML file of options; flags and --set go over it.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One option, e.g. training.max_steps=500; repeatable."),
]
Neurons = Annotated[int | None, typer.Option(help="Fit this many neurons, drawn at random with the seed.")]
Seed = Annotated[int | None, typer.Option(help="Of neurons, split, kernels, masks and batches (default 0).")]
Device = Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:1, ...")]
Threads = Annotated[int | None, typer.Option(help="Threads of the CPU.")]
Devices = Annotated[
    int | None, typer.Option(help="Networks only: GPUs, or processes of the CPU, that share one fit (default 1).")
]
Nodes = Annotated[
    int | None, typer.Option(help="Machines that share it (default 1); start the command with torchrun or srun.")
]
Nonfinite = Annotated[str | None, typer.Option(help="NaN in the data: error (default), or leave out rows or neurons.")]
Board = Annotated[
    bool, typer.Option("--tensorboard", help="Write the course of the fit for TensorBoard, too, into tensorboard/.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that the folder holds.")]


def check_out(folder: Path, overwrite: bool, resume: bool, tensorboard: bool) -> None:
    """Says what is wrong with a run's folder before a recording is read."""
    if tensorboard:
        check_tensorboard()
    runs.check_folder(folder, overwrite=overwrite, resume=resume)
    if resume and not runs.is_run(folder):
        console.show_notes([f"{folder} holds no run to resume: this one begins anew"])


def common_options(options: RunOptions, *, without: Collection[str] = ()) -> dict[str, Any]:
    """What is asked of every model alike, as `make_model` takes it, but for some."""
    return {name: getattr(options, name) for name in COMMON.difference(without)}


def check_launched(options: RunOptions) -> None:
    """Raises `OptionError` where torchrun started several processes and one is asked for."""
    wanted = options.devices * options.nodes
    if wanted == 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        raise OptionError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, each of which would fit by itself: say --devices"
            " (and --nodes), or start without torchrun."
        )


def check_recording_options(recording: Path | None, format: str | None, nonfinite: str | None) -> None:
    """Raises `OptionError` for options of how a recording is read where none is given."""
    for name, value in (("format", format), ("nonfinite", nonfinite)):
        if recording is None and value is not None:
            raise OptionError(f"{name} (={value!r}) is of a recording, and none is given: add --recording.")


def load_recording(path: Path, format: str | None, options: RunOptions) -> Recording:
    """A recording, or some of its neurons; its notes are shown."""
    recording = formats.load(path, format, nonfinite=options.nonfinite)
    console.show_notes(recording.notes)
    return recording if options.neurons is None else recording.select_neurons(options.neurons, seed=options.seed)


def end(folder: Path, stopped: str) -> None:
    """Says where a run is, and that it was interrupted."""
    console.out.print(f"written to {folder}", markup=False)
    if stopped == "interrupted":
        console.out.print("interrupted: the best model so far is kept; go on with --resume.", markup=False)
        raise typer.Exit(130)
