"""Planning a recording: FEV by number of neurons and of images, for simulated populations of any kind."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from whatwhere.checks import check_choice
from whatwhere.config import ModelOptions
from whatwhere.estimators import PosteriorCNN
from whatwhere.experiments.architectures import (
    FACTORIZED,
    POSTERIOR,
    count_types,
    network,
    usual_mask_l1,
    usual_smoothness,
)
from whatwhere.experiments.experiment import Experiment, Grid, Preset
from whatwhere.experiments.networks import fit_path
from whatwhere.experiments.points import Outcome, Point
from whatwhere.metrics import fev
from whatwhere.recording import Recording
from whatwhere.simulation import (
    POPULATIONS,
    Population,
    make_noise,
    make_population,
    make_positions,
    make_stimulus,
    nonlinearity_for,
    simulate,
)

WHITE_NOISE = "white-noise"
LEAST_IMAGES = 8
PLANNED = tuple(kind for kind in POPULATIONS if kind != "vgg")
"""Kinds that a network of one layer fits (`architectures`); units of VGG-19 are none."""


@dataclass(frozen=True)
class PlanOptions:
    """The population and its recordings, and how they are fitted.

    - `kind`: one of `PLANNED`; `n_types`: None for as many as the kind has; `nonlinearity`: None for the one that
      the noise needs; `positions`, `stimuli`, `noise`: one of `POSITIONS`, `STIMULI`, `NOISES`
    - `mean_rate`: of every neuron's |rate| under the stimuli
    - `image_size` (height, width), pixels; `n_channels` of colour; `n_test_images`: of each point's test set
    - `further`: more options of `population`, `positions`, `stimuli` and `noise`: {"noise": {"variance": 0.1}}
    - `mask_l1`: of the factorised readout, times `usual_mask_l1`; `smoothness`: of the posterior readout's kernels,
      times `usual_smoothness`. Each is searched on the validation part
    - `max_steps`: each fit ends there at the latest
    """

    kind: str = "dog"
    n_types: int | None = None
    nonlinearity: str | None = None
    positions: str = "random"
    stimuli: str = WHITE_NOISE
    noise: str = "paper"
    mean_rate: float = 0.1
    image_size: tuple[int, int] = (28, 36)
    n_channels: int = 1
    n_test_images: int = 500
    further: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mask_l1: tuple[float, ...] = (1.0, 0.5)
    smoothness: tuple[float, ...] = (1.0,)
    max_steps: int = 20_000

    def more(self, concern: str) -> Mapping[str, Any]:
        """The further options of one concern."""
        return self.further.get(concern, {})


def population_of(options: PlanOptions, n_neurons: int, seed: int) -> Population:
    """The neurons of a point; raises `OptionError` for what cannot be."""
    check_choice("kind of population", options.kind, PLANNED)
    given = nonlinearity_for(options.kind, make_noise(options.noise, **options.more("noise")))
    if options.nonlinearity is not None:
        given = {"nonlinearity": options.nonlinearity}
    return make_population(
        options.kind,
        n_neurons,
        n_types=options.n_types,
        image_size=options.image_size,
        n_channels=options.n_channels,
        positions=make_positions(options.positions, **options.more("positions")),
        mean_rate=options.mean_rate,
        seed=seed,
        **given,
        **options.more("population"),
    )


def recording_of(options: PlanOptions, population: Population, n_images: int, seed: int) -> Recording:
    """What the neurons answer to so many images; raises `OptionError` and `InputError` for what cannot be."""
    return simulate(
        population,
        n_images,
        n_test_images=options.n_test_images,
        stimuli=make_stimulus(options.stimuli, **options.more("stimuli")),
        noise=make_noise(options.noise, **options.more("noise")),
        mean_rate=None if options.stimuli == WHITE_NOISE else options.mean_rate,  # kernels' norms set it there
        seed=seed,
    )


def solve(options: PlanOptions, point: Point) -> Outcome:
    """Simulates the point's recording, fits the readout that is the point's model, and scores it on the true rates."""
    population = population_of(options, point.n_neurons, point.seed)
    recording = recording_of(options, population, point.n_images, point.seed)
    wanted = network(point.model, population, white=options.stimuli == WHITE_NOISE)
    wanted = replace(wanted, training=replace(wanted.training, max_steps=options.max_steps))
    fit = fit_factorized if point.model == FACTORIZED else fit_posterior
    assert recording.test is not None
    assert recording.test.rates is not None
    start = time.perf_counter()
    predictions, strength = fit(recording, wanted, searched(options, point, population), point.seed)
    seconds = time.perf_counter() - start
    return Outcome(
        float(fev(predictions, recording.test.rates).mean()),
        seconds,
        strength,
        len(recording.split(wanted.training.validation_fraction, point.seed)[1]),
    )


def fit_factorized(
    recording: Recording, wanted: ModelOptions, strengths: Sequence[float], seed: int
) -> tuple[np.ndarray, float]:
    """Predicted test responses and the masks' L1 penalty chosen.

    All fits start alike: which map took which type under one penalty is not undone by a weaker one.
    """
    path = [replace(wanted.penalties, mask_l1=strength) for strength in strengths]
    fit = fit_path(recording, wanted, path, seed=seed, warm_start=False, patient=True)
    assert recording.test is not None
    return fit.predict(recording.test.read_images()), float(strengths[fit.best])


def fit_posterior(
    recording: Recording, wanted: ModelOptions, strengths: Sequence[float], seed: int
) -> tuple[np.ndarray, float]:
    """Predicted test responses and the kernels' smoothness chosen."""
    penalties = replace(wanted.penalties, smoothness=tuple(strengths))
    model = PosteriorCNN(
        "simulation",
        wanted.core,
        wanted.readout,
        penalties,
        wanted.training,
        wanted.preprocessing,
        seed=seed,
        device="cpu",
    )
    model.fit(recording)
    assert recording.test is not None
    chosen = int(model.candidates_["validation_loss"].argmin())
    return model.predict(recording.test.read_images()), float(strengths[chosen])


