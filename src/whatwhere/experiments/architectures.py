"""The network that suits a simulated population: how many maps of which size, and which nonlinearities."""

from dataclasses import replace

import numpy as np

from whatwhere.config import ModelOptions, PreprocessingOptions
from whatwhere.errors import InputError
from whatwhere.presets import preset_options
from whatwhere.simulation import LinearPopulation, Population

FACTORIZED, POSTERIOR = "factorized", "posterior"
RECTIFIED_MAPS_OF_COMPLEX, RECTIFIED_MAPS_OF_LINEAR = 4, 2
"""Of a type: both of a complex cell's filters in both signs, a linear cell's one in both signs."""


def network(readout: str, population: Population, *, white: bool = True) -> ModelOptions:
    """All options of a network of one layer: those of the simulation preset but for what the population asks for.

    How many types there are, and which of them are complex cells, is taken as known, as the paper does; places, filters
    and who is of which type are not. `white`: the stimuli are white noise; other images are standardised.

    - *kernels* as large as the population's own, which hold its receptive fields
    - *linear cells*: a map of each type, no nonlinearity in the core; the output is rectified if theirs is
    - *complex cells*, or a mixture with some: `RECTIFIED_MAPS_OF_COMPLEX` and `RECTIFIED_MAPS_OF_LINEAR` of each type,
      rectified at levels that are learned, and an output that adds them up. (k x)^2 + (q x)^2 is no such sum, but under
      Gaussian stimuli the best one with four maps explains 0.97 of its variance
    - *noise model* of the posterior readout: chosen from the data, but constant under a rectified output, where a
      variance that falls to nothing with the rate was seen to lead to wrong rates
    - *schedule*: the preset's for one map. With several the factorised readout learns at three times its rate, as in
      Figure 4; with rectified ones, which are about nothing at first, the posterior readout at a third of its rate
      and with more patience

    Raises `InputError` for a population without kernels.
    """
    if population.kernels is None:
        raise InputError("the population has no kernels: how large those of the network should be, is not known.")
    base = preset_options(readout, "simulation")
    n_types, n_complex = count_types(population)
    core = replace(base.core, kernel_sizes=(tuple(population.kernels.shape[-2:]),))
    output, training = base.readout, base.training
    if n_complex:
        n_maps = RECTIFIED_MAPS_OF_COMPLEX * n_complex + RECTIFIED_MAPS_OF_LINEAR * (n_types - n_complex)
        core = replace(core, n_maps=n_maps, last_nonlinearity="relu", batch_norm_shift=True, kernel_std=0.01)
    else:
        core = replace(core, n_maps=n_types)
    rectified = isinstance(population, LinearPopulation) and population.nonlinearity == "relu"
    if rectified:
        output = replace(output, nonlinearity="relu")
    if readout == POSTERIOR and rectified:
        output = replace(output, noise="constant")
    if readout == POSTERIOR and n_complex:
        output = replace(output, locate_every=50)
        training = replace(training, learning_rate=3e-3, patience=8, patience_from=600)
    if readout == FACTORIZED and core.n_maps != 1:
        training = replace(training, learning_rate=3e-3)
    preprocessing = PreprocessingOptions(standardize="none" if white else "global")
    return replace(base, core=core, readout=output, training=training, preprocessing=preprocessing)


def count_types(population: Population) -> tuple[int, int]:
    """Number of types, and of those whose cells are complex: with a second filter.

    >>> from whatwhere.simulation import make_population
    >>> count_types(make_population("mixture", 12, n_types=6, image_size=(20, 26)))
    (6, 2)
    """
    n_types = len(np.unique(population.types))
    if population.quadrature is None:
        return n_types, 0
    second = population.quadrature.reshape(len(population.types), -1).any(axis=1)
    return n_types, len(np.unique(population.types[second]))


def usual_mask_l1(n_images: int, *, rectified: bool = False) -> float:
    """The strength of the masks' L1 penalty that is about right: 4.7 / sqrt(n_images), half of it for rectified maps.

    In units of the fit: responses and maps of unit variance. By chance a response and a map are correlated like
    N(0, 1 / n_images) at every pixel, and the largest of some hundreds of pixels is what the penalty must outweigh,
    whatever the rate. 4.7 is where the paper's search ends in Figure 3; a rectified map varies about half as much.

    >>> usual_mask_l1(2209), usual_mask_l1(2209, rectified=True)
    (0.1, 0.05)
    """
    return 4.7 / n_images**0.5 * (0.5 if rectified else 1.0)


def usual_smoothness(kind: str) -> float:
    """The strength of the smoothness of the posterior readout's kernels: the preset's for difference-of-Gaussians.

    Stripes bend more: the other kinds have a seventh of it.
    """
    preset = preset_options(POSTERIOR, "simulation").penalties.single()["smoothness"]
    return preset if kind == "dog" else preset / 7
