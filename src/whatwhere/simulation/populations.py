"""Ground-truth populations: neurons whose kernel, location and type are known."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from whatwhere.checks import check_ndim, check_positive, check_same_rows, some_of
from whatwhere.errors import InputError, OptionError
from whatwhere.rows import frozen, row_chunks
from whatwhere.simulation.gaussians import difference_of_gaussians
from whatwhere.simulation.seeds import Seed, stream
from whatwhere.simulation.stimuli import check_count

NEURONS_AT_ONCE = 1024  # of these the whole receptive fields are made at a time
TILT = 6.0  # at a variation of 0.05 the authors' Gaussians are correlated by up to 0.3


class Population(Protocol):
    """What a simulation needs of neurons, whatever they compute."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images that they look at."""

    @property
    def locations(self) -> np.ndarray:
        """(n_neurons, 2): row and column of each receptive field's centre, in pixels of the image."""

    @property
    def types(self) -> np.ndarray:
        """(n_neurons,), int: each neuron's type."""

    def rates(self, images: Any) -> np.ndarray:
        """The noise-free responses (n_images, n_neurons), float32."""


@dataclass(frozen=True, eq=False)
class LinearPopulation:
    """Linear neurons with small receptive fields: r_n = sum_ij k_nij x_(i + row_n)(j + column_n), equation 1.

    - `kernels` (n_neurons, kh, kw); the rate is a correlation with them, they are not flipped
    - `positions` (n_neurons, 2), int: row and column in the image of each kernel's first (top left) pixel
    - `types` (n_neurons,), int
    - `image_size` (height, width), pixels

    Raises `InputError` where shapes do not fit or a kernel does not lie wholly inside the image.
    """

    kernels: np.ndarray
    positions: np.ndarray
    types: np.ndarray
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        kernels = np.array(self.kernels, np.float64)
        positions, types = np.array(self.positions), np.array(self.types)
        check_ndim("kernels", kernels, ("n_neurons", "kernel height", "kernel width"))
        check_ndim("positions", positions, ("n_neurons", "row and column"))
        check_ndim("types", types, ("n_neurons",))
        check_same_rows("positions", len(positions), "kernels", len(kernels), each="neuron")
        check_same_rows("types", len(types), "kernels", len(kernels), each="neuron")
        if positions.shape[1] != 2 or positions.dtype.kind not in "iu":
            raise InputError(
                f"positions has shape {positions.shape} and dtype {positions.dtype}: expected two integers"
                " per neuron, row and column of the kernel's first pixel."
            )
        last = positions + kernels.shape[1:]
        outside = np.flatnonzero(((positions < 0) | (last > self.image_size)).any(axis=1))
        if len(outside):
            raise InputError(
                f"kernels of {kernels.shape[1]} x {kernels.shape[2]} pixels reach out of the image of"
                f" {self.image_size[0]} x {self.image_size[1]} for neuron {some_of(outside)}:"
                " place them inside."
            )
        for name, value in (("kernels", kernels), ("positions", positions), ("types", types)):
            object.__setattr__(self, name, frozen(value))

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return len(self.kernels)

    @property
    def locations(self) -> np.ndarray:
        """Row and column of each kernel's middle, (n_neurons, 2), in pixels.

        Whole numbers are the centres of pixels, as in `core.map_offset`: the middle of k pixels lies
        (k - 1) / 2 after the first.
        """
        return self.positions + (np.array(self.kernels.shape[1:]) - 1) / 2

    def receptive_fields(self, neurons: slice = slice(None)) -> np.ndarray:
        """Each kernel in its place, zeros around it: (n_neurons, height, width), float32."""
        kernels, positions = self.kernels[neurons], self.positions[neurons]
        fields = np.zeros((len(kernels), *self.image_size), np.float32)
        kernel_height, kernel_width = kernels.shape[1:]
        for field, kernel, (row, column) in zip(fields, kernels, positions, strict=True):
            field[row : row + kernel_height, column : column + kernel_width] = kernel
        return fields

    def rates(self, images: Any) -> np.ndarray:
        """The noise-free responses to `images` (n_images, 1, height, width): (n_images, n_neurons), float32.

        One matrix product with the whole receptive fields is faster than cutting out every neuron's window.
        Images on disk are read in chunks. Raises `InputError` for images of another size.
        """
        if tuple(images.shape[1:]) != (1, *self.image_size):
            raise InputError(
                f"images has shape {tuple(images.shape)}: expected (n_images, 1, {self.image_size[0]},"
                f" {self.image_size[1]}), the size that the population was made for."
            )
        rates = np.empty((images.shape[0], self.n_neurons), np.float32)
        for first in range(0, self.n_neurons, NEURONS_AT_ONCE):
            neurons = slice(first, first + NEURONS_AT_ONCE)
            fields = self.receptive_fields(neurons)
            fields = fields.reshape(len(fields), -1)  # (n_neurons, height * width)
            for chunk in row_chunks(images):
                pixels = np.asarray(images[chunk], np.float32)
                rates[chunk, neurons] = pixels.reshape(len(pixels), -1) @ fields.T
        return rates

    def rescaled(self, images: Any, mean_rate: float) -> "LinearPopulation":
        """The same neurons, each scaled such that its mean |r| over these `images` is `mean_rate`.

        For stimuli other than white noise. Raises `InputError` for neurons that never respond.
        """
        check_positive("mean_rate", mean_rate)
        means = np.abs(self.rates(images)).mean(axis=0, dtype=np.float64)
        silent = np.flatnonzero(means == 0)
        if len(silent):
            raise InputError(
                f"the rate is 0 for all images in neuron {some_of(silent)}: no scale gives it another. Leave it out."
            )
        return replace(self, kernels=self.kernels * (mean_rate / means)[:, None, None])


