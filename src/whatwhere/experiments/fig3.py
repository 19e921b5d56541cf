"""Figure 3: how many images a homogeneous linear population needs, by model and by number of neurons."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from whatwhere.baselines import OLS, Lasso, Ridge
from whatwhere.baselines.base import FilterModel
from whatwhere.baselines.options import PAPER_LASSO, ridge_strengths
from whatwhere.config import Count, ModelOptions, PenaltyOptions, Positive
from whatwhere.estimators import PosteriorCNN
from whatwhere.experiments.experiment import Experiment, Grid, Preset
from whatwhere.experiments.networks import PathFit, fit_path
from whatwhere.experiments.points import ALL, Outcome, Point
from whatwhere.metrics import fev
from whatwhere.presets import SIMULATION, preset_options
from whatwhere.recording import HeldOut, Recording
from whatwhere.simulation import (
    LinearPopulation,
    kernel_correlation,
    location_errors,
    simulate,
    simulate_population,
)
from whatwhere.simulation.recovery import credible_coverage, hit_rate, reliability_curve, true_positions

KERNEL_SIZE = 17
LEVELS = (0.5, 0.8, 0.9, 0.95)  # of credible regions
PAPER_STRENGTHS = tuple(float(strength) for strength in np.geomspace(0.001, 1, 10))
"""The published search over lambda_m of equation 4; see `mask_strengths`."""


@dataclass(frozen=True)
class Fig3Options:
    """How the points of Figure 3 are solved.

    - `image_size` (height, width), pixels; `n_channels` of colour; `n_test_images`: of each point's test set
    - `strengths`: of the mask's L1 penalty, in the paper's units, as `mask_strengths` has them
    - `most_strengths`: of these the ones around `usual_strength`, so many; None: all
    - `warm_start`: from the strongest on, each fit starts where the one before it ended, until one is no better; else
      all start alike, as in the paper
    """

    image_size: tuple[Count, Count] = (48, 48)
    n_channels: Count = 1
    n_test_images: Count = 1000
    strengths: tuple[Positive, ...] = PAPER_STRENGTHS
    most_strengths: Count | None = 3
    warm_start: bool = True


Solver: TypeAlias = Callable[[Recording, LinearPopulation, int, Fig3Options], Outcome]
"""(recording, population, seed, options) to an outcome; the population is what the recording was simulated from."""


def simulated(options: Fig3Options, point: Point) -> tuple[Recording, LinearPopulation]:
    """The recording of a point and its population: one kernel, N(r, sqrt|r|), mean |r| of 0.1 (section 4.4)."""
    population = simulate_population(
        point.n_neurons,
        size_factors=(1.0,),
        variation=0.0,
        image_size=options.image_size,
        n_channels=options.n_channels,
        seed=point.seed,
    )
    return simulate(population, point.n_images, n_test_images=options.n_test_images, seed=point.seed), population


def solve(options: Fig3Options, point: Point) -> Outcome:
    """Simulates the point's recording and fits its model."""
    recording, population = simulated(options, point)
    return MODELS[point.model](recording, population, point.seed, options)


