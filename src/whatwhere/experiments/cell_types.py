"""Cell types from barcodes: how well they are found, by number of images, likeness of the types, and their number."""

import time
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import adjusted_rand_score

from whatwhere.celltypes import TypeOptions, find_types, measured_maps, network_barcodes
from whatwhere.experiments.experiment import Experiment, Grid, Preset
from whatwhere.experiments.fig4 import Fig4Options, fit_kernels, outcome, recovered, simulated
from whatwhere.experiments.fig4 import seconds as seconds_of_fig4
from whatwhere.experiments.networks import PathFit
from whatwhere.experiments.points import Outcome, Point
from whatwhere.recording import Recording
from whatwhere.simulation import size_factors

SPARE = 8
"""Kernels of the networks that are not told how many types there are."""

_MEASURED_ON, _AT_ONCE = 512, 64


@dataclass(frozen=True)
class Kind:
    """A population and its network: the types' size factors, and how many kernels are learned."""

    factors: tuple[float, ...]
    n_kernels: int

    @property
    def is_told(self) -> bool:
        """Whether there are as many kernels as types."""
        return self.n_kernels == len(self.factors)


KINDS: dict[str, Kind] = {
    "two-types": Kind(size_factors(2), 2),
    "alike-0.7": Kind((0.7, 1.0), 2),
    "alike-0.8": Kind((0.8, 1.0), 2),
    "alike-0.9": Kind((0.9, 1.0), 2),
    "three-types": Kind(size_factors(3), 3),
    "five-types": Kind(size_factors(5), 5),
    "two-of-eight": Kind(size_factors(2), SPARE),
    "three-of-eight": Kind(size_factors(3), SPARE),
    "five-of-eight": Kind(size_factors(5), SPARE),
}
"""By name. The first is Figure 4's population. In `alike-<f>` the smaller type's variances are f of the larger type's,
where Figure 4 has 0.6: the nearer f is to 1, the more the types are alike (`kernel_overlap`). In `<n>-of-eight` the
network has eight kernels for n types."""


def solve(options: Fig4Options, point: Point) -> Outcome:
    """Simulates neurons of the point's types, in equal numbers, fits kernels as Figure 4 does, and finds types.

    Measured beside what `fig4.recovered` measures: `ari`, the adjusted Rand index between true types and those found,
    their number by the BIC, and `n_found`, that number; `ari_known`, where the true number is given; `ari_hdbscan` and
    `n_hdbscan` by HDBSCAN; `confidence`, the mean over neurons; `n_true`. A neuron without a type counts as one of a
    type apart. Arrays kept beside: `barcodes`, `labels` and `bic` (numbers and values).
    """
    kind = KINDS[point.model]
    recording, population = simulated(options, kind.factors, point)
    start = time.perf_counter()
    fit = fit_kernels(options, recording, kind.n_kernels, point.seed)
    took = time.perf_counter() - start
    measured, arrays = recovered(fit, population)
    of_types, of_neurons = types_found(barcodes(fit, recording), population.types, point.seed)
    return outcome(options, fit, recording, took, {**measured, **of_types}, {**arrays, **of_neurons})


def barcodes(fit: PathFit, recording: Recording) -> np.ndarray:
    """Barcodes under the metric "signal": kernels of a network that has some to spare may be alike."""
    images = recording.read_images(np.arange(min(_MEASURED_ON, recording.n_images)))
    chunks = (images[first : first + _AT_ONCE] for first in range(0, len(images), _AT_ONCE))
    maps = measured_maps(fit.model.core, (fit.prepared.standardisation.apply(chunk) for chunk in chunks))
    return network_barcodes(fit.model, maps, metric="signal")


def types_found(codes: np.ndarray, true: np.ndarray, seed: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """How well barcodes (n_neurons, K) tell the true types (n_neurons,); see `solve`."""
    n_true = len(np.unique(true))
    found = find_types(codes, TypeOptions(metric="signal", seed=seed))
    known = find_types(codes, TypeOptions(metric="signal", n_types=n_true, seed=seed))
    dense = find_types(codes, TypeOptions(metric="signal", method="hdbscan", seed=seed))
    measured = {
        "ari": float(adjusted_rand_score(true, found.labels)),
        "n_found": float(found.n_types),
        "ari_known": float(adjusted_rand_score(true, known.labels)),
        "ari_hdbscan": float(adjusted_rand_score(true, dense.labels)),
        "n_hdbscan": float(dense.n_types),
        "confidence": float(found.confidence.mean()),
        "n_true": float(n_true),
    }
    return measured, {"barcodes": codes, "labels": found.labels, "bic": found.bic.to_numpy(float)}


def seconds(options: Fig4Options, point: Point) -> float:
    """What a point takes on one core, roughly."""
    as_fig4 = Point("two-types", point.n_neurons, point.n_images, point.seed)
    return seconds_of_fig4(options, as_fig4) * KINDS[point.model].n_kernels / 2


MODELS = tuple(KINDS)
IMAGES = (512, 1024, 2048, 4096, 8192)

TYPES = Experiment(
    name="types",
    models=MODELS,
    presets={
        "quick": Preset(Grid(MODELS, (100,), (512, 2048, 8192), (0,)), Fig4Options(image_size=(36, 48))),
        "paper": Preset(Grid(MODELS, (500,), IMAGES, (0, 1, 2)), Fig4Options()),
    },
    solve=solve,
    seconds=seconds,
    sizes=lambda model, neurons: [number * len(KINDS[model].factors) for number in neurons],
)
"""`neurons` counts those of each type; a point's `n_neurons` counts all."""
