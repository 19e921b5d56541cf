"""Figure 1: the thought experiment, measured: ten neurons that share one model need a tenth of the images."""

import time
from dataclasses import dataclass, replace

import numpy as np

from whatwhere.baselines import Ridge
from whatwhere.baselines.options import ridge_strengths
from whatwhere.config import Count
from whatwhere.experiments.experiment import Experiment, Grid, Preset
from whatwhere.experiments.fig3 import KERNEL_SIZE, Fig3Options, scored, simulated, test_images
from whatwhere.experiments.points import Outcome, Point
from whatwhere.recording import Recording
from whatwhere.rows import frozen
from whatwhere.simulation import LinearPopulation

ONE, SHARED, INDEPENDENT = "one", "shared", "independent"
MODELS = (ONE, SHARED, INDEPENDENT)
"""One neuron alone; several with known positions sharing one model; the same several, each with a model of its own."""


@dataclass(frozen=True)
class Fig1Options:
    """`image_size` (height, width), pixels; `n_test_images`: of each point's test set."""

    image_size: tuple[Count, Count] = (48, 48)
    n_test_images: Count = 1000


def solve(options: Fig1Options, point: Point) -> Outcome:
    """Ridge regression on the 17 x 17 pixels around each neuron, whose place is known.

    Neurons, images and noise are Figure 3's. `shared` pools: each image is shifted such that a neuron's field is in
    the middle, once for every neuron, and one filter is fitted to all of it; an image stays on one side of the split,
    for whichever neurons it is shifted. Predicts without an offset, as the linear models of Figure 3.
    """
    simulation = Fig3Options(image_size=options.image_size, n_test_images=options.n_test_images)
    recording, population = simulated(simulation, point)
    shown = pooled(recording, population) if point.model == SHARED else recording
    n_training = len(shown.split(seed=point.seed)[0])
    model = Ridge(ridge_strengths(n_training), standardize="none", seed=point.seed)
    if point.model != SHARED:
        model.set_params(crop=KERNEL_SIZE, locations="metadata")
    start = time.perf_counter()
    model.fit(shown)
    seconds = time.perf_counter() - start
    filters = model.filters_ if point.model != SHARED else np.repeat(model.filters_, point.n_neurons, axis=0)
    in_place = replace(population, kernels=filters[:, 0] if population.kernels.ndim == 3 else filters)
    return scored(
        in_place.rates(test_images(recording)),
        recording,
        seconds,
        strength=float(model.strength_) * n_training,
        n_validation=len(recording.split(seed=point.seed)[1]),
        kernel=filters[0],
    )


def pooled(recording: Recording, population: LinearPopulation) -> Recording:
    """One neuron that was shown every image once for each neuron of the population, its field in the middle.

    images: (n_images * n_neurons, n_channels, 17, 17), all those of the first neuron first; responses likewise.
    """
    images = recording.read_images()
    height, width = population.kernels.shape[-2:]
    shifted = [images[:, :, row : row + height, column : column + width] for row, column in population.positions]
    return Recording(
        frozen(np.concatenate(shifted)),
        frozen(recording.responses.T.reshape(-1, 1).copy()),
        image_ids=np.tile(np.arange(recording.n_images), recording.n_neurons),
    )


def seconds(options: Fig1Options, point: Point) -> float:
    """What a point takes on one core, roughly."""
    return 1 + point.n_images * point.n_neurons / 20_000


IMAGES = (32, 100, 316, 1000, 3162, 10_000)
"""Half decades: ten times as many images are two steps."""

FIG1 = Experiment(
    name="fig1",
    models=MODELS,
    presets={
        "quick": Preset(Grid(MODELS, (10,), IMAGES[:-1], tuple(range(10))), Fig1Options()),
        "paper": Preset(Grid(MODELS, (10,), IMAGES, tuple(range(20))), Fig1Options(n_test_images=10_000)),
    },
    solve=solve,
    seconds=seconds,
    sizes=lambda model, neurons: (1,) if model == ONE else neurons,
)
