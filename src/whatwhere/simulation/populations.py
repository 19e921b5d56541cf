"""Ground-truth populations: neurons whose kernel, location and type are known."""

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import numpy as np

from whatwhere.checks import check_choice, check_finite, check_ndim, check_same_rows, some_of
from whatwhere.errors import InputError
from whatwhere.recording_parts import check_image_rows
from whatwhere.rows import frozen, is_lazy
from whatwhere.simulation.counts import check_number, check_size

NUMBERS_AT_ONCE = 2**22  # of images, and of whole receptive fields: 32 MiB each as float64
NONLINEARITIES = ("identity", "relu")


class Population(Protocol):
    """What a simulation needs of neurons, whatever they compute."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images that models are shown."""

    @property
    def field_size(self) -> tuple[int, int]:
        """(height, width) of the images that they see; those shown are its first rows and columns, or all of it."""

    @property
    def n_channels(self) -> int:
        """Number of colour channels of the images that they look at."""

    @property
    def locations(self) -> np.ndarray:
        """(n_neurons, 2): row and column of each receptive field's centre, in pixels of the image."""

    @property
    def types(self) -> np.ndarray:
        """(n_neurons,), int: each neuron's type."""

    @property
    def kernels(self) -> np.ndarray | None:
        """The linear filters, (n_neurons, kh, kw) or (n_neurons, n_channels, kh, kw); None where there are none."""

    @property
    def quadrature(self) -> np.ndarray | None:
        """The second filters of neurons with two, in the shape of `kernels`; None where no neuron has one."""

    @property
    def cortex(self) -> np.ndarray | None:
        """(n_neurons, 2): positions in the tissue, micrometres; None where they have none."""

    def rates(self, images: Any) -> np.ndarray:
        """The noise-free responses (n_images, n_neurons), float32."""

    def rescaled(self, images: Any, mean_rate: float) -> "Population":
        """The same neurons, scaled such that each one's mean |r| over these images is `mean_rate`."""


