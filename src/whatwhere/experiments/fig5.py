"""Figure 5: a nonlinear feature space learned from units of VGG-19, by readout and numbers of images and types."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from whatwhere.baselines import GLM
from whatwhere.config import Count, ModelOptions, PenaltyOptions
from whatwhere.core import map_offset
from whatwhere.estimators import CNN, FactorizedCNN, FixedMaskCNN, FullyConnectedCNN, PosteriorCNN
from whatwhere.experiments.experiment import Experiment, Grid, Preset
from whatwhere.experiments.fig3 import calibrated, scored, test_images
from whatwhere.experiments.points import Outcome, Point
from whatwhere.presets import preset_options
from whatwhere.recording import Recording
from whatwhere.simulation import VGGPopulation, load_vgg, location_errors, simulate, type_accuracy, vgg_population
from whatwhere.simulation.photographs import Photographs
from whatwhere.simulation.recovery import channel_offsets, hit_rate

NETWORKS: dict[str, type[CNN]] = {
    model.name: model for model in (FactorizedCNN, FixedMaskCNN, FullyConnectedCNN, PosteriorCNN)
}
MODELS = (*NETWORKS, "glm")
"""The curves of Figure 5B, and the posterior readout."""
SHARING = ("factorized", "posterior")
"""Models that are fitted to populations of every size; the others to the largest alone, as in the paper."""
MEAN_RATE = 0.1
UNITS_OF_TYPE = 64
"""Neurons of each type where the number of types varies (Figure 5E)."""
MOST_VALIDATION = 1024  # images


@dataclass(frozen=True)
class Fig5Options:
    """How the points of Figure 5 are solved; what is not named here is as the `nonlinear` preset has it.

    - `weights` of VGG-19: "hub", "seeded" or a file, see `simulation.load_vgg`
    - `photographs`: a folder; its crops are shown, or dead leaves where none is given
    - `image_size` (height, width) that models are shown, pixels; `n_test_images`: of each point's test set
    - `n_types`: feature maps that the neurons are units of, and maps of the models' last layer; None: as many as there
      are 64 neurons
    - `n_maps` of the models' first two layers
    - `search`: choose among the preset's strengths on the validation part; else one fit, with those of `usual`
    - `max_steps` of each fit
    """

    weights: str = "hub"
    photographs: str | None = None
    image_size: tuple[Count, Count] = (44, 44)
    n_test_images: Count = 1000
    n_types: Count | None = 4
    n_maps: tuple[Count, Count] = (32, 64)
    search: bool = True
    max_steps: Count = 20_000

    def types_of(self, n_neurons: int) -> int:
        """How many types so many neurons are of."""
        return max(1, n_neurons // UNITS_OF_TYPE) if self.n_types is None else min(self.n_types, n_neurons)


def check(options: Fig5Options) -> None:
    """Raises `FormatError` where weights or photographs cannot be had."""
    load_vgg(options.weights)
    if options.photographs is not None:
        Photographs(options.photographs)


def session(options: Fig5Options, point: Point) -> dict[str, Any]:
    """What `simulate` takes for a point: units, stimuli, a mean rate of 0.1, noise N(r, sqrt r) (section 5.1)."""
    population = vgg_population(
        point.n_neurons,
        n_types=options.types_of(point.n_neurons),
        weights=options.weights,
        image_size=options.image_size,
        seed=point.seed,
    )
    return {
        "population": population,
        "n_images": point.n_images,
        "n_test_images": options.n_test_images,
        "stimuli": "dead-leaves" if options.photographs is None else Photographs(options.photographs),
        "mean_rate": MEAN_RATE,
        "seed": point.seed,
    }


def simulated(options: Fig5Options, point: Point) -> tuple[Recording, VGGPopulation]:
    """The recording of a point and its population."""
    shown = session(options, point)
    return simulate(**shown), shown["population"]


def solve(options: Fig5Options, point: Point) -> Outcome:
    """Simulates the point's recording and fits its model; `n_types` is measured of all, see `fit_network` for more."""
    recording, population = simulated(options, point)
    fit = fit_glm if point.model == "glm" else fit_network
    return fit(options, point, recording, population)


