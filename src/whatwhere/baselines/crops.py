"""The window of the image that each neuron sees, and where it lies."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from whatwhere.checks import some_of
from whatwhere.errors import InputError
from whatwhere.initialisation import decorrelation, filtered, smoothed_energy, spike_triggered_averages
from whatwhere.recording import Recording

LOCATIONS = ("average", "metadata")
_NUMBERS = 2**23  # of spike-triggered averages held at once


@dataclass(frozen=True, eq=False)
class Crops:
    """A window of the same size for every neuron, wholly inside the image; the whole image is one, too.

    - `size` (height, width) of a window, `image_size` (height, width), pixels
    - `positions` (n_neurons, 2), int: row and column in the image of each window's first (top left) pixel

    Raises `InputError` where a window reaches out of the image.

    >>> crops = Crops.around(np.array([[0.0, 5.0], [3.0, 4.0], [3.0, 4.0]]), (3, 3), (6, 9))
    >>> crops.positions.tolist()  # the first neuron looks at the border: its window is shifted inside
    [[0, 4], [2, 3], [2, 3]]
    >>> [(window, neurons.tolist()) for window, neurons in crops.groups()]
    [((0, 4), [0]), ((2, 3), [1, 2])]
    """

    size: tuple[int, int]
    positions: np.ndarray
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        positions = self.positions
        if positions.ndim != 2 or positions.shape[1] != 2 or positions.dtype.kind not in "iu":
            raise InputError(
                f"positions has shape {positions.shape} and dtype {positions.dtype}: expected two integers per neuron,"
                " row and column of the window's first pixel."
            )
        outside = ((positions < 0) | (positions + self.size > self.image_size)).any(axis=1)
        if outside.any():
            raise InputError(
                f"windows of {self.size[0]} x {self.size[1]} pixels reach out of images of {self.image_size[0]} x"
                f" {self.image_size[1]} for neuron {some_of(np.flatnonzero(outside))}: shift them inside."
            )

    @classmethod
    def whole(cls, image_size: tuple[int, int], n_neurons: int) -> "Crops":
        """The whole image for every neuron."""
        return cls(image_size, np.zeros((n_neurons, 2), np.int64), image_size)

    @classmethod
    def around(cls, locations: np.ndarray, size: tuple[int, int], image_size: tuple[int, int]) -> "Crops":
        """Windows centred on `locations` (n_neurons, 2: row, column in pixels), shifted inside where they reach out."""
        first = np.floor(locations - (np.array(size) - 1) / 2 + 0.5).astype(np.int64)
        return cls(size, np.clip(first, 0, np.subtract(image_size, size)), image_size)

    @property
    def is_whole(self) -> bool:
        """Whether every window is the whole image."""
        return self.size == self.image_size

    def groups(self) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """Each distinct window's first pixel, with the neurons that see it (ascending)."""
        windows, index = np.unique(self.positions, axis=0, return_inverse=True)
        order = np.argsort(index.reshape(-1), kind="stable")
        members = np.split(order, np.cumsum(np.bincount(index.reshape(-1)))[:-1])
        yield from zip(map(tuple, windows.tolist()), members, strict=True)

    def cut(self, images: np.ndarray, window: tuple[int, int]) -> np.ndarray:
        """The pixels of one window: (n_images, n_channels * height * width), float64."""
        (row, column), (height, width) = window, self.size
        return images[:, :, row : row + height, column : column + width].reshape(len(images), -1).astype(np.float64)

    def spread(self, filters: np.ndarray, neurons: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Filters (n_neurons, n_channels, height, width) of these neurons in their places, zeros around them."""
        filters = filters[neurons]
        if self.is_whole:
            return filters
        whole = np.zeros((*filters.shape[:2], *self.image_size), filters.dtype)
        height, width = self.size
        for out, one, (row, column) in zip(whole, filters, self.positions[neurons], strict=True):
            out[:, row : row + height, column : column + width] = one
        return whole


def average_locations(images: np.ndarray, responses: np.ndarray, smoothing: float) -> np.ndarray:
    """Row and column of the peak of each neuron's squared and smoothed average: (n_neurons, 2), float64.

    The spike-triggered average, without what the images merely have in common (`initialisation.decorrelation`).

    images: (n_images, n_channels, height, width), responses: (n_images, n_neurons), both float32; smoothing: standard
    deviation of the Gaussian, pixels. See `initialisation.smoothed_energy`.
    """
    most = max(1, _NUMBERS // images[0].size)
    shown = torch.from_numpy(images)
    whitening = decorrelation(shown)
    found = [np.zeros((0, 2))]
    for start in range(0, responses.shape[1], most):
        some = torch.from_numpy(np.ascontiguousarray(responses[:, start : start + most]))
        energy = smoothed_energy(filtered(spike_triggered_averages(shown, some), whitening), smoothing)
        peaks = np.unravel_index(energy.reshape(len(energy), -1).argmax(1), energy.shape[1:])
        found.append(np.stack(peaks, axis=1).astype(np.float64))
    return np.concatenate(found)


def metadata_locations(recording: Recording) -> np.ndarray:
    """The columns `row` and `column` of the neurons' table, (n_neurons, 2), in pixels of the image.

    Raises `InputError` where a column is missing or a location is not finite or outside the image.
    """
    missing = [name for name in ("row", "column") if name not in recording.neurons.columns]
    if missing:
        raise InputError(
            f"locations='metadata' needs the columns 'row' and 'column' in the neurons' table, but"
            f" {' and '.join(map(repr, missing))} {'is' if len(missing) == 1 else 'are'} missing: add them, in pixels,"
            " or use locations='average'."
        )
    try:
        locations = recording.neurons[["row", "column"]].to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the columns 'row' and 'column' of the neurons' table are no numbers: {error}.") from None
    size = np.array(recording.image_shape[1:])
    inside = ((locations >= -0.5) & (locations <= size - 0.5)).all(axis=1)
    if not inside.all():
        first = np.flatnonzero(~inside)[0]
        raise InputError(
            f"{np.sum(~inside):,} of {len(inside):,} neurons have a location outside the images of {size[0]} x"
            f" {size[1]} pixels, neuron {recording.neurons.index[first]} row {locations[first, 0]:g}, column"
            f" {locations[first, 1]:g}: expected pixels, the first one's centre at 0. Mend the columns, or use"
            " locations='average'."
        )
    return locations
