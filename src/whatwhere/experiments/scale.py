"""What a population of thousands of neurons and tens of thousands of images takes: time of an epoch, and memory.

Units of VGG-19 as in Figure 5, of all feature maps of a layer, from a file of which memory holds a part.
"""

import copy
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from whatwhere.config import WHOLE_EVERY, Count, ModelOptions, Positive
from whatwhere.errors import OptionError
from whatwhere.estimators import FactorizedCNN
from whatwhere.estimators.base import shapes_of
from whatwhere.estimators.preparation import Prepared, choose_device, prepare
from whatwhere.estimators.resume import cpu_threads
from whatwhere.experiments import fig5
from whatwhere.experiments.experiment import Experiment, Grid, Preset
from whatwhere.experiments.fig3 import scored, test_images
from whatwhere.experiments.points import Outcome, Point
from whatwhere.formats import load
from whatwhere.model import Model, initialize
from whatwhere.process_memory import forget_peak, peak_memory
from whatwhere.recording import Recording
from whatwhere.simulation import simulate_to_file
from whatwhere.training import Trainer

GIB = 2**30


@dataclass(frozen=True)
class ScaleOptions:
    """What is measured, and of what; `weights`, `photographs`, `image_size` and `n_test_images`: see `Fig5Options`.

    - `n_types`: feature maps that the neurons are units of, and maps of the model's last layer; `n_maps` of its first
    - `recording`: an HDF5 file with the point's recording, made there if it is missing; None: in a temporary folder
    - `memory_gib` that training images may take
    - `n_steps` that are timed of whole masks, and of sparse ones, whose `support` is the side of the square of pixels
      that each holds
    - `whole`: afterwards a whole fit, of at most `max_steps`, whose FEV and seconds are the point's; else the FEV is
      that after `n_steps`
    - `device`: "auto", "cpu" or "cuda"
    - `threads` of the CPU; None: one for each core, although points of a grid have one thread otherwise
    """

    weights: str = "hub"
    photographs: str | None = None
    image_size: tuple[Count, Count] = (44, 44)
    n_test_images: Count = 1000
    n_types: Count = 128
    n_maps: tuple[Count, Count] = (32, 64)
    recording: str | None = None
    memory_gib: Positive = 0.5
    n_steps: Count = 10
    support: Count = 5
    whole: bool = False
    max_steps: Count = 20_000
    device: str = "auto"
    threads: Count | None = None

    def figure5(self) -> fig5.Fig5Options:
        """As a point of Figure 5."""
        return fig5.Fig5Options(
            weights=self.weights,
            photographs=self.photographs,
            image_size=self.image_size,
            n_test_images=self.n_test_images,
            n_types=self.n_types,
            n_maps=self.n_maps,
            search=False,
            max_steps=self.max_steps,
        )


def check(options: ScaleOptions) -> None:
    """Raises where weights, photographs or device cannot be had, or steps are no whole rounds of `whole_every`."""
    if options.n_steps % WHOLE_EVERY:
        raise OptionError(
            f"n_steps is {options.n_steps}: expected a multiple of {WHOLE_EVERY}, for of so many steps of sparse masks"
            " one is of whole masks."
        )
    fig5.check(options.figure5())
    choose_device(options.device)


def solve(options: ScaleOptions, point: Point) -> Outcome:
    """Times steps of whole and of sparse masks on a recording that stays on disk, and says what memory it took.

    Measured: `seconds_per_epoch`, by steps of whole masks, and `seconds_per_epoch_sparse`, of a fit's mixture of steps
    once masks are sparse, both of the whole recording if all steps are like the `steps_timed`; `start_seconds`, before
    the first step; `threads`; `simulation_seconds`, 0 where the recording was there; `file_gib`; `peak_gib`, of this
    process, a GPU's own memory not counted; of a whole fit its `steps`.
    """
    forget_peak()
    threads = options.threads or os.cpu_count() or 1
    with cpu_threads(threads), recorded(options, point) as (path, simulation_seconds):
        recording = load(path)
        chosen = network(options, point)
        measured = {
            "n_types": options.n_types,
            "simulation_seconds": simulation_seconds,
            "file_gib": path.stat().st_size / GIB,
            "steps_timed": options.n_steps,
            "threads": threads,
        }
        start = time.perf_counter()
        predicted, timed = measure(options, chosen, recording, point.seed)
        if options.whole:
            fit = FactorizedCNN("nonlinear", **vars(chosen), seed=point.seed, device=options.device)
            start = time.perf_counter()
            predicted = fit.fit(recording).predict(test_images(recording))
            measured["steps"] = int(fit.candidates_["steps"].sum())
        seconds = time.perf_counter() - start
        n_validation = len(recording.split(chosen.training.validation_fraction, point.seed)[1])
        measured = {**measured, **timed, "peak_gib": peak_memory() / GIB}
        return scored(predicted, recording, seconds, n_validation=n_validation, measured=measured)


