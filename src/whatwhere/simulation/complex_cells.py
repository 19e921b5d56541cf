"""Complex cells after the energy model: two kernels a quarter of a period apart, squared and summed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from whatwhere.errors import InputError
from whatwhere.simulation.gabors import even_orientations, gabor_kernels, gabor_types
from whatwhere.simulation.layout import Layout, squared_norms
from whatwhere.simulation.populations import LinearPopulation, gains_to
from whatwhere.simulation.positions import Positions
from whatwhere.simulation.seeds import Seed


@dataclass(frozen=True, eq=False)
class EnergyPopulation:
    """Energy-model cells: r_n = (k_n . x)^2 + (q_n . x)^2, which a grating's phase does not change.

    - `even`, `odd`: linear populations of the same neurons with the kernels k and q, in quadrature

    Raises `InputError` where the two differ in shapes, positions or types, or are not linear.
    Source: Adelson & Bergen 1985, Spatiotemporal energy models for the perception of motion.
    """

    even: LinearPopulation
    odd: LinearPopulation

    def __post_init__(self) -> None:
        even, odd = self.even, self.odd
        if even.kernels.shape != odd.kernels.shape or tuple(even.image_size) != tuple(odd.image_size):
            raise InputError(
                f"even has kernels of shape {even.kernels.shape} for images of {even.image_size}, odd of"
                f" {odd.kernels.shape} for {odd.image_size}: expected the same."
            )
        if (even.positions != odd.positions).any() or (even.types != odd.types).any():
            raise InputError("even and odd differ in positions or types: expected the two filters of the same neurons.")
        if {even.nonlinearity, odd.nonlinearity} != {"identity"}:
            raise InputError(
                f"even has nonlinearity {even.nonlinearity!r}, odd {odd.nonlinearity!r}: expected 'identity' for both,"
                " for their rates are squared."
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.even.image_size

    @property
    def field_size(self) -> tuple[int, int]:
        """That of the images shown."""
        return self.image_size

    @property
    def n_channels(self) -> int:
        """Number of colour channels of the images."""
        return self.even.n_channels

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return self.even.n_neurons

    @property
    def locations(self) -> np.ndarray:
        """Row and column of each kernel's middle, (n_neurons, 2), in pixels."""
        return self.even.locations

    @property
    def types(self) -> np.ndarray:
        """(n_neurons,), int."""
        return self.even.types

    @property
    def cortex(self) -> np.ndarray | None:
        """Positions in the tissue, micrometres, if they have any."""
        return self.even.cortex

    @property
    def kernels(self) -> np.ndarray:
        """The first filters k."""
        return self.even.kernels

    @property
    def quadrature(self) -> np.ndarray:
        """The second filters q, in the shape of `kernels`."""
        return self.odd.kernels

    def rates(self, images: Any) -> np.ndarray:
        """The noise-free responses (n_images, n_neurons), float32, never negative; as `LinearPopulation.rates`."""
        rates = self.even.rates(images) ** 2
        rates += self.odd.rates(images) ** 2
        return rates

    def rescaled(self, images: Any, mean_rate: float) -> "EnergyPopulation":
        """The same neurons, each scaled such that its mean rate over these `images` is `mean_rate`."""
        factors = np.sqrt(gains_to(mean_rate, self.rates(images)))
        return EnergyPopulation(self.even.scaled(factors), self.odd.scaled(factors))


def complex_population(
    n_neurons: int = 1000,
    *,
    orientations: tuple[float, ...] = even_orientations(4),
    frequencies: tuple[float, ...] = (0.125,),
    image_size: tuple[int, int] = (48, 48),
    kernel_size: int = 17,
    n_channels: int = 1,
    positions: str | Positions = "random",
    variation: float = 0.05,
    mean_rate: float = 0.1,
    seed: Seed = 0,
) -> EnergyPopulation:
    """Complex cells with pairs of Gabor kernels; each combination of orientation and frequency is a type.

    - `mean_rate`: the expectation of the rate under white noise, |k|_2^2 + |q|_2^2, is this for every neuron
    - all else as in `gabor_population`

    >>> population = complex_population(6, image_size=(36, 48), seed=1)
    >>> population.kernels.shape, population.quadrature.shape
    ((6, 17, 17), (6, 17, 17))
    """
    kinds = gabor_types(orientations, frequencies, (0.0,))
    layout = Layout(n_neurons, len(kinds), image_size, kernel_size, n_channels, positions, variation, mean_rate, seed)
    even, odd = (layout.coloured(gabor_kernels(kinds, layout, shift)) for shift in (0.0, -np.pi / 2))
    factors = np.sqrt(mean_rate / (squared_norms(even) + squared_norms(odd)))
    corners, cortex = layout.places()
    pair = (
        LinearPopulation(kernels * factors, corners, layout.types, image_size, cortex=cortex) for kernels in (even, odd)
    )
    return EnergyPopulation(*pair)
