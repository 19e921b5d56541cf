"""Simulated recordings written straight to disk, in chunks: more images than memory could hold."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np

from whatwhere.errors import FormatError, InputError, WriteError
from whatwhere.files import replacing
from whatwhere.formats import hdf5
from whatwhere.simulation.counts import check_count
from whatwhere.simulation.noise import Noise
from whatwhere.simulation.photographs import CACHE_BYTES, Photographs
from whatwhere.simulation.populations import NUMBERS_AT_ONCE, Population
from whatwhere.simulation.recordings import N_CALIBRATION, NOISE, Session, make_session
from whatwhere.simulation.seeds import Seed, stream
from whatwhere.simulation.stimuli import Stimulus

BYTES_AT_ONCE = 2**27  # of images and of what their neurons need
PER_NEURON = 4  # numbers an image: rate and response, and twice as many while they are computed
FLOAT = np.dtype(np.float32)
N_TIMED = 32  # images that the time is estimated from


@dataclass(frozen=True)
class SimulationPlan:
    """Estimated before a recording is made: bytes on disk if they are not compressed, bytes of memory, and seconds.

    `images_at_once` are made, shown and written at a time; a few were, to measure the time.
    """

    n_images: int
    n_test_images: int
    n_repeats: int
    n_neurons: int
    image_shape: tuple[int, int, int]
    images_at_once: int
    n_bytes: int
    seconds: float
    memory: int


@dataclass(frozen=True)
class SimulationProgress:
    """How far a recording is: images written of all, test images counted in, and the seconds that are left.

    `notes`: with the last image, how it was made and what was passed over.
    """

    n_done: int
    n_images: int
    seconds_left: float
    notes: tuple[str, ...] = ()


SimulationObserver: TypeAlias = Callable[[SimulationPlan | SimulationProgress], None]


def simulate_to_file(
    path: str | Path,
    population: Population,
    n_images: int = 1024,
    *,
    n_test_images: int = 1000,
    n_repeats: int = 0,
    stimuli: str | Stimulus = "white-noise",
    noise: str | Noise = "paper",
    mean_rate: float | None = None,
    seed: Seed = 0,
    images_at_once: int | None = None,
    compress: bool = False,
    overwrite: bool = False,
    observer: SimulationObserver | None = None,
) -> Path:
    """As `simulate`, into an HDF5 file, `images_at_once` at a time, so that memory stays small. Returns the path.

    - `images_at_once`: None: as many as 128 MiB hold with what their neurons need; the plan says what is needed in all.
      Any number gives the same images and, but for the rounding of sums, the same rates and responses, those of
      `simulate` too
    - `compress` by gzip: smaller and slower
    - `observer` is told the plan first and then, after each chunk, how far it is

    The file is `whatwhere.formats.hdf5`'s, with the truth in its group `truth`; `load` gives `recording.truth`. It
    appears whole or not at all. Raises what `simulate` raises; `FormatError` where the suffix is not .h5 or .hdf5, the
    folder does not exist, or the path exists and `overwrite` is False; `WriteError` where the disk has too little room.
    """
    path = Path(path).expanduser()
    _check_target(path, overwrite)
    if images_at_once is not None:
        check_count("images_at_once", images_at_once)
    session = make_session(population, n_images, n_test_images, n_repeats, stimuli, noise, mean_rate, seed)
    plan = _plan(session, images_at_once or _images_at_once(session))
    if observer is not None:
        observer(plan)
    free = shutil.disk_usage(path.parent).free
    if plan.n_bytes > free and not compress:
        raise WriteError(
            f"{path} would be {plan.n_bytes / 2**30:.2f} GiB, but {free / 2**30:.2f} GiB are free there. Make room, or"
            " simulate fewer images or neurons."
        )
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        hdf5.start(file, path.stem, session.neurons)
        _Writer(file, session.scaled(), plan, compress, observer).write()
    return path


class _Writer:
    """Fills a file and says how far it is."""

    def __init__(
        self,
        file: Any,
        session: Session,
        plan: SimulationPlan,
        compress: bool,
        observer: SimulationObserver | None,
    ) -> None:
        self.file, self.session, self.plan = file, session, plan
        self.compress, self.observer = compress, observer
        self.started, self.n_done = time.perf_counter(), 0

    def write(self) -> None:
        """The test set first, which is small, then the training images, then what is known of them."""
        self._write_test()
        session, plan = self.session, self.plan
        images = self._images("images", plan.n_images)
        responses = self._table("responses", plan.n_images)
        rates = hdf5.write_truth(self.file, session.truth(_Empty((plan.n_images, plan.n_neurons))), self.compress)
        for rows, *parts in session.responses(plan.images_at_once):
            for dataset in (images, rates, responses):
                dataset[rows] = parts.pop(0)
            self._tell(rows.stop - rows.start)
        self.file["truth"].attrs["description"] = "; ".join(session.notes)  # what was passed over is known now

    def _write_test(self) -> None:
        session, plan = self.session, self.plan
        images = self._images("test/images", plan.n_test_images)
        rates = np.empty((plan.n_test_images, plan.n_neurons), FLOAT)
        for first in range(0, plan.n_test_images, plan.images_at_once):
            rows = slice(first, min(first + plan.images_at_once, plan.n_test_images))
            shown = session.test_images(first, rows.stop - first)
            images[rows], rates[rows] = session.shown(shown), session.population.rates(shown)
            self._tell(len(shown))
        self._table("test/rates", plan.n_test_images)[:] = rates
        n_trials = plan.n_test_images * max(1, plan.n_repeats)
        responses = self._table("test/responses", n_trials)
        index = self.file.create_dataset("test/image_index", (n_trials,), np.int64)
        for repeat, (order, trial) in enumerate(session.test_trials(rates)):
            rows = slice(repeat * plan.n_test_images, (repeat + 1) * plan.n_test_images)
            responses[rows], index[rows] = trial, order

    def _images(self, name: str, n_images: int) -> Any:
        return hdf5.create_images(self.file, name, _Empty((n_images, *self.plan.image_shape)), self.compress)

    def _table(self, name: str, n_rows: int) -> Any:
        return self.file.create_dataset(name, (n_rows, self.plan.n_neurons), FLOAT, **hdf5.filters(self.compress))

    def _tell(self, n_more: int) -> None:
        self.n_done += n_more
        n_all = self.plan.n_images + self.plan.n_test_images
        left = (time.perf_counter() - self.started) * (n_all - self.n_done) / self.n_done
        if self.observer is not None:
            notes = self.session.notes if self.n_done == n_all else ()
            self.observer(SimulationProgress(self.n_done, n_all, left, notes))


class _Empty:
    """The shape and dtype of an array that is still to be made, chunk by chunk."""

    dtype = FLOAT

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        raise InputError("these images are still to be made: they have a shape, but no values yet.")


def _check_target(path: Path, overwrite: bool) -> None:
    suffixes = hdf5.FORMAT.suffixes
    if path.suffix.lower() not in suffixes:
        raise FormatError(f"{path} ends in {path.suffix!r}: expected {' or '.join(suffixes)}.")
    if path.exists() and not overwrite:
        raise FormatError(f"{path} exists already. Choose another name, or say overwrite=True (--overwrite).")
    if not path.parent.is_dir():
        raise FormatError(f"the folder {path.parent} does not exist: make it first.")


def _images_at_once(session: Session) -> int:
    values = prod(session.image_shape) + PER_NEURON * len(session.population.types)
    return max(1, BYTES_AT_ONCE // (FLOAT.itemsize * values))


def _plan(session: Session, images_at_once: int) -> SimulationPlan:
    """Bytes counted, seconds measured: the time of a chunk is that of its images and that of making the kernels."""
    population, n_trials = session.population, session.n_test_images * max(1, session.n_repeats)
    n_all = session.n_images + session.n_test_images
    n_neurons, n_timed = len(population.types), min(N_TIMED, session.n_images, images_at_once)
    times = [time.perf_counter()]
    images = session.images(0, n_timed)
    times.append(time.perf_counter())
    population.rates(images[:1])
    times.append(time.perf_counter())
    rates = population.rates(images)
    times.append(time.perf_counter())
    session.noise.trial(stream(session.seed, NOISE))(rates)
    times.append(time.perf_counter())
    drawing, kernels, showing, adding = np.diff(times)
    chunks = -(-session.n_images // images_at_once) + -(-session.n_test_images // images_at_once)
    seconds = n_all / n_timed * (drawing + max(0.0, showing - kernels)) + chunks * kernels
    seconds += (session.n_images + session.n_test_images * session.n_repeats) / n_timed * adding
    seconds += (session.mean_rate is not None) * N_CALIBRATION / n_timed * (drawing + showing)
    n_values = n_all * (prod(session.image_shape) + n_neurons) + (session.n_images + n_trials) * n_neurons
    return SimulationPlan(
        session.n_images,
        session.n_test_images,
        session.n_repeats,
        n_neurons,
        session.image_shape,
        images_at_once,
        FLOAT.itemsize * n_values + _bytes_of_kernels(population),
        float(seconds),
        _memory(session, images_at_once),
    )


def _memory(session: Session, images_at_once: int) -> int:
    """Bytes of a chunk or the test set, of what `LinearPopulation.rates` multiplies, of kernels and photographs."""
    n_pixels, n_neurons = prod(session.image_shape), len(session.population.types)
    n_chunk = min(images_at_once, max(session.n_images, session.n_test_images))
    of_chunk = n_chunk * (n_pixels + PER_NEURON * n_neurons)
    of_test = PER_NEURON * session.n_test_images * n_neurons
    at_once = max(1, NUMBERS_AT_ONCE // n_pixels)
    of_rates = n_pixels * (min(n_chunk, at_once) + min(n_neurons, at_once))
    kept = CACHE_BYTES if isinstance(session.training, Photographs) else 0
    return FLOAT.itemsize * max(of_chunk, of_test) + 8 * of_rates + 2 * _bytes_of_kernels(session.population) + kept


def _bytes_of_kernels(population: Population) -> int:
    return sum(0 if filters is None else filters.nbytes for filters in (population.kernels, population.quadrature))
