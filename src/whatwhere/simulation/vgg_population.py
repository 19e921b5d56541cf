"""Nonlinear neurons: units of VGG-19, each feature map a type (Klindt et al. 2017, section 5.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whatwhere.checks import check_choice, check_same_rows
from whatwhere.errors import InputError, OptionError
from whatwhere.recording_parts import check_image_rows
from whatwhere.rows import frozen, is_lazy
from whatwhere.simulation.counts import check_count, check_size
from whatwhere.simulation.populations import gains_to
from whatwhere.simulation.positions import POSITIONS, Positions
from whatwhere.simulation.registry import resolve
from whatwhere.simulation.seeds import Seed, stream
from whatwhere.simulation.vgg import LAYERS, VGG, load_vgg, reach

PLACES, MAPS = 0, 1  # random streams below the seed
NUMBERS_AT_ONCE = 2**22  # of one layer's maps


@dataclass(frozen=True, eq=False)
class VGGPopulation:
    """Units of one layer: r_n = gain_n max(0, unit of map `maps[types[n]]` at `positions[n]`).

    - `positions` (n_neurons, 2), int: row and column in the layer's map, which is evaluated at every pixel
    - `types` (n_neurons,), int: index into `maps`, the feature maps chosen
    - `image_size` (height, width) of the images as models are shown them; `beyond`: rows and columns that the neurons
      see below and to the right of that
    - `gains` (n_neurons,)

    Raises `InputError` where shapes do not fit or a position lies outside the map.
    """

    network: VGG
    layer: str
    maps: tuple[int, ...]
    types: np.ndarray
    positions: np.ndarray
    gains: np.ndarray
    image_size: tuple[int, int]
    beyond: int = 1
    cortex: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_choice("layer", self.layer, LAYERS)
        size = self.map_size
        if min(size) < 1:
            raise InputError(
                f"image_size (={self.image_size}) is too small: {self.layer} sees {reach(self.layer) + 1} pixels."
            )
        check_same_rows("positions", len(self.positions), "types", len(self.types), each="neuron")
        check_same_rows("gains", len(self.gains), "types", len(self.types), each="neuron")
        outside = ((self.positions < 0) | (self.positions >= size)).any(axis=1)
        if outside.any():
            raise InputError(f"{outside.sum():,} positions lie outside the map of {size[0]} x {size[1]} pixels.")
        for name in ("types", "positions", "gains"):
            object.__setattr__(self, name, frozen(np.array(getattr(self, name))))

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return len(self.types)

    @property
    def n_channels(self) -> int:
        """Red, green and blue."""
        return 3

    @property
    def field_size(self) -> tuple[int, int]:
        """(height, width) of the images that the neurons see."""
        return self.image_size[0] + self.beyond, self.image_size[1] + self.beyond

    @property
    def map_size(self) -> tuple[int, int]:
        """(height, width) of the layer's maps: 32 x 32 for conv2_2 and images of 44 x 44."""
        return self.field_size[0] - reach(self.layer), self.field_size[1] - reach(self.layer)

    @property
    def locations(self) -> np.ndarray:
        """Row and column of the middle of what each unit sees, (n_neurons, 2), in pixels."""
        return self.positions + reach(self.layer) / 2

    @property
    def kernels(self) -> None:
        """None: no linear filter tells what a unit computes."""

    @property
    def quadrature(self) -> None:
        """None."""

    @torch.no_grad()
    def rates(self, images: Any) -> np.ndarray:
        """The noise-free responses to images (n_images, 3, *field_size) between -1 and 1: (n_images, n_neurons).

        float32, never negative. Images on disk are read in chunks, each once. Raises `InputError` for images of another
        size, or that are not finite.
        """
        if not is_lazy(images):
            images = np.asarray(images)
        if tuple(images.shape[1:]) != (3, *self.field_size):
            raise InputError(
                f"images has shape {tuple(images.shape)}: expected (n_images, 3, {self.field_size[0]},"
                f" {self.field_size[1]}), in colour and of the size that the population was made for."
            )
        rates = np.empty((images.shape[0], self.n_neurons), np.float32)
        widest = max(n_maps for _, n_maps in LAYERS.values())
        at_once = max(1, NUMBERS_AT_ONCE // (widest * self.field_size[0] * self.field_size[1]))
        at = self.types, *self.positions.T
        for first in range(0, len(rates), at_once):
            shown = np.asarray(images[first : first + at_once])
            check_image_rows("images", shown, range(first, first + len(shown)))
            found = self.network.maps(torch.from_numpy(shown.astype(np.float32)), self.layer, self.maps)
            rates[first : first + len(shown)] = found.numpy()[:, *at]
        rates *= self.gains.astype(np.float32)
        return rates

    def rescaled(self, images: Any, mean_rate: float) -> "VGGPopulation":
        """The same neurons, each scaled such that its mean rate over these `images` is `mean_rate`.

        Raises `InputError` for neurons that never respond.
        """
        return replace(self, gains=self.gains * gains_to(mean_rate, self.rates(images)))


def vgg_population(
    n_neurons: int = 1000,
    *,
    n_types: int = 4,
    maps: Sequence[int] | None = None,
    layer: str = "conv2_2",
    weights: str | Path = "seeded",
    image_size: tuple[int, int] = (44, 44),
    beyond: int = 1,
    n_channels: int = 3,
    positions: str | Positions = "random",
    seed: Seed = 0,
) -> VGGPopulation:
    """Units of VGG-19 at places of one layer's maps; neuron n is of type n modulo the number of types.

    - `maps`: the feature maps that are the types; None: `n_types` of the layer's, drawn with the seed
    - `layer`: one of conv1_1, conv1_2, conv2_1, conv2_2 (the paper's), conv3_1
    - `weights`: "seeded" (a stand-in), "hub", or a file, see `load_vgg`
    - `image_size`: what a model is shown; `beyond`: rows and columns more that the neurons see. 44 and 1 give the
      paper's 32 x 32 places of conv2_2
    - `positions`: "random", "grid" or "retinotopic", or an arrangement with options of its own
    - `n_channels`: 3, for the network sees colour

    Scale the rates by `simulate(..., mean_rate=0.1)`: those of the network mean nothing by themselves.
    Raises `OptionError` for options out of range, `FormatError` for weights that cannot be had.

    >>> vgg_population(6, n_types=3, image_size=(20, 24)).map_size
    (8, 12)
    """
    check_count("n_neurons", n_neurons)
    check_choice("layer", layer, LAYERS)
    check_size("image_size", image_size)
    check_count("beyond", beyond, least=0)
    if n_channels != 3:
        raise OptionError(f"n_channels is {n_channels}: units of VGG-19 see 3, red, green and blue.")
    n_maps = LAYERS[layer][1]
    if maps is None:
        check_count("n_types", n_types)
        if n_types > n_maps:
            raise OptionError(f"n_types is {n_types}: {layer} has {n_maps} feature maps.")
        maps = sorted(np.random.default_rng(stream(seed, MAPS)).choice(n_maps, n_types, replace=False).tolist())
    wrong = [number for number in maps if not 0 <= number < n_maps]
    if wrong or not len(maps) or len(set(maps)) < len(maps):
        raise OptionError(f"maps is {list(maps)}: expected different feature maps of {layer}, 0 to {n_maps - 1}.")
    size = tuple(side + beyond - reach(layer) for side in image_size)
    if min(size) < 1:
        raise OptionError(f"image_size is {image_size}: {layer} sees {reach(layer) + 1} pixels, choose larger images.")
    arrangement = resolve("arrangement of positions", positions, POSITIONS)
    places = arrangement.place(n_neurons, (size[0], size[1]), stream(seed, PLACES))
    return VGGPopulation(
        load_vgg(weights),
        layer,
        tuple(maps),
        np.arange(n_neurons) % len(maps),
        places.corners,
        np.ones(n_neurons),
        image_size,
        beyond,
        places.cortex,
    )
