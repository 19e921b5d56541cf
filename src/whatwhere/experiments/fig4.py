"""Figure 4: cell types found as the kernels that neurons choose, for types that differ and types that overlap."""

import time
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from whatwhere.config import Count, PenaltyOptions, Positive, Strength
from whatwhere.experiments.experiment import Experiment, Grid, Preset
from whatwhere.experiments.fig3 import scored, test_images
from whatwhere.experiments.networks import PathFit, fit_path
from whatwhere.experiments.points import Outcome, Point
from whatwhere.presets import preset_options
from whatwhere.recording import Recording
from whatwhere.simulation import (
    LinearPopulation,
    kernel_correlation,
    location_errors,
    simulate,
    simulate_population,
    size_factors,
    type_accuracy,
)
from whatwhere.simulation.recovery import hit_rate

TYPES: dict[str, tuple[float, ...]] = {
    "two-types": size_factors(2),
    "overlapping": (0.75, 1.0),
    "three-types": size_factors(3),
    "four-types": size_factors(4),
    "five-types": size_factors(5),
}
"""Size factors of each population's types, by name; the first is the paper's."""


@dataclass(frozen=True)
class Fig4Options:
    """How the points of Figure 4 are solved: the paper's schedule, but for the rate and the steps that do not count.

    - `image_size` (height, width), pixels; `n_channels` of colour; `n_test_images`: of each point's test set
    - `variation` of the kernels' shapes within a type
    - `mask_l1`, `feature_l1`: means over neurons of |m_n|_1 and |w_n|_1, with |w_n|_2 = 1. The stronger the second, the
      fewer kernels a neuron reads, but if it is too strong early, each keeps the kernel that it began with
    - `typed_start`: kernels and feature weights start from types that averages tell apart, see
      `neuron_types.align_types`; else all neurons start with all kernels alike, as in the paper
    - `learning_rate`, `patience`, `patience_from`, `max_steps`: three times the paper's rate, and it takes a while
      until kernels that start alike have each found a type
    """

    image_size: tuple[Count, Count] = (48, 48)
    n_channels: Count = 1
    n_test_images: Count = 1000
    variation: Strength = 0.05
    mask_l1: Strength = 0.1
    feature_l1: Strength = 0.02
    typed_start: bool = True
    learning_rate: Positive = 3e-3
    patience: Count = 10
    patience_from: Annotated[int, Field(ge=0)] = 1500
    max_steps: Count = 8000


def solve(options: Fig4Options, point: Point) -> Outcome:
    """Simulates neurons of the point's types, in equal numbers, and fits as many kernels as there are types.

    Arrays kept, the kernels in the order of the types that they match best: `kernels` and `type_means` (n_types,
    n_channels, 17, 17), `examples` (n_types, 3, ...) of true kernels, `feature_weights` (n_neurons, n_types), `masks`
    of some neurons, `found` locations (n_neurons, 2) in pixels of the image, and `types` (n_neurons,).
    """
    factors = TYPES[point.model]
    recording, population = simulated(options, factors, point)
    start = time.perf_counter()
    fit = fit_kernels(options, recording, len(factors), point.seed)
    took = time.perf_counter() - start
    measured, arrays = recovered(fit, population)
    return outcome(options, fit, recording, took, measured, arrays)


def simulated(options: Fig4Options, factors: tuple[float, ...], point: Point) -> tuple[Recording, LinearPopulation]:
    """The recording of a point whose types have these size factors, and its population."""
    population = simulate_population(
        point.n_neurons,
        size_factors=factors,
        variation=options.variation,
        image_size=options.image_size,
        n_channels=options.n_channels,
        seed=point.seed,
    )
    return simulate(population, point.n_images, n_test_images=options.n_test_images, seed=point.seed), population


def fit_kernels(options: Fig4Options, recording: Recording, n_kernels: int, seed: int) -> PathFit:
    """So many kernels, fitted as the options say."""
    base = preset_options("factorized", "simulation")
    network = replace(
        base,
        core=replace(base.core, n_maps=n_kernels),
        readout=replace(base.readout, start="types" if options.typed_start else "average"),
        training=replace(
            base.training,
            learning_rate=options.learning_rate,
            patience=options.patience,
            patience_from=options.patience_from,
            max_steps=options.max_steps,
        ),
    )
    path = [PenaltyOptions(mask_l1=options.mask_l1, feature_l1=options.feature_l1)]
    return fit_path(recording, network, path, seed=seed)


def outcome(
    options: Fig4Options,
    fit: PathFit,
    recording: Recording,
    seconds: float,
    measured: dict[str, float],
    arrays: dict[str, np.ndarray],
) -> Outcome:
    """What came of a fit of `fit_kernels` that took so long."""
    return scored(
        fit.predict(test_images(recording)),
        recording,
        seconds,
        strength=options.mask_l1,
        n_validation=len(fit.prepared.data.validation_images),
        measured=measured,
        arrays=arrays,
    )


def recovered(fit: PathFit, population: LinearPopulation) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """How well the truth was found, and what the figure shows of it; see `solve`.

    kernel_correlation: of the kernel that fits its type's mean worst, kernels and types matched one to one as
    favourably as possible; kernel_overlap: of the two types' means that are most alike.
    """
    weights, kernels = fit.feature_weights(), fit.kernels()
    names = np.unique(population.types)
    n_channels, size = population.n_channels, population.kernels.shape[-2:]
    true = population.kernels.reshape(-1, n_channels, *size)
    means = np.stack([true[population.types == name].mean(0) for name in names])
    likeness = np.array([[kernel_correlation(kernel, mean) for kernel in kernels] for mean in means])
    _, order = linear_sum_assignment(likeness, maximize=True)
    overlap = max(kernel_correlation(a, b) for number, a in enumerate(means) for b in means[:number])
    largest = np.abs(weights).max(1) / np.abs(weights).sum(1)
    found = fit.model.locations()
    errors = location_errors(found, population.locations, np.abs(weights).argmax(1))
    measured = {
        "type_accuracy": type_accuracy(weights, population.types),
        "kernel_correlation": float(likeness[np.arange(len(means)), order].min()),
        "kernel_overlap": float(overlap),
        "weight_share": float(largest.mean()),
        "location_error": float(np.median(errors)),
        "hit_rate": hit_rate(errors),
    }
    arrays = {
        "kernels": kernels[order],
        "type_means": means,
        "examples": np.stack([true[population.types == name][:3] for name in names]),
        "feature_weights": weights[:, order],
        "masks": fit.model.readout.masks().numpy()[: 2 * len(names)],
        "found": found,
        "types": population.types,
    }
    return measured, arrays


def seconds(options: Fig4Options, point: Point) -> float:
    """What a point takes on one core, roughly."""
    area, n_types = np.prod(options.image_size) / 48**2, len(TYPES[point.model])
    return float(area * options.max_steps * n_types * (0.007 + 0.025 * point.n_neurons / 1000))


MODELS = tuple(TYPES)

FIG4 = Experiment(
    name="fig4",
    models=MODELS,
    presets={
        "quick": Preset(Grid(MODELS, (100,), (4096,), (0,)), Fig4Options(image_size=(36, 48))),
        "paper": Preset(Grid(MODELS, (500,), (8192,), (0, 1, 2)), Fig4Options(n_test_images=10_000)),
    },
    solve=solve,
    seconds=seconds,
    sizes=lambda model, neurons: [number * len(TYPES[model]) for number in neurons],
)
"""`neurons` counts those of each type; a point's `n_neurons` counts all."""
