"""
Optimisers on one loss
======================

One model, one loss, one start, five optimisers: the loss against time, as a figure.

``python examples/optimisers.py --out optimisers.png`` takes about half a minute on two cores. Linear neurons with one
kernel are simulated (images are not square), a convolutional core read at fixed pixels is fitted to them by each method
on all images at once, and each may take so many seconds. Quasi-Newton and Newton methods settle a smooth loss of a few
hundred parameters; Nelder-Mead, which sees no gradient, does not get far. These pages show it without running it.
"""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import torch

from whatwhere.config import OptimiserOptions
from whatwhere.model import Model, Shapes, initialize
from whatwhere.optimisers import METHODS, OptimisationResult, fit_full_batch
from whatwhere.presets import options_over_preset
from whatwhere.report.optimisation import loss_against_time
from whatwhere.simulation import simulate, simulate_population

RATES = {"adam": 0.03, "sgd": 0.3}
"""Of 0.003, 0.01, 0.03, 0.1 and 0.3 those with the lowest loss after 80 iterations."""


def compare(
    n_neurons: int = 12, n_images: int = 400, max_seconds: float = 5.0, seed: int = 0
) -> dict[str, OptimisationResult]:
    """Fits the same model from the same start by every method; results by method."""
    population = simulate_population(n_neurons, image_size=(16, 22), size_factors=(1.0,), kernel_size=9, seed=seed)
    recording = simulate(population, n_images, n_test_images=1, seed=seed)
    images = torch.from_numpy(recording.read_images())
    responses = torch.from_numpy(recording.responses / recording.responses.std(0))
    values = {"core": {"kernel_sizes": [9]}, "penalties": {"smoothness": 1e-3}}
    shapes = Shapes(n_channels=1, height=16, width=22, n_neurons=n_neurons)
    start = Model("fixed-mask", options_over_preset("fixed-mask", "simulation", values), shapes)
    initialize(start, images, responses, seed)
    start.double()  # line searches go further
    results = {}
    for method in METHODS:
        limits = OptimiserOptions(
            max_seconds=max_seconds, max_iterations=100_000, tolerance=1e-6, learning_rate=RATES.get(method)
        )
        once = OptimiserOptions(max_iterations=1)  # unmeasured: SciPy and torch load parts of themselves on first use
        for options in (once, limits):
            results[method] = fit_full_batch(copy.deepcopy(start), images, responses, method, options)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares the methods and writes the figure."""
    parser = argparse.ArgumentParser(description="Five optimisers on one loss.")
    parser.add_argument("--out", type=Path, default=Path("optimisers.png"), help="file to write the figure to")
    parser.add_argument("--neurons", type=int, default=12)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=5.0, help="that each method may take")
    parser.add_argument("--seed", type=int, default=0, help="of the neurons, images, noise and initial kernels")
    options = parser.parse_args(arguments)
    results = compare(options.neurons, options.images, options.seconds, options.seed)
    loss_against_time(results).savefig(options.out)


if __name__ == "__main__":
    main()