@contextmanager
def recorded(options: ScaleOptions, point: Point) -> Iterator[tuple[Path, float]]:
    """The file of the point's recording, and the seconds that it took to make; a temporary one is gone afterwards."""
    with ExitStack() as stack:
        if options.recording is None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "recording.h5"
        else:
            path = Path(options.recording)
        start = time.perf_counter()
        made = not path.exists()
        if made:
            simulate_to_file(path, **fig5.session(options.figure5(), point))
        yield path, (time.perf_counter() - start) * made


def network(options: ScaleOptions, point: Point) -> ModelOptions:
    """The factorised model of Figure 5, its images read as they are needed."""
    chosen = fig5.network(options.figure5(), point)
    return replace(chosen, training=replace(chosen.training, memory_gib=options.memory_gib))


def measure(
    options: ScaleOptions, chosen: ModelOptions, recording: Recording, seed: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Predictions of the test images by a model after a few steps of whole masks, and the times measured."""
    start = time.perf_counter()
    rows = recording.split(chosen.training.validation_fraction, seed)
    prepared = prepare(recording, chosen, *rows, choose_device(options.device), recording.fingerprint())
    model = Model("factorized", chosen, shapes_of(recording)).to(prepared.data.images.device)
    initialize(model, prepared.data.images, prepared.data.responses, seed)
    timed = {"start_seconds": time.perf_counter() - start}
    thin = thinned(model, options.support)
    timed["seconds_per_epoch_sparse"] = seconds_per_epoch(thin, prepared, options.n_steps, seed)
    whole = replace(chosen, training=replace(chosen.training, whole_every=1))
    model.options = whole
    timed["seconds_per_epoch"] = seconds_per_epoch(model, prepared, options.n_steps, seed)
    model.eval()
    with torch.no_grad():
        shown = torch.from_numpy(prepared.standardisation.apply(test_images(recording)))
        parts = [model(some.to(model.bias.device)).cpu() for some in shown.split(chosen.training.batch_size)]
    return torch.cat(parts).numpy() * prepared.response_scale, timed


@torch.no_grad()
def thinned(model: Model, side: int) -> Model:
    """A copy whose masks hold a square of pixels around their peak, about as sparse as those of a fit in the end."""
    thin = copy.deepcopy(model)
    masks = thin.readout.get_parameter("mask")
    size, side = masks.shape[1:], min(side, *masks.shape[1:])
    magnitudes, peaks = masks.flatten(1).abs().max(1)
    inside = []
    for axis, at in enumerate((peaks // size[1], peaks % size[1])):
        first = (at - side // 2).clamp(0, size[axis] - side)[:, None]
        pixels = torch.arange(size[axis], device=masks.device)
        inside.append((pixels >= first) & (pixels < first + side))  # (n_neurons, height or width)
    masks.copy_((inside[0][:, :, None] & inside[1][:, None, :]) * magnitudes[:, None, None] / side**2)
    return thin


def seconds_per_epoch(model: Model, prepared: Prepared, n_steps: int, seed: int) -> float:
    """By `n_steps` after a first round of them, which reads the first images; sparse masks are kept as sparse.

    A whole step of so short a fit would fill masks again: those of the start come back after it, and the time of that
    counts.
    """
    trainer = Trainer(model.train(), prepared.data, seed=seed)
    start = model.readout.get_parameter("mask").detach().clone()
    is_sparse = model.options.training.whole_every > 1
    try:
        for number in range(2 * n_steps):
            if number == n_steps:
                _finish(model.bias.device)
                started = time.perf_counter()
            trainer.step()
            if is_sparse and all(active.support is None for active in trainer.active):
                with torch.no_grad():
                    model.readout.get_parameter("mask").copy_(start)
        _finish(model.bias.device)
        return (time.perf_counter() - started) / n_steps * trainer.batches.n_batches
    finally:
        trainer.close()


def _finish(device: torch.device) -> None:
    """Waits for what a GPU has still to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(options: ScaleOptions, point: Point) -> float:
    """What a point takes on one core, roughly."""
    area = options.image_size[0] * options.image_size[1] / 44**2
    chosen = options.figure5()
    simulation = 0.015 * area * point.n_images
    start = 0.1 * area * point.n_neurons
    whole = fig5.seconds(chosen, point) if options.whole else 0.0
    return simulation + start + 4 * options.n_steps * fig5.step_seconds(chosen, point.n_neurons) + whole


N_NEURONS, N_IMAGES = 8192, 65_536
SCALE = Experiment(
    "scale",
    ("factorized",),
    {
        "quick": Preset(Grid(("factorized",), (N_NEURONS,), (N_IMAGES,), (0,)), ScaleOptions()),
        "paper": Preset(Grid(("factorized",), (N_NEURONS,), (N_IMAGES,), (0,)), ScaleOptions(whole=True)),
    },
    solve,
    seconds,
    lambda model, neurons: neurons,
    check,
)
"""Thousands of neurons, and more images than memory is given for."""
