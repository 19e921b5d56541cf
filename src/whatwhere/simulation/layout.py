"""What populations of every kind are asked for: how many neurons, where, how alike, and from which seed."""

from dataclasses import dataclass

import numpy as np

from whatwhere.errors import OptionError
from whatwhere.simulation.counts import check_count, check_number, check_size
from whatwhere.simulation.positions import POSITIONS, Places, Positions
from whatwhere.simulation.registry import resolve
from whatwhere.simulation.seeds import Seed, stream

PLACES, SHAPES, COLOURS = 0, 1, 10  # random streams below the seed; recordings have 2 to 6, and those below 0 and 1


@dataclass(frozen=True)
class Layout:
    """Neurons with kernels of `kernel_size` x `kernel_size` pixels, wholly inside images of `image_size`.

    Neuron n is of type n modulo `n_types`. Raises `OptionError` for a number out of range.
    """

    n_neurons: int
    n_types: int
    image_size: tuple[int, int]
    kernel_size: int
    n_channels: int
    positions: str | Positions
    variation: float
    mean_rate: float
    seed: Seed

    def __post_init__(self) -> None:
        for name in ("n_neurons", "kernel_size", "n_channels"):
            check_count(name, getattr(self, name))
        check_size("image_size", self.image_size)
        check_number("mean_rate", self.mean_rate, above=0)
        check_number("variation", self.variation, least=0, below=1)
        if min(self.image_size) < self.kernel_size:
            raise OptionError(
                f"kernel_size (={self.kernel_size}) does not fit in image_size (={self.image_size}): choose larger"
                " images."
            )

    @property
    def types(self) -> np.ndarray:
        """(n_neurons,), int."""
        return np.arange(self.n_neurons) % self.n_types

    def places(self) -> Places:
        """Where the kernels lie; raises `OptionError` for an unknown arrangement."""
        height, width = (size - self.kernel_size + 1 for size in self.image_size)
        positions = resolve("arrangement of positions", self.positions, POSITIONS)
        return positions.place(self.n_neurons, (height, width), stream(self.seed, PLACES))

    def spread(self, n_parameters: int) -> np.ndarray:
        """A number from U(-1, 1) for each parameter of each neuron's shape: (n_neurons, n_parameters)."""
        return np.random.default_rng(stream(self.seed, SHAPES)).uniform(-1, 1, (self.n_neurons, n_parameters))

    def coloured(self, kernels: np.ndarray) -> np.ndarray:
        """Kernels (n_neurons, kh, kw) times their type's colour: (n_neurons, n_channels, kh, kw), as they are for one.

        A type's colour is a direction in the space of channels, drawn evenly: a vector of length 1.
        """
        if self.n_channels == 1:
            return kernels
        rng = np.random.default_rng(stream(self.seed, COLOURS))
        colours = rng.standard_normal((self.n_types, self.n_channels))
        colours /= np.linalg.norm(colours, axis=1, keepdims=True)
        return kernels[:, None] * colours[self.types][:, :, None, None]


def squared_norms(kernels: np.ndarray) -> np.ndarray:
    """The sum of squares of each neuron's kernel, shaped to be broadcast against the kernels."""
    return (kernels**2).sum(axis=tuple(range(1, kernels.ndim)), keepdims=True)
