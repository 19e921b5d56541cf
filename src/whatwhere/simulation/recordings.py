"""A recording of a simulated population: what an experiment would give, and the truth beside it."""

import numpy as np
import pandas as pd

from whatwhere.checks import check_choice
from whatwhere.recording import HeldOut, Recording
from whatwhere.rows import frozen
from whatwhere.simulation.noise import NOISES, add_noise
from whatwhere.simulation.populations import Population
from whatwhere.simulation.seeds import Seed, stream
from whatwhere.simulation.stimuli import STIMULI, check_count, make_stimuli


def simulate(
    population: Population,
    n_images: int = 1024,
    *,
    n_test_images: int = 1000,
    n_repeats: int = 0,
    stimuli: str = "white-noise",
    noise: str = "paper",
    seed: Seed = 0,
) -> Recording:
    """Show images once to a population, and other images repeatedly, as in an experiment.

    - `recording.responses` (n_images, n_neurons): one noisy trial of each image
    - `recording.neurons`: the truth, `row` and `column` of the receptive field's centre (pixels, float) and
      `type`
    - `recording.test`: `rates` (n_test_images, n_neurons) without noise, and `n_repeats` noisy trials of each
      image. With `n_repeats=0` its responses are the rates themselves, one trial per image, and `notes` says
      so

    Training images, test images and each trial's noise have random streams of their own: with the same seed,
    a longer recording starts with the shorter one, and both have the same test set.
    Raises `OptionError` for unknown names and counts out of range.

    >>> from whatwhere.simulation import simulate_population
    >>> simulate(simulate_population(4, image_size=(20, 24)), 50, n_test_images=10, n_repeats=3)
    Recording('simulation', 50 images of 1x20x24, 4 neurons, test HeldOut(10 images, 30 trials, 4 neurons))
    """
    check_choice("stimulus", stimuli, STIMULI)
    check_choice("noise", noise, NOISES)
    check_count("n_images", n_images)
    check_count("n_test_images", n_test_images)
    check_count("n_repeats", n_repeats, least=0)
    images = make_stimuli(stimuli, n_images, population.image_size, seed=stream(seed, 0))
    test_images = make_stimuli(stimuli, n_test_images, population.image_size, seed=stream(seed, 1))
    test_rates = population.rates(test_images)
    trials = [add_noise(test_rates, noise, seed=stream(seed, 3, repeat)) for repeat in range(n_repeats)]
    notes = [f"simulated: {stimuli} stimuli, {noise} noise, seed {seed}"]
    if not trials:
        trials = [test_rates]
        notes.append("the test responses are the noise-free rates, one trial per image (n_repeats=0)")
    responses = add_noise(population.rates(images), noise, seed=stream(seed, 2))
    return Recording(
        frozen(images),
        frozen(responses),
        test=HeldOut(
            frozen(test_images),
            frozen(np.concatenate(trials)),
            np.tile(np.arange(n_test_images), len(trials)),
            frozen(test_rates),
        ),
        neurons=_truth(population),
        name="simulation",
        notes=tuple(notes),
    )


def _truth(population: Population) -> pd.DataFrame:
    rows, columns = population.locations.T
    return pd.DataFrame({"row": rows, "column": columns, "type": population.types})
