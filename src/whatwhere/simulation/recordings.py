"""A recording of a simulated population: what an experiment would give, and the truth beside it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.recording import HeldOut, Recording, Truth
from whatwhere.rows import frozen
from whatwhere.simulation.counts import check_count, check_number
from whatwhere.simulation.noise import NOISES, Noise, Trial
from whatwhere.simulation.photographs import Photographs
from whatwhere.simulation.populations import Population
from whatwhere.simulation.registry import resolve
from whatwhere.simulation.seeds import Seed, stream
from whatwhere.simulation.stimuli import STIMULI, Stimulus, make_stimuli, training_and_test

TRAINING, TEST, NOISE, TEST_NOISE, CALIBRATION, PHOTOGRAPHS, ORDER = range(7)  # random streams below the seed
N_CALIBRATION = 1000  # images that a mean rate is measured with
N_TRIED = 32  # images whose rates show at once whether the noise can have them


class DrawnImages:
    """Images that are drawn when they are sliced, so that they need not all be in memory.

    The last slice is kept: a population of several parts asks for it several times.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, draw: Callable[[int, int], np.ndarray], shape: tuple[int, int, int, int]) -> None:
        self.draw, self.shape = draw, shape
        self._last: tuple[tuple[int, int], np.ndarray] | None = None

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, stop, _ = rows.indices(self.shape[0])
        if self._last is None or self._last[0] != (first, stop):
            self._last = (first, stop), self.draw(first, stop - first)
        return self._last[1]


