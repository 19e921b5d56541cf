"""Gabor kernels, and populations of neurons that have them: simple cells of primary visual cortex."""

from itertools import product

import numpy as np

from whatwhere.simulation.counts import check_count, check_number, check_numbers
from whatwhere.simulation.gaussians import linear_population
from whatwhere.simulation.layout import Layout
from whatwhere.simulation.populations import LinearPopulation
from whatwhere.simulation.positions import Positions
from whatwhere.simulation.seeds import Seed


def gabor(
    size: int = 17,
    *,
    frequency: float = 0.125,
    orientation: float = 0.0,
    phase: float = 0.0,
    wavelengths: float = 0.4,
    aspect_ratio: float = 1.0,
) -> np.ndarray:
    """A grating under a Gaussian: k = exp(-(u^2 + (v / a)^2) / (2 s^2)) cos(2 pi f u + phase).

    u = row cos(orientation) + column sin(orientation) runs across the stripes, v along them, both from the window's
    middle in pixels; f = `frequency`, cycles per pixel, s = `wavelengths` / f, a = `aspect_ratio`.

    - `orientation`, radians: 0 is stripes that lie horizontally, pi / 2 upright ones
    - returns (size, size), float64, not normalised. Its sum is not 0 but, at phase 0, about
      exp(-2 pi^2 wavelengths^2) = 0.04 of the envelope's: such neurons see a little of the mean light

    Raises `OptionError` for a number out of range. Source: Daugman 1985, Uncertainty relation for resolution in space,
    spatial frequency, and orientation optimized by two-dimensional visual cortical filters.

    >>> float(gabor()[8, 8]), float(round(gabor(frequency=0.25)[10, 8], 3))  # the peak; half a wavelength below it
    (1.0, -0.458)
    """
    check_count("size", size)
    check_number("frequency", frequency, above=0, most=0.5)
    check_number("wavelengths", wavelengths, above=0)
    check_number("aspect_ratio", aspect_ratio, above=0)
    check_number("orientation", orientation)
    check_number("phase", phase)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    across = rows * np.cos(orientation) + columns * np.sin(orientation)
    along = columns * np.cos(orientation) - rows * np.sin(orientation)
    width = wavelengths / frequency
    envelope = np.exp(-(across**2 + (along / aspect_ratio) ** 2) / (2 * width**2))
    return envelope * np.cos(2 * np.pi * frequency * across + phase)


def even_orientations(n_types: int) -> tuple[float, ...]:
    """Orientations evenly spread over half a turn, radians.

    >>> [round(angle, 3) for angle in even_orientations(4)]
    [0.0, 0.785, 1.571, 2.356]
    """
    check_count("n_types", n_types)
    return tuple(float(np.pi * number / n_types) for number in range(n_types))


def gabor_population(
    n_neurons: int = 1000,
    *,
    orientations: tuple[float, ...] = even_orientations(4),
    frequencies: tuple[float, ...] = (0.125,),
    phases: tuple[float, ...] = (0.0,),
    image_size: tuple[int, int] = (48, 48),
    kernel_size: int = 17,
    n_channels: int = 1,
    positions: str | Positions = "random",
    nonlinearity: str = "identity",
    variation: float = 0.05,
    mean_rate: float = 0.1,
    seed: Seed = 0,
) -> LinearPopulation:
    """Neurons with Gabor kernels; each combination of orientation, frequency and phase is a type.

    - `orientations` and `phases` in radians, `frequencies` in cycles per pixel
    - `variation`: within a type, frequency, width and aspect ratio are each multiplied by a number drawn from
      U(1 - variation, 1 + variation), and pi U(-variation, variation) is added to orientation and phase
    - all else, and what is raised, as in `simulate_population`

    >>> population = gabor_population(10, image_size=(36, 48), nonlinearity="relu", seed=1)
    >>> population.types
    array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    """
    kinds = gabor_types(orientations, frequencies, phases)
    layout = Layout(n_neurons, len(kinds), image_size, kernel_size, n_channels, positions, variation, mean_rate, seed)
    return linear_population(layout.coloured(gabor_kernels(kinds, layout)), layout, nonlinearity)


def gabor_types(
    orientations: tuple[float, ...], frequencies: tuple[float, ...], phases: tuple[float, ...]
) -> list[tuple[float, float, float]]:
    """All combinations, the last changing first; raises `OptionError` where one has no value, or one out of range."""
    check_numbers("orientations", orientations)
    check_numbers("frequencies", frequencies, above=0, most=0.5)
    check_numbers("phases", phases)
    return list(product(orientations, frequencies, phases))


def gabor_kernels(kinds: list[tuple[float, float, float]], layout: Layout, shift: float = 0.0) -> np.ndarray:
    """Each neuron's kernel (n_neurons, kernel_size, kernel_size), `shift` radians added to its phase."""
    kernels = []
    for kind, spread in zip(layout.types, layout.variation * layout.spread(5), strict=True):
        orientation, frequency, phase = kinds[kind]
        kernels.append(
            gabor(
                layout.kernel_size,
                frequency=min(frequency * (1 + spread[0]), 0.5),
                orientation=orientation + np.pi * spread[1],
                phase=phase + np.pi * spread[2] + shift,
                wavelengths=0.4 * (1 + spread[3]),
                aspect_ratio=1 + spread[4],
            )
        )
    return np.stack(kernels)