def fit_glm(options: Fig5Options, point: Point, recording: Recording, population: VGGPopulation) -> Outcome:
    """A ridge-penalised filter on all pixels, an offset and a ReLU for each neuron."""
    fraction = validation_fraction(point.n_images)
    model = GLM(nonlinearity="relu", loss="squared", validation_fraction=fraction, seed=point.seed)
    start = time.perf_counter()
    model.fit(recording)
    return scored(
        model.predict(test_images(recording)),
        recording,
        time.perf_counter() - start,
        strength=float(model.strength_),
        n_validation=len(recording.split(fraction, point.seed)[1]),
        measured={"n_types": len(population.maps)},
    )


def fit_network(options: Fig5Options, point: Point, recording: Recording, population: VGGPopulation) -> Outcome:
    """A network of three layers with the point's readout.

    Measured: `steps` of all fits; `type_accuracy` by the largest feature weight; `location_error` (median, pixels) and
    `hit_rate`, a common offset for each feature map removed; of the posterior its calibration too. Arrays kept:
    `types`, `found` locations, `feature_weights` (n_neurons, K), the `masks` of a neuron of each type, numbered
    `shown`, `places` where they should look, in pixels of the map, and `examples`, the first test image. A neuron with
    an empty mask counts as if it looked at the middle.
    """
    chosen = network(options, point)
    model = NETWORKS[point.model]("nonlinear", **vars(chosen), seed=point.seed)
    start = time.perf_counter()
    model.fit(recording)
    took = time.perf_counter() - start
    weights = model.feature_weights_
    channels = np.abs(weights).argmax(1)
    found = np.where(np.isnan(model.locations_), (np.array(options.image_size) - 1) / 2, model.locations_)
    errors = location_errors(found, population.locations, channels)
    offsets = channel_offsets(found - population.locations, channels)
    _, shown = np.unique(population.types, return_index=True)
    images = test_images(recording)
    measured = {
        "n_types": len(population.maps),
        "steps": int(model.candidates_["steps"].sum()),
        "type_accuracy": type_accuracy(weights, population.types),
        "location_error": float(np.median(errors)),
        "hit_rate": hit_rate(errors),
    }
    arrays = {
        "types": population.types,
        "found": found,
        "feature_weights": weights,
        "masks": model.masks_[shown],
        "shown": shown,
        "places": (population.locations + offsets - map_offset(chosen.core))[shown],
        "examples": images[:1],
    }
    if isinstance(model, PosteriorCNN):
        stated, curves = calibrated(model.location_posterior_, recording, map_offset(chosen.core), channels)
        measured, arrays = {**measured, **stated}, {**arrays, **curves}
    return scored(
        model.predict(images),
        recording,
        took,
        strength=strength_of(model.model_.options.penalties),
        n_validation=len(recording.split(chosen.training.validation_fraction, point.seed)[1]),
        measured=measured,
        arrays=arrays,
    )


def network(options: Fig5Options, point: Point) -> ModelOptions:
    """The preset's options as this experiment changes them: as many last maps as types, the paper's validation part.

    The strengths of masks are searched around those that are about right for so many images.
    """
    preset = preset_options(point.model, "nonlinear")
    penalties = usual(point.model, point.n_images)
    if options.search:
        mask = penalties.single()["mask_l1"]
        around = tuple(factor * mask for factor in (0.5, 1.0, 2.0)) if mask else 0.0
        penalties = replace(preset.penalties, mask_l1=around)
    return replace(
        preset,
        core=replace(preset.core, n_maps=(*options.n_maps, options.types_of(point.n_neurons))),
        penalties=penalties,
        training=replace(
            preset.training,
            validation_fraction=validation_fraction(point.n_images),
            max_steps=options.max_steps,
        ),
    )