@dataclass(frozen=True)
class Session:
    """What is shown to whom: the parts of a simulated recording, each of which can be made by itself, in chunks."""

    population: Population
    training: Stimulus
    test: Stimulus
    noise: Noise
    n_images: int
    n_test_images: int
    n_repeats: int
    mean_rate: float | None
    seed: Seed
    description: str

    def scaled(self) -> "Session":
        """The session with a population of the mean rate asked for, as measured on other images like the training's."""
        if self.mean_rate is None:
            return self
        return replace(self, population=self.population.rescaled(self.calibration_images(), self.mean_rate))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(n_channels, height, width) of what is shown, and stored."""
        return self.population.n_channels, *self.population.image_size

    def shown(self, images: np.ndarray) -> np.ndarray:
        """The part of these images that models are shown: the population may see more."""
        height, width = self.population.image_size
        return images[:, :, :height, :width]

    @property
    def neurons(self) -> pd.DataFrame:
        """The neurons' table: location (pixels), type, and position in the tissue if they have one."""
        rows, columns = self.population.locations.T
        table = pd.DataFrame({"row": rows, "column": columns, "type": self.population.types})
        if self.population.cortex is not None:
            table["cortex_row"], table["cortex_column"] = self.population.cortex.T
        return table

    @property
    def notes(self) -> tuple[str, ...]:
        """How it was made, and what there is to say about that."""
        notes = [self.description]
        if not self.n_repeats:
            notes.append("the test responses are the noise-free rates, one trial per image (n_repeats=0)")
        if isinstance(self.training, Photographs) and isinstance(self.test, Photographs):
            shown = [len(part.names) for part in (self.training, self.test)]
            notes.append(f"training images are crops of {shown[0]:,} photographs, test images of {shown[1]:,} others")
            notes += self.training.notes
        return tuple(notes)

    def images(self, first: int, n_images: int) -> np.ndarray:
        """Some training images, as the population sees them."""
        return self._draw(self.training, first, n_images, TRAINING)

    def test_images(self, first: int, n_images: int) -> np.ndarray:
        """Some test images, as the population sees them."""
        return self._draw(self.test, first, n_images, TEST)

    def calibration_images(self) -> DrawnImages:
        """Images like the training images, that are not among them."""
        return self._drawn(N_CALIBRATION, CALIBRATION)

    def check_rates(self) -> None:
        """Raises `InputError` where the first images have rates that the noise cannot have, before long work."""
        if self.noise.needs_counts:
            first = self.population.rates(self._drawn(min(N_TRIED, self.n_images), TRAINING))
            self.noise.trial(stream(self.seed, NOISE))(first)

    def _drawn(self, n_images: int, path: int) -> DrawnImages:
        shape = (n_images, self.population.n_channels, *self.population.field_size)
        return DrawnImages(lambda first, n: self._draw(self.training, first, n, path), shape)

    def _draw(self, stimulus: Stimulus, first: int, n_images: int, path: int) -> np.ndarray:
        population, seed = self.population, stream(self.seed, path)
        return make_stimuli(
            stimulus, n_images, population.field_size, n_channels=population.n_channels, seed=seed, first=first
        )

    def responses(self, n_at_once: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Rows, images, rates and responses, so many images at once."""
        trial = self.noise.trial(stream(self.seed, NOISE))
        for first in range(0, self.n_images, n_at_once):
            rows = slice(first, min(first + n_at_once, self.n_images))
            yield rows, *self._show(self.images(first, rows.stop - first), trial)  # nothing of it is kept here

    def _show(self, images: np.ndarray, trial: Trial) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rates = self.population.rates(images)
        return self.shown(images), rates, trial(rates)

    def test_trials(self, rates: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each repeat the test images in the order of showing, and the responses; without repeats the rates.

        Where a response depends on what came before, every repeat has an order of its own: in one and the same order
        what is left of the image before would repeat, and count as signal.
        """
        rows = np.arange(self.n_test_images)
        if not self.n_repeats:
            yield rows, rates
        for repeat in range(self.n_repeats):
            order = rows
            if self.noise.has_memory:
                order = np.random.default_rng(stream(self.seed, ORDER, repeat)).permutation(rows)
            yield order, self.noise.trial(stream(self.seed, TEST_NOISE, repeat))(rates[order])

    def truth(self, rates: Any) -> Truth:
        """The truth, `rates` being those of the training images."""
        population = self.population
        return Truth(
            rates,
            population.locations,
            population.types,
            population.kernels,
            population.quadrature,
            "; ".join(self.notes),
        )


def make_session(
    population: Population,
    n_images: int,
    n_test_images: int,
    n_repeats: int,
    stimuli: str | Stimulus,
    noise: str | Noise,
    mean_rate: float | None,
    seed: Seed,
) -> Session:
    """The session asked for, checked, still to be `scaled`; raises `OptionError`, and `InputError` for the rates."""
    stimulus, noise_model = resolve("stimulus", stimuli, STIMULI), resolve("noise", noise, NOISES)
    check_count("n_images", n_images)
    check_count("n_test_images", n_test_images)
    check_count("n_repeats", n_repeats, least=0)
    if mean_rate is not None:
        check_number("mean_rate", mean_rate, above=0)
    training, test = training_and_test(stimulus, population.field_size, stream(seed, PHOTOGRAPHS))
    description = f"simulated: {stimuli} stimuli, {noise} noise, seed {seed}"
    counts = (n_images, n_test_images, n_repeats)
    session = Session(population, training, test, noise_model, *counts, mean_rate, seed, description)
    session.check_rates()
    return session


def simulate(
    population: Population,
    n_images: int = 1024,
    *,
    n_test_images: int = 1000,
    n_repeats: int = 0,
    stimuli: str | Stimulus = "white-noise",
    noise: str | Noise = "paper",
    mean_rate: float | None = None,
    seed: Seed = 0,
) -> Recording:
    """Show images once to a population, and other images repeatedly, as in an experiment.

    - `stimuli`, `noise`: one of `STIMULI` and of `NOISES`, or their names
    - `mean_rate`: None leaves the population as it is; else each neuron is scaled such that its mean |r| over 1000
      images like the training images is this
    - `recording.responses` (n_images, n_neurons): one noisy trial of each image
    - `recording.neurons`: `row` and `column` of the receptive field's centre (pixels, float) and `type`
    - `recording.truth`: the rates of the training images, the kernels, locations and types
    - `recording.test`: `rates` (n_test_images, n_neurons) without noise, and `n_repeats` noisy trials of each
      image. With `n_repeats=0` its responses are the rates themselves, one trial per image, and `notes` says
      so

    Training images, test images and each trial's noise have random streams of their own: with the same seed,
    a longer recording starts with the shorter one, and both have the same test set. Crops of photographs for training
    and for test come from disjoint photographs.
    Raises `OptionError` for unknown names and counts out of range, `InputError` for rates that the noise cannot have.

    >>> from whatwhere.simulation import simulate_population
    >>> simulate(simulate_population(4, image_size=(20, 24)), 50, n_test_images=10, n_repeats=3)
    Recording('simulation', 50 images of 1x20x24, 4 neurons, test HeldOut(10 images, 30 trials, 4 neurons))
    """
    session = make_session(population, n_images, n_test_images, n_repeats, stimuli, noise, mean_rate, seed).scaled()
    test_images = session.test_images(0, n_test_images)
    test_rates = session.population.rates(test_images)
    test_images = session.shown(test_images)
    shown, trials = zip(*session.test_trials(test_rates), strict=True)
    _, images, rates, responses = next(session.responses(n_images))
    return Recording(
        frozen(images),
        frozen(responses),
        test=HeldOut(frozen(test_images), frozen(np.concatenate(trials)), np.concatenate(shown), frozen(test_rates)),
        neurons=session.neurons,
        truth=session.truth(frozen(rates)),
        name="simulation",
        notes=session.notes,
    )
