"""Populations put together: neurons of several kinds in one recording."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from whatwhere.errors import InputError, OptionError
from whatwhere.simulation.complex_cells import complex_population
from whatwhere.simulation.counts import check_count
from whatwhere.simulation.gabors import even_orientations, gabor_population
from whatwhere.simulation.gaussians import simulate_population, size_factors
from whatwhere.simulation.populations import Population
from whatwhere.simulation.positions import Positions
from whatwhere.simulation.seeds import Seed, stream

PARTS = 20  # from here on the random streams of the parts of a mixture, below its seed
KINDS = 3


@dataclass(frozen=True, eq=False)
class MixedPopulation:
    """All neurons of some populations, one population after the other.

    - `types` are counted on: those of the second population follow the last of the first
    - `kernels` and `quadrature`: where windows differ in size, smaller kernels are in the middle of the largest window
      (half a pixel before it where the difference is odd), zeros around them; None where any part has no kernels.
      Neurons with one filter have zeros as the second

    Raises `InputError` where the parts are for other images.
    """

    parts: tuple[Population, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise InputError("a mixture of no populations: expected at least one.")
        shapes = {(part.n_channels, *part.image_size) for part in self.parts}
        if len(shapes) > 1:
            raise InputError(
                f"the populations are for images of {' and '.join(map(str, sorted(shapes)))}: expected one (n_channels,"
                " height, width)."
            )
        fields = {tuple(part.field_size) for part in self.parts}
        if len(fields) > 1:
            raise InputError(
                f"the populations see {' and '.join(map(str, sorted(fields)))} pixels of what images of"
                f" {self.image_size} are part of: expected one (height, width)."
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.parts[0].image_size

    @property
    def field_size(self) -> tuple[int, int]:
        """(height, width) of the images that the neurons see, pixels."""
        return self.parts[0].field_size

    @property
    def n_channels(self) -> int:
        """Number of colour channels of the images."""
        return self.parts[0].n_channels

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return len(self.types)

    @property
    def locations(self) -> np.ndarray:
        """Row and column of each receptive field's centre, (n_neurons, 2), in pixels."""
        return np.concatenate([part.locations for part in self.parts])

    @property
    def types(self) -> np.ndarray:
        """(n_neurons,), int, from 0 without gaps."""
        types, n_before = [], 0
        for part in self.parts:
            names, number = np.unique(part.types, return_inverse=True)
            types.append(number + n_before)
            n_before += len(names)
        return np.concatenate(types)

    @property
    def cortex(self) -> np.ndarray | None:
        """Positions in the tissue, micrometres; NaN for neurons without, None where no neuron has one."""
        if all(part.cortex is None for part in self.parts):
            return None
        unknown = [np.full((len(part.types), 2), np.nan) for part in self.parts]
        return np.concatenate(
            [none if part.cortex is None else part.cortex for part, none in zip(self.parts, unknown, strict=True)]
        )

    @property
    def kernels(self) -> np.ndarray | None:
        """The first filters of all neurons, in windows of one size."""
        return self._joined([part.kernels for part in self.parts])

    @property
    def quadrature(self) -> np.ndarray | None:
        """The second filters of all neurons, zeros where there is one filter only; None where no neuron has two."""
        if all(part.quadrature is None for part in self.parts):
            return None
        second: list[np.ndarray | None] = []
        for part in self.parts:
            alone = part.quadrature is None and part.kernels is not None
            second.append(np.zeros_like(part.kernels) if alone else part.quadrature)
        return self._joined(second)

    def _joined(self, kernels: list[np.ndarray | None]) -> np.ndarray | None:
        known = [kernel for kernel in kernels if kernel is not None]
        if len(known) < len(kernels):
            return None
        if any(kernel.ndim == 4 for kernel in known):
            known = [kernel if kernel.ndim == 4 else kernel[:, None] for kernel in known]
        window = np.max([kernel.shape[-2:] for kernel in known], axis=0)
        padded = []
        for kernel in known:
            lack = window - kernel.shape[-2:]
            edges = [(0, 0)] * (kernel.ndim - 2) + [(int(gap) // 2, int(gap) - int(gap) // 2) for gap in lack]
            padded.append(np.pad(kernel, edges))
        return np.concatenate(padded)

    def rates(self, images: Any) -> np.ndarray:
        """The noise-free responses (n_images, n_neurons), float32; as `LinearPopulation.rates`."""
        return np.concatenate([part.rates(images) for part in self.parts], axis=1)

    def rescaled(self, images: Any, mean_rate: float) -> "MixedPopulation":
        """The same neurons, each scaled such that its mean |r| over these `images` is `mean_rate`."""
        return MixedPopulation(tuple(part.rescaled(images, mean_rate) for part in self.parts))


def mixed_population(
    n_neurons: int = 1000,
    *,
    n_types: int = 6,
    image_size: tuple[int, int] = (48, 48),
    kernel_size: int = 17,
    n_channels: int = 1,
    positions: str | Positions = "random",
    nonlinearity: str = "identity",
    variation: float = 0.05,
    mean_rate: float = 0.1,
    seed: Seed = 0,
) -> MixedPopulation:
    """A third each of difference-of-Gaussians, Gabor and complex cells, with as equal numbers of types.

    - `n_types`: of all together, at least 3; the first kinds have one more where it is no multiple of 3
    - `nonlinearity` of the first two kinds; all else as in `simulate_population`, `gabor_population` and
      `complex_population`

    >>> mixed_population(7, image_size=(36, 48), seed=1).types
    array([0, 1, 0, 2, 3, 4, 5])
    """
    for name, value in (("n_neurons", n_neurons), ("n_types", n_types)):
        check_count(name, value)
        if value < KINDS:
            raise OptionError(f"{name} is {value}: a mixture of {KINDS} kinds of neurons needs at least {KINDS}.")
    sizes, kinds = _shares(n_neurons), _shares(n_types)
    common: dict[str, Any] = {
        "image_size": image_size,
        "kernel_size": kernel_size,
        "n_channels": n_channels,
        "positions": positions,
        "variation": variation,
        "mean_rate": mean_rate,
    }
    seeds = [stream(seed, PARTS + number) for number in range(KINDS)]
    linear = common | {"nonlinearity": nonlinearity}
    return MixedPopulation(
        (
            simulate_population(sizes[0], size_factors=size_factors(kinds[0]), seed=seeds[0], **linear),
            gabor_population(sizes[1], orientations=even_orientations(kinds[1]), seed=seeds[1], **linear),
            complex_population(sizes[2], orientations=even_orientations(kinds[2]), seed=seeds[2], **common),
        )
    )


def _shares(number: int) -> list[int]:
    """A number in as many nearly equal parts as there are kinds."""
    return [number // KINDS + (part < number % KINDS) for part in range(KINDS)]
