"""Stimuli by name: endless sequences of images, of which any stretch can be made by itself."""

from typing import Any, Protocol

import numpy as np

from whatwhere.simulation.counts import check_count, check_size
from whatwhere.simulation.dead_leaves import DeadLeaves
from whatwhere.simulation.photographs import Photographs
from whatwhere.simulation.registry import make, resolve
from whatwhere.simulation.seeds import Seed, stream
from whatwhere.simulation.synthetic import Checkerboard, PinkNoise, WhiteNoise


class Stimulus(Protocol):
    """Draws images from random streams."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
        """One image (n_channels, height, width), float32; all that is random in it comes from `rng`."""


STIMULI: dict[str, type[Stimulus]] = {
    "white-noise": WhiteNoise,
    "checkerboard": Checkerboard,
    "pink-noise": PinkNoise,
    "dead-leaves": DeadLeaves,
    "photographs": Photographs,
}


def make_stimulus(name: str, **options: Any) -> Stimulus:
    """The stimulus of that name; raises `OptionError` for a name or option that is not known, naming the nearest.

    >>> make_stimulus("checkerboard", block_size=3)
    Checkerboard(block_size=3)
    """
    return make("stimulus", name, STIMULI, options)


def make_stimuli(
    stimulus: str | Stimulus,
    n_images: int,
    image_size: tuple[int, int],
    *,
    n_channels: int = 1,
    seed: Seed = 0,
    first: int = 0,
) -> np.ndarray:
    """Images `first` to `first + n_images` of a sequence: (n_images, n_channels, height, width), float32.

    - `stimulus`: one of `STIMULI`, or its name
    - `image_size` (height, width), pixels

    Each image has a random stream of its own, so that the same image comes out in chunks of any size and from
    longer or shorter sequences. Raises `OptionError` for unknown names and sizes below 1.

    >>> images = make_stimuli("pink-noise", 5, (4, 6), n_channels=3, seed=1)
    >>> images.shape, bool((make_stimuli("pink-noise", 2, (4, 6), n_channels=3, seed=1, first=3) == images[3:]).all())
    ((5, 3, 4, 6), True)
    """
    stimulus = resolve("stimulus", stimulus, STIMULI)
    height, width = check_size("image_size", image_size)
    check_count("n_images", n_images)
    check_count("n_channels", n_channels)
    check_count("first", first, least=0)
    images = np.empty((n_images, n_channels, height, width), np.float32)
    for number, image in enumerate(images, start=first):
        image[:] = stimulus.draw(np.random.default_rng(stream(seed, number)), image.shape)
    return images


def white_noise(
    n_images: int, image_size: tuple[int, int], *, n_channels: int = 1, seed: Seed = 0, first: int = 0
) -> np.ndarray:
    """Gaussian white noise as by `make_stimuli`: every pixel of every image is drawn from N(0, 1), independently.

    >>> white_noise(5, (4, 6)).shape
    (5, 1, 4, 6)
    """
    return make_stimuli(WhiteNoise(), n_images, image_size, n_channels=n_channels, seed=seed, first=first)


def training_and_test(stimulus: Stimulus, image_size: tuple[int, int], seed: Seed) -> tuple[Stimulus, Stimulus]:
    """What training images and test images are drawn from: disjoint photographs, or twice the same stimulus."""
    return stimulus.split(seed, image_size) if isinstance(stimulus, Photographs) else (stimulus, stimulus)