@dataclass(frozen=True, eq=False)
class LinearPopulation:
    """Neurons with one linear kernel: r_n = f(sum_cij k_ncij x_c(i + row_n)(j + column_n)), equation 1.

    - `kernels` (n_neurons, kh, kw), or (n_neurons, n_channels, kh, kw) for several colour channels; the rate is a
      correlation with them, they are not flipped
    - `positions` (n_neurons, 2), int: row and column in the image of each kernel's first (top left) pixel
    - `types` (n_neurons,), int
    - `image_size` (height, width), pixels
    - `nonlinearity` f: "identity", or "relu" for rates that are never negative
    - `cortex` None or (n_neurons, 2): positions in the tissue, micrometres

    Raises `InputError` where shapes do not fit, a kernel is not finite or does not lie wholly inside the image,
    `OptionError` for an unknown nonlinearity.
    """

    kernels: np.ndarray
    positions: np.ndarray
    types: np.ndarray
    image_size: tuple[int, int]
    nonlinearity: str = "identity"
    cortex: np.ndarray | None = None

    def __post_init__(self) -> None:
        kernels = np.array(self.kernels, np.float64)
        positions, types = np.array(self.positions), np.array(self.types)
        if kernels.ndim != 3:
            check_ndim("kernels", kernels, ("n_neurons", "n_channels", "kernel height", "kernel width"))
        if not kernels.size:
            raise InputError(f"kernels is empty, shape {kernels.shape}: expected at least one neuron of one pixel.")
        check_finite("kernels", kernels, row="neuron")
        check_size("image_size", self.image_size)
        check_ndim("positions", positions, ("n_neurons", "row and column"))
        check_ndim("types", types, ("n_neurons",))
        check_same_rows("positions", len(positions), "kernels", len(kernels), each="neuron")
        check_same_rows("types", len(types), "kernels", len(kernels), each="neuron")
        check_choice("nonlinearity", self.nonlinearity, NONLINEARITIES)
        if positions.shape[1] != 2 or positions.dtype.kind not in "iu":
            raise InputError(
                f"positions has shape {positions.shape} and dtype {positions.dtype}: expected two integers"
                " per neuron, row and column of the kernel's first pixel."
            )
        last = positions + kernels.shape[-2:]
        outside = np.flatnonzero(((positions < 0) | (last > self.image_size)).any(axis=1))
        if len(outside):
            raise InputError(
                f"kernels of {kernels.shape[-2]} x {kernels.shape[-1]} pixels reach out of the image of"
                f" {self.image_size[0]} x {self.image_size[1]} for neuron {some_of(outside)}:"
                " place them inside."
            )
        cortex = None if self.cortex is None else np.array(self.cortex, np.float64)
        if cortex is not None and cortex.shape != positions.shape:
            raise InputError(f"cortex has shape {cortex.shape}: expected {positions.shape}, a row and a column each.")
        for name, value in (("kernels", kernels), ("positions", positions), ("types", types), ("cortex", cortex)):
            object.__setattr__(self, name, None if value is None else frozen(value))

    @property
    def quadrature(self) -> None:
        """None: one filter a neuron."""

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return len(self.kernels)

    @property
    def field_size(self) -> tuple[int, int]:
        """That of the images shown."""
        return self.image_size

    @property
    def n_channels(self) -> int:
        """Number of colour channels of the images."""
        return self.kernels.shape[1] if self.kernels.ndim == 4 else 1

    @property
    def locations(self) -> np.ndarray:
        """Row and column of each kernel's middle, (n_neurons, 2), in pixels.

        Whole numbers are the centres of pixels, as in `core.map_offset`: the middle of k pixels lies
        (k - 1) / 2 after the first.
        """
        return self.positions + (np.array(self.kernels.shape[-2:]) - 1) / 2

    def receptive_fields(self, neurons: slice = slice(None)) -> np.ndarray:
        """Each kernel in its place, zeros around it: (n_neurons, [n_channels,] height, width), float64."""
        kernels, positions = self.kernels[neurons], self.positions[neurons]
        fields = np.zeros((*kernels.shape[:-2], *self.image_size))
        kernel_height, kernel_width = kernels.shape[-2:]
        for field, kernel, (row, column) in zip(fields, kernels, positions, strict=True):
            field[..., row : row + kernel_height, column : column + kernel_width] = kernel
        return fields

    def rates(self, images: Any) -> np.ndarray:
        """The noise-free responses to `images` (n_images, n_channels, height, width): (n_images, n_neurons), float32.

        One matrix product with the whole receptive fields is faster than cutting out every neuron's window. It is in
        double precision, so that a rate is the same whatever images and neurons are computed with it. Images on disk
        are read in chunks, each once. Raises `InputError` for images of another size, or that are not finite.
        """
        if not is_lazy(images):
            images = np.asarray(images)
        if tuple(images.shape[1:]) != (self.n_channels, *self.image_size):
            raise InputError(
                f"images has shape {tuple(images.shape)}: expected (n_images, {self.n_channels}, {self.image_size[0]},"
                f" {self.image_size[1]}), the size that the population was made for."
            )
        rates = np.empty((images.shape[0], self.n_neurons), np.float32)
        at_once = max(1, NUMBERS_AT_ONCE // prod(images.shape[1:]))
        for first_image in range(0, len(rates), at_once):
            chunk = slice(first_image, first_image + at_once)
            shown = np.asarray(images[chunk])
            check_image_rows("images", shown, range(first_image, first_image + len(shown)))
            self._multiply(shown, at_once, rates[chunk])
        return np.maximum(rates, 0, out=rates) if self.nonlinearity == "relu" else rates

    def _multiply(self, images: np.ndarray, at_once: int, rates: np.ndarray) -> None:
        """Images times receptive fields, of so many neurons at once, into `rates` (n_images, n_neurons)."""
        pixels = images.reshape(len(images), -1).astype(np.float64)  # (n_images, n_channels * height * width)
        for first in range(0, self.n_neurons, at_once):
            neurons = slice(first, first + at_once)
            rates[:, neurons] = pixels @ self.receptive_fields(neurons).reshape(-1, pixels.shape[1]).T

    def scaled(self, factors: np.ndarray) -> "LinearPopulation":
        """The same neurons with each kernel multiplied by its factor (n_neurons,)."""
        return replace(self, kernels=self.kernels * np.reshape(factors, (-1,) + (1,) * (self.kernels.ndim - 1)))

    def rescaled(self, images: Any, mean_rate: float) -> "LinearPopulation":
        """The same neurons, each scaled such that its mean |r| over these `images` is `mean_rate`.

        For stimuli other than white noise. Raises `InputError` for neurons that never respond.
        """
        return self.scaled(gains_to(mean_rate, self.rates(images)))


def gains_to(mean_rate: float, rates: np.ndarray) -> np.ndarray:
    """What each neuron's rates (n_images, n_neurons) are multiplied by to have a mean |r| of `mean_rate`: (n_neurons,).

    Raises `InputError` for neurons that never respond, `OptionError` for a rate that is not above 0.
    """
    check_number("mean_rate", mean_rate, above=0)
    means = np.abs(rates).mean(axis=0, dtype=np.float64)
    silent = np.flatnonzero(means == 0)
    if len(silent):
        raise InputError(
            f"the rate is 0 for all images in neuron {some_of(silent)}: no scale gives it another. Leave it out."
        )
    return mean_rate / means