def scored(
    predictions: np.ndarray,
    recording: Recording,
    seconds: float,
    *,
    strength: float | None = None,
    n_validation: int | str = 0,
    kernel: np.ndarray | None = None,
    measured: Mapping[str, float] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Outcome:
    """The outcome of a fit that predicts `predictions` (n_test_images, n_neurons) for the recording's test images.

    kernel: the learned one, (n_channels, kh, kw) or (kh, kw); its similarity to the first neuron's true one is
    measured. strength, n_validation, measured and arrays: see `Outcome`. All true locations, and the first neuron's
    kernel where neurons have one, are kept beside.
    """
    assert recording.test is not None
    assert recording.test.rates is not None
    truth = recording.truth
    assert truth is not None
    found = dict(measured or {})
    kept = {"true_locations": truth.locations, **(arrays or {})}
    if truth.kernels is not None:
        kept["true_kernel"] = truth.kernels[0].astype(np.float32)
    if kernel is not None:
        assert truth.kernels is not None
        kept["kernel"] = np.asarray(kernel, np.float32)
        found["kernel_correlation"] = kernel_correlation(kernel, truth.kernels[0])
    mean = float(fev(predictions, recording.test.rates).mean())
    return Outcome(mean, seconds, strength, n_validation, found, kept)


def calibrated(
    posterior: np.ndarray, recording: Recording, offset: tuple[float, float], channels: np.ndarray | None = None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Whether stated locations are right: `measured` and `arrays` for `scored`.

    - `posterior` (n_neurons, h, w), summing to 1; `offset`: `core.map_offset` of its maps; `channels`: see
      `simulation.recovery.location_errors`
    - measured: `coverage` of the randomised 90 % regions, its 95 % interval, and their mean size in locations
    - arrays: `reliability` and `coverage`, rows as `reliability_curve` has them and fields as `Coverage` has them
    """
    assert recording.truth is not None
    positions = true_positions(posterior, recording.truth.locations - offset, channels)
    coverages = [credible_coverage(posterior, positions, level) for level in LEVELS]
    stated = next(one for one in coverages if one.level == 0.9)
    measured = {
        "coverage": stated.share,
        "coverage_low": stated.low,
        "coverage_high": stated.high,
        "region_size": stated.mean_size,
    }
    arrays = {
        "reliability": reliability_curve(posterior, positions).to_numpy(float),
        "coverage": np.array([astuple(one) for one in coverages], float),
    }
    return measured, arrays


def test_images(recording: Recording) -> np.ndarray:
    """The test images, float32."""
    assert recording.test is not None
    return recording.test.read_images()


def mask_strengths(strengths: Sequence[float], recording: Recording) -> list[float]:
    """The paper's lambda_m as strengths of ours: each divided by the responses' standard deviation s.

    Equation 4 sums over neurons both the squared error and |m_n|_1, so a neuron's own terms are
    <(y_n - r_n)^2> + lambda_m |m_n|_1. Ours averages both over neurons, which changes no optimum, and divides
    responses, and with them masks, by s_n: <(y_n - r_n)^2> / s_n^2 + lambda |m_n|_1 / s_n, which times s_n^2 is the
    paper's with lambda_m = lambda s_n. All neurons have the same s here, 0.34, so their mean is used.

    >>> recording = Recording(np.zeros((4, 1, 2, 3)), np.array([[0.0, 2], [1, 3], [0, 2], [1, 3]]))
    >>> mask_strengths([0.1], recording)
    [0.2]
    """
    s = float(recording.responses.std(0, dtype=np.float64).mean())
    return [float(strength) / s for strength in strengths]


def usual_strength(n_images: int) -> float:
    """The paper's lambda_m that is about right for so many images: what chance correlations reach falls as 1 / sqrt.

    >>> usual_strength(256), usual_strength(4096)
    (0.1, 0.025)
    """
    return 0.1 * (256 / n_images) ** 0.5


def searched(options: Fig3Options, n_images: int) -> list[float]:
    """The strengths searched at a point, in the paper's units, from strong to weak.

    >>> [round(strength, 3) for strength in searched(Fig3Options(), 1024)]
    [0.1, 0.046, 0.022]
    """
    distance = [abs(np.log(strength / usual_strength(n_images))) for strength in options.strengths]
    nearest = np.argsort(distance)[: options.most_strengths]
    return sorted((options.strengths[number] for number in nearest), reverse=True)


def fit_filters(model: FilterModel, recording: Recording, to_paper: float) -> Outcome:
    """A linear baseline on the window around each neuron's known place.

    Predicts without the offset, which equation 1 has none of: to estimate it would cost each neuron Var(y) over the
    number of images, with 256 images 0.04 of FEV. to_paper: what a strength is multiplied by, to be the paper's.
    """
    start = time.perf_counter()
    model.fit(recording)
    seconds = time.perf_counter() - start
    images = test_images(recording)
    filters = model.whole_filters()  # (n_neurons, n_channels, height, width)
    predictions = images.reshape(len(images), -1) @ filters.reshape(len(filters), -1).T
    strength = None if isinstance(model, OLS) else float(model.strength_) * to_paper
    n_validation = len(recording.split(model.validation_fraction, model.seed)[1])
    return scored(
        predictions, recording, seconds, strength=strength, n_validation=n_validation, kernel=model.filters_[0]
    )


def _around_truth(seed: int) -> dict[str, Any]:
    return {"crop": KERNEL_SIZE, "locations": "metadata", "standardize": "none", "seed": seed}


def fit_ols(recording: Recording, population: LinearPopulation, seed: int, options: Fig3Options) -> Outcome:
    """Least squares on the 17 x 17 pixels of the receptive field."""
    return fit_filters(OLS(**_around_truth(seed)), recording, 1.0)


def fit_ridge(recording: Recording, population: LinearPopulation, seed: int, options: Fig3Options) -> Outcome:
    """Ridge regression on the 17 x 17 pixels of the receptive field, the paper's strengths."""
    n_training = len(recording.split(seed=seed)[0])
    return fit_filters(Ridge(ridge_strengths(n_training), **_around_truth(seed)), recording, n_training)


def fit_lasso(recording: Recording, population: LinearPopulation, seed: int, options: Fig3Options) -> Outcome:
    """The lasso on the 17 x 17 pixels of the receptive field, the paper's strengths."""
    std = float(recording.responses.std(0, dtype=np.float64).mean())
    return fit_filters(Lasso([strength / std for strength in PAPER_LASSO], **_around_truth(seed)), recording, std)


def fit_cnn(recording: Recording, population: LinearPopulation, seed: int, options: Fig3Options) -> Outcome:
    """The factorised CNN with one kernel: section 4.1."""
    return _fit_network(recording, recording, preset_options("factorized", "simulation"), seed, options)


def fit_true_kernel(recording: Recording, population: LinearPopulation, seed: int, options: Fig3Options) -> Outcome:
    """The same with the true kernel given and never changed: the masks alone are fitted (the paper's "upper bound").

    The feature maps are then constants, so they are made once, and the network that is fitted reads them.
    """
    base = preset_options("factorized", "simulation")
    core = replace(SIMULATION.core, kernel_sizes=(1,))
    # A map made by the true kernel is largest at the neuron's place itself: there is nothing to smooth.
    network = replace(base, core=core, readout=replace(base.readout, sta_smoothing=0.0))
    return _fit_network(recording, _maps_of(recording, population), network, seed, options, given_maps=True)


def _fit_network(
    recording: Recording,
    shown: Recording,
    network: ModelOptions,
    seed: int,
    options: Fig3Options,
    *,
    given_maps: bool = False,
) -> Outcome:
    """Fits a network to what is shown, which are the recording's images or the maps made of them."""
    strengths = searched(options, recording.n_images)
    path = [PenaltyOptions(mask_l1=strength) for strength in mask_strengths(strengths, recording)]
    warm = options.warm_start
    start = time.perf_counter()
    fit = fit_path(shown, network, path, seed=seed, warm_start=warm, patient=not warm, given_maps=given_maps)
    seconds = time.perf_counter() - start
    predictions = fit.predict(test_images(shown))
    n_validation = len(shown.split(network.training.validation_fraction, seed)[1])
    return scored(
        predictions,
        recording,
        seconds,
        strength=strengths[fit.best],
        n_validation=n_validation,
        kernel=None if given_maps else fit.kernels()[0],
        measured=_recovered(fit, recording, KERNEL_SIZE if given_maps else 1),
    )


def _recovered(fit: PathFit, recording: Recording, map_size: int) -> dict[str, float]:
    """How far the masks' peaks are from the truth, pixels; `map_size`: of the kernel that made the images shown."""
    assert recording.truth is not None
    errors = location_errors(fit.model.locations() + (map_size - 1) / 2, recording.truth.locations)
    return {"location_error": float(np.median(errors)), "hit_rate": hit_rate(errors)}


def fit_posterior(recording: Recording, population: LinearPopulation, seed: int, options: Fig3Options) -> Outcome:
    """The posterior readout with one kernel, the noise model chosen by the data, its own preset."""
    model = PosteriorCNN("simulation", seed=seed)
    return _fit_posterior(model, recording, recording, 1)


def fit_posterior_constant(
    recording: Recording, population: LinearPopulation, seed: int, options: Fig3Options
) -> Outcome:
    """The same as if the noise were constant, which it is not: what its model is worth."""
    model = PosteriorCNN("simulation", readout={"noise": "constant"}, seed=seed)
    return _fit_posterior(model, recording, recording, 1)


def fit_posterior_true_kernel(
    recording: Recording, population: LinearPopulation, seed: int, options: Fig3Options
) -> Outcome:
    """The same with the true kernel given: only places, amplitude and noise are inferred."""
    core = {"kernel_sizes": (1,), "kernel_std": 1.0}
    readout = {"sta_smoothing": 0.0, "locate_from": 0, "anneal_steps": 100}
    training = {"patience_from": 100}
    model = PosteriorCNN("simulation", core, readout, {"smoothness": 0.0}, training, seed=seed)
    return _fit_posterior(model, recording, _maps_of(recording, population), KERNEL_SIZE)


def _fit_posterior(model: PosteriorCNN, recording: Recording, shown: Recording, map_size: int) -> Outcome:
    start = time.perf_counter()
    model.fit(shown)
    seconds = time.perf_counter() - start
    assert recording.truth is not None
    errors = location_errors(model.locations_ + (map_size - 1) / 2, recording.truth.locations)
    offset = (KERNEL_SIZE - 1) / 2
    stated, arrays = calibrated(model.location_posterior_, recording, (offset, offset))
    kernel = model.kernels_[0] * np.sign(model.feature_weights_.mean() or 1.0)
    training = model.options().training
    n_validation = ALL if training.refit else len(shown.split(training.validation_fraction, model.seed)[1])
    return scored(
        model.predict(test_images(shown)),
        recording,
        seconds,
        n_validation=n_validation,
        kernel=None if map_size > 1 else kernel,
        measured={"location_error": float(np.median(errors)), "hit_rate": hit_rate(errors), **stated},
        arrays=arrays,
    )


def _maps_of(recording: Recording, population: LinearPopulation) -> Recording:
    """The recording with the true kernel's feature maps in place of the images."""
    kernel = torch.from_numpy(population.kernels[0].astype(np.float32))
    kernel = kernel.reshape(1, population.n_channels, *kernel.shape[-2:])

    def maps(images: np.ndarray) -> np.ndarray:
        chunks = torch.from_numpy(images).split(512)
        return torch.cat([functional.conv2d(chunk, kernel) for chunk in chunks]).numpy()

    assert recording.test is not None
    test = HeldOut(maps(test_images(recording)), recording.test.responses, recording.test.image_index)
    return Recording(maps(recording.read_images()), recording.responses, test=test)


MODELS: dict[str, Solver] = {
    "ols": fit_ols,
    "lasso": fit_lasso,
    "ridge": fit_ridge,
    "cnn": fit_cnn,
    "true-kernel": fit_true_kernel,
    "posterior": fit_posterior,
    "posterior-constant": fit_posterior_constant,
    "posterior-true-kernel": fit_posterior_true_kernel,
}
"""The curves of Figure 3B, by name, in the order of its legend; `posterior-constant` only where it is asked for."""


def seconds(options: Fig3Options, point: Point) -> float:
    """What a point takes on one core, roughly: measured for three strengths and 48 x 48 images, and scaled."""
    area = np.prod(options.image_size) / 48**2
    thousands, population = point.n_images / 1000, point.n_neurons / 1000
    if point.model in ("ols", "lasso", "ridge"):
        return float(2 + 60 * population * (0.3 + thousands / 4))
    share = (options.most_strengths or len(options.strengths)) / 3 * (1 if options.warm_start else 2)
    of_model = {"cnn": 30 + 150 * population, "true-kernel": 5 + 40 * population}.get(point.model, 20.0)
    return float(area * share * of_model * (1 + thousands / 20))


NEURONS = (1, 10, 100, 1000)
USUAL = tuple(model for model in MODELS if model != "posterior-constant")
QUICK = Grid(USUAL, NEURONS, (256, 1024, 4096), (0,))
PAPER = Grid(USUAL, NEURONS, tuple(2**power for power in range(6, 15)), tuple(range(20)))

FIG3 = Experiment(
    name="fig3",
    models=tuple(MODELS),
    presets={
        "quick": Preset(QUICK, Fig3Options()),
        "paper": Preset(PAPER, Fig3Options(n_test_images=10_000, most_strengths=None, warm_start=False)),
    },
    solve=solve,
    seconds=seconds,
    sizes=lambda model, neurons: neurons,
)
