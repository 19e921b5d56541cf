"""The difference-of-Gaussians kernel of the paper's linear populations, and those populations."""

import numpy as np

from whatwhere.simulation.counts import check_count, check_number, check_numbers
from whatwhere.simulation.layout import Layout, squared_norms
from whatwhere.simulation.populations import LinearPopulation
from whatwhere.simulation.positions import Positions
from whatwhere.simulation.seeds import Seed

TILT = 6.0  # at a variation of 0.05 the authors' Gaussians are correlated by up to 0.3
MEAN_OF_WHITE_NOISE = {"identity": np.sqrt(2 / np.pi), "relu": np.sqrt(1 / (2 * np.pi))}
"""The expectation of |f(z)| for z ~ N(0, 1), by the nonlinearity f."""


def difference_of_gaussians(
    size: int = 17,
    *,
    centre_variance: float = 2.0,
    surround_variance: float = 8.0,
    surround_weight: float = 2.0,
    size_factor: float = 1.0,
    aspect_ratio: float = 1.0,
    correlation: float = 0.0,
) -> np.ndarray:
    """On-centre, off-surround: k = g(centre_variance) - surround_weight g(surround_variance).

    g(v) is the density of a Gaussian in the window's middle with covariance
    size_factor v [[a, c], [c, 1 / a]], rows first; a = `aspect_ratio`, c = `correlation`.

    - variances in squared pixels; `size_factor` multiplies them (not the widths), as in the authors' code
    - returns (size, size), float64, not normalised: its sum is about 1 - surround_weight

    Raises `OptionError` for a size, variance or ratio that is not above 0, or a correlation not within (-1,
    1). Source: Klindt et al. 2017, section 4.4; parameters from their published code.

    >>> kernel = difference_of_gaussians()
    >>> round(float(kernel[8, 8]), 4), round(float(kernel[8, 12]), 4)  # 1 / (8 pi), the ring
    (0.0398, -0.0132)
    """
    check_count("size", size)
    for name, value in (
        ("centre_variance", centre_variance),
        ("surround_variance", surround_variance),
        ("size_factor", size_factor),
        ("aspect_ratio", aspect_ratio),
    ):
        check_number(name, value, above=0)
    check_number("surround_weight", surround_weight)
    check_number("correlation", correlation, above=-1, below=1)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    determinant = 1 - correlation**2  # of [[a, c], [c, 1 / a]]
    distance = (rows**2 / aspect_ratio - 2 * correlation * rows * columns + columns**2 * aspect_ratio) / determinant

    def gaussian(variance: float) -> np.ndarray:
        variance = variance * size_factor
        return np.exp(-distance / (2 * variance)) / (2 * np.pi * variance * np.sqrt(determinant))

    return gaussian(centre_variance) - surround_weight * gaussian(surround_variance)


def simulate_population(
    n_neurons: int = 1000,
    *,
    size_factors: tuple[float, ...] = (0.6, 1.0),
    image_size: tuple[int, int] = (48, 48),
    kernel_size: int = 17,
    n_channels: int = 1,
    positions: str | Positions = "random",
    nonlinearity: str = "identity",
    variation: float = 0.05,
    mean_rate: float = 0.1,
    seed: Seed = 0,
) -> LinearPopulation:
    """On-centre, off-surround neurons of some types at random places, all inside the image.

    - `size_factors`: one type each; type t has variances of size_factors[t] times 2 and 8 pixels squared.
      Neuron n is of type n modulo the number of types
    - `n_channels`: with more than one, each type's kernel is multiplied by a colour, a random direction of length 1
    - `positions`: one of `POSITIONS`, or its name
    - `nonlinearity`: "identity", or "relu" for rates that are never negative
    - `variation`: within a type, the variances of centre and surround, the aspect ratio and the weight of the
      surround are each multiplied by a number drawn from U(1 - variation, 1 + variation), and the Gaussians
      tilted by a correlation from U(-6, 6) variation (at most 0.9)
    - `mean_rate`: the expectation of |r| under white noise, sqrt(2 / pi) |k|_2 (half of it with "relu"), is this for
      every neuron. It is set by the kernel's norm, not by a sample of stimuli, so the population is the same whatever
      it is shown

    The first neurons stay the same when `n_neurons` grows, but on a grid. `size_factors=(1.0,), variation=0` is
    Figure 3, the default Figure 4. Raises `OptionError` for a size, rate or variation out of range.
    Source: Klindt et al. 2017, sections 4.4 and 4.5; the variation after their published code.

    >>> population = simulate_population(10, image_size=(36, 48), seed=1)
    >>> population.kernels.shape, population.types
    ((10, 17, 17), array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1]))
    """
    check_numbers("size_factors", size_factors, above=0)
    layout = Layout(
        n_neurons, len(size_factors), image_size, kernel_size, n_channels, positions, variation, mean_rate, seed
    )
    shapes = zip(layout.types, layout.spread(5), strict=True)
    kernels = layout.coloured(np.stack([_kernel(kernel_size, size_factors[t], variation, row) for t, row in shapes]))
    return linear_population(kernels, layout, nonlinearity)


def linear_population(kernels: np.ndarray, layout: Layout, nonlinearity: str) -> LinearPopulation:
    """Kernels in their places, scaled to the layout's mean rate under white noise."""
    corners, cortex = layout.places()
    population = LinearPopulation(kernels, corners, layout.types, layout.image_size, nonlinearity, cortex)
    unscaled = MEAN_OF_WHITE_NOISE[nonlinearity] * np.sqrt(squared_norms(kernels))
    return population.scaled(layout.mean_rate / unscaled)


def size_factors(n_types: int) -> tuple[float, ...]:
    """Sizes of some types that can be told apart: the paper's for one and two, else evenly spread from 0.4 to 1.6.

    >>> size_factors(2)
    (0.6, 1.0)
    >>> [round(factor, 2) for factor in size_factors(3)]
    [0.4, 0.8, 1.6]
    """
    check_count("n_types", n_types)
    return {1: (1.0,), 2: (0.6, 1.0)}.get(n_types) or tuple(map(float, np.geomspace(0.4, 1.6, n_types)))


def _kernel(size: int, size_factor: float, variation: float, spread: np.ndarray) -> np.ndarray:
    """One neuron's kernel; `spread` holds a number in (-1, 1) for each of its five parameters of shape."""
    centre, surround, weight, aspect = 1 + variation * spread[:4]
    return difference_of_gaussians(
        size,
        centre_variance=2.0 * centre,
        surround_variance=8.0 * surround,
        surround_weight=2.0 * weight,
        size_factor=size_factor,
        aspect_ratio=aspect,
        correlation=min(TILT * variation, 0.9) * spread[4],
    )