def searched(options: PlanOptions, point: Point, population: Population) -> list[float]:
    """The strengths searched at a point, from strong to weak."""
    if point.model == FACTORIZED:
        usual = usual_mask_l1(point.n_images, rectified=count_types(population)[1] > 0)
        return sorted((times * usual for times in options.mask_l1), reverse=True)
    return sorted((times * usual_smoothness(options.kind) for times in options.smoothness), reverse=True)


def check(options: PlanOptions, grid: Grid) -> None:
    """Raises `OptionError` or `InputError` for a population or recording that cannot be, before long work."""
    population = population_of(options, min(grid.neurons), grid.seeds[0])
    recording_of(replace(options, n_test_images=1), population, LEAST_IMAGES, grid.seeds[0])


def seconds(options: PlanOptions, point: Point) -> float:
    """What a point takes on one core, roughly: measured for 28 x 36 pixels, and scaled.

    The factorised readout takes some 700 steps a strength, with rectified maps twice as many; the posterior readout as
    many, and infers places some 40 times.
    """
    population = population_of(options, min(point.n_neurons, 24), point.seed)
    assert population.kernels is not None
    maps = network(point.model, population).core.n_maps
    assert isinstance(maps, int)
    size = population.kernels.shape[-2:]
    pixels = np.prod(options.image_size) * options.n_channels
    places = np.prod([whole - part + 1 for whole, part in zip(options.image_size, size, strict=True)])
    by_fourier = maps * options.n_channels <= 4
    convolving = (3 + 3 * maps) * pixels / 1008 if by_fourier else maps * options.n_channels * places / 40
    reading = maps * places * point.n_neurons / 1e4
    step = (convolving + reading) * min(256, 0.8 * point.n_images) / 256 / 1000
    n_steps = 1400 if count_types(population)[1] else 700
    if point.model == FACTORIZED:
        return float(1 + len(options.mask_l1) * n_steps * step)
    inferring = 0.15 + point.n_images * maps * (1 + point.n_neurons / 100) * places / 240 / 1e4
    return float(1 + len(options.smoothness) * (n_steps * step + 40 * inferring))


MODELS = (FACTORIZED, POSTERIOR)
QUICK = Grid(MODELS, (10, 30, 100), (128, 256, 512, 1024, 2048), (0, 1, 2))
THOROUGH = Grid(MODELS, (10, 100, 1000), tuple(2**power for power in range(6, 14)), (0, 1, 2, 3, 4))

PLAN = Experiment(
    name="plan",
    models=MODELS,
    presets={
        "quick": Preset(QUICK, PlanOptions()),
        "thorough": Preset(
            THOROUGH,
            PlanOptions(
                image_size=(48, 48),
                n_test_images=1000,
                mask_l1=(2.0, 1.0, 0.5),
                smoothness=(1.4, 0.7),
            ),
        ),
    },
    solve=solve,
    seconds=seconds,
    sizes=lambda model, neurons: neurons,
)
"""A grid that `images_needed.find_needs` reads a plan from."""