def usual(model: str, n_images: int) -> PenaltyOptions:
    """Strengths that are about right for so many images, where none are searched.

    The factorised masks' is what chance correlations reach, which falls as 1 / sqrt(n_images).

    >>> usual("factorized", 1024).mask_l1
    0.24
    """
    return {
        "factorized": PenaltyOptions(mask_l1=0.12 * (4096 / n_images) ** 0.5, feature_l1=0.05),
        "fixed-mask": PenaltyOptions(feature_l1=0.01),
        "fully-connected": PenaltyOptions(weight_l2=10.0),
        "posterior": PenaltyOptions(feature_l1=0.003),
    }[model]


def validation_fraction(n_images: int) -> float:
    """An eighth of the images, of long recordings 1,024 of them.

    >>> validation_fraction(4096), validation_fraction(65_536)
    (0.125, 0.015625)
    """
    return min(0.125, MOST_VALIDATION / n_images)


def strength_of(penalties: PenaltyOptions) -> float:
    """The one that matters most: of the masks, of the fully connected weights, or of the feature weights."""
    strengths = penalties.single()
    return strengths["mask_l1"] or strengths["weight_l2"] or strengths["feature_l1"]


def seconds(options: Fig5Options, point: Point) -> float:
    """What a point takes on one core, roughly."""
    if point.model == "glm":
        return float(60 + 600 * (point.n_neurons / 1000) * (point.n_images / 4096) ** 2)
    steps = min(options.max_steps, 3000 + point.n_images / 2)
    n_fits = len(preset_options(point.model, "nonlinear").penalties.candidates()) if options.search else 1
    return 20 + steps * n_fits * step_seconds(options, point.n_neurons)


def step_seconds(options: Fig5Options, n_neurons: int) -> float:
    """Of a network, one step on one core, roughly."""
    first, second = options.n_maps
    core = 0.36 * (second / 64) * (first / 32)
    readout = 0.02 * (n_neurons / 1000) * options.types_of(n_neurons) / 4
    return float(np.prod(options.image_size) / 44**2 * (core + readout))


def sizes(model: str, neurons: Sequence[int]) -> Sequence[int]:
    """Models that share are fitted to every population, the others to the largest."""
    return neurons if model in SHARING else (max(neurons),)


QUICK = Fig5Options(n_maps=(16, 32), search=False)
PAPER = Fig5Options()
FAMILY = "fig5"


def _experiment(name: str, quick: Grid, paper: Grid) -> Experiment:
    presets = {"quick": Preset(quick, QUICK), "paper": Preset(paper, PAPER)}
    return Experiment(name, MODELS, presets, solve, seconds, sizes, check, FAMILY)


IMAGES = tuple(2**power for power in range(9, 17))
FIG5B = _experiment("fig5b", Grid(MODELS, (256,), (1024, 4096), (0,)), Grid(MODELS, (12, 100, 1000), IMAGES, (0,)))
"""FEV by readout, number of neurons and number of images."""
FIG5C = _experiment(
    "fig5c", Grid(("factorized",), (256,), (4096,), (0,)), Grid(("factorized",), (1000,), (32_768,), (0,))
)
"""The feature weights of each type."""
FIG5D = replace(FIG5C, name="fig5d")
"""Where some neurons look: the same fit as `FIG5C`, and in the same folder not fitted again."""

TYPED = ("factorized", "fixed-mask", "fully-connected", "posterior")
N_TYPES = tuple(UNITS_OF_TYPE * n_types for n_types in (4, 8, 16))
FIG5E = Experiment(
    "fig5e",
    MODELS,
    {
        "quick": Preset(Grid(TYPED, N_TYPES, (4096,), (0,)), replace(QUICK, n_types=None)),
        "paper": Preset(Grid(TYPED, N_TYPES, (4096,), (0,)), replace(PAPER, n_types=None)),
    },
    solve,
    seconds,
    lambda model, neurons: neurons,
    check,
)
"""FEV by the number of types: 64 neurons of each."""