def simulate_population(
    n_neurons: int = 1000,
    *,
    size_factors: tuple[float, ...] = (0.6, 1.0),
    image_size: tuple[int, int] = (48, 48),
    kernel_size: int = 17,
    variation: float = 0.05,
    mean_rate: float = 0.1,
    seed: Seed = 0,
) -> LinearPopulation:
    """On-centre, off-surround neurons of some types at random places, all inside the image.

    - `size_factors`: one type each; type t has variances of size_factors[t] times 2 and 8 pixels squared.
      Neuron n is of type n modulo the number of types
    - `variation`: within a type, the variances of centre and surround, the aspect ratio and the weight of the
      surround are each multiplied by a number drawn from U(1 - variation, 1 + variation), and the Gaussians
      tilted by a correlation from U(-6, 6) variation (at most 0.9)
    - `mean_rate`: the expectation of |r| under white noise, sqrt(2 / pi) |k|_2, is this for every neuron. It
      is set by the kernel's norm, not by a sample of stimuli, so the population is the same whatever it is
      shown

    The first neurons stay the same when `n_neurons` grows. `size_factors=(1.0,), variation=0` is Figure 3,
    the default Figure 4. Raises `OptionError` for a size, rate or variation out of range.
    Source: Klindt et al. 2017, sections 4.4 and 4.5; the variation after their published code.

    >>> population = simulate_population(10, image_size=(36, 48), seed=1)
    >>> population.kernels.shape, population.types
    ((10, 17, 17), array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1]))
    """
    for name, value in (("n_neurons", n_neurons), ("height", image_size[0]), ("width", image_size[1])):
        check_count(name, value)
    check_positive("mean_rate", mean_rate)
    if not len(size_factors):
        raise OptionError("size_factors is empty: expected one factor per type, for example (0.6, 1.0).")
    if not 0 <= variation < 1:
        raise OptionError(f"variation must be at least 0 and below 1, got {variation}.")
    room = np.subtract(image_size, kernel_size) + 1
    if (room < 1).any():
        raise OptionError(
            f"kernel_size (={kernel_size}) does not fit in image_size (={image_size}): choose larger images."
        )
    types = np.arange(n_neurons) % len(size_factors)
    positions = np.random.default_rng(stream(seed, 0)).integers(0, room, (n_neurons, 2))
    spread = np.random.default_rng(stream(seed, 1)).uniform(-1, 1, (n_neurons, 5))
    kernels = np.stack(
        [_kernel(kernel_size, size_factors[t], variation, row) for t, row in zip(types, spread, strict=True)]
    )
    norms = np.sqrt((kernels**2).sum(axis=(1, 2), keepdims=True))
    return LinearPopulation(kernels * (mean_rate / (np.sqrt(2 / np.pi) * norms)), positions, types, image_size)


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
