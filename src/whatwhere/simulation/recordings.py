"""A recording of a simulated population: what an experiment would give, and the truth beside it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.recording import HeldOut, Recording, Truth
from whatwhere.rows import frozen
from whatwhere.simulation.counts import check_count
from whatwhere.simulation.noise import NOISES, Noise
from whatwhere.simulation.photographs import Photographs
from whatwhere.simulation.populations import Population
from whatwhere.simulation.registry import resolve
from whatwhere.simulation.seeds import Seed, stream
from whatwhere.simulation.stimuli import STIMULI, Stimulus, make_stimuli, training_and_test

TRAINING, TEST, NOISE, TEST_NOISE, CALIBRATION, PHOTOGRAPHS, ORDER = range(7)  # random streams below the seed
N_CALIBRATION = 1000  # images that a mean rate is measured with


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
    seed: Seed
    description: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(n_channels, height, width)."""
        return self.population.n_channels, *self.population.image_size

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
        """Some training images."""
        return self._draw(self.training, first, n_images, TRAINING)

    def test_images(self, first: int, n_images: int) -> np.ndarray:
        """Some test images."""
        return self._draw(self.test, first, n_images, TEST)

    def calibration_images(self) -> np.ndarray:
        """Images like the training images, that are not among them."""
        return self._draw(self.training, 0, N_CALIBRATION, CALIBRATION)

    def _draw(self, stimulus: Stimulus, first: int, n_images: int, path: int) -> np.ndarray:
        population, seed = self.population, stream(self.seed, path)
        return make_stimuli(
            stimulus, n_images, population.image_size, n_channels=population.n_channels, seed=seed, first=first
        )

    def responses(self, n_at_once: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Rows, images, rates and responses, so many images at once."""
        trial = self.noise.trial(stream(self.seed, NOISE))
        for first in range(0, self.n_images, n_at_once):
            rows = slice(first, min(first + n_at_once, self.n_images))
            images = self.images(first, rows.stop - first)
            rates = self.population.rates(images)
            yield rows, images, rates, trial(rates)

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
    """The session asked for, checked, its population scaled; raises `OptionError`."""
    stimulus, noise_model = resolve("stimulus", stimuli, STIMULI), resolve("noise", noise, NOISES)
    check_count("n_images", n_images)
    check_count("n_test_images", n_test_images)
    check_count("n_repeats", n_repeats, least=0)
    training, test = training_and_test(stimulus, population.image_size, stream(seed, PHOTOGRAPHS))
    description = f"simulated: {stimuli} stimuli, {noise} noise, seed {seed}"
    session = Session(population, training, test, noise_model, n_images, n_test_images, n_repeats, seed, description)
    if mean_rate is None:
        return session
    return replace(session, population=population.rescaled(session.calibration_images(), mean_rate))


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
    session = make_session(population, n_images, n_test_images, n_repeats, stimuli, noise, mean_rate, seed)
    test_images = session.test_images(0, n_test_images)
    test_rates = session.population.rates(test_images)
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
