"""Stimuli by name: endless sequences of images, of which any stretch can be made by itself."""

from typing import Protocol

import numpy as np

from whatwhere.checks import check_choice
from whatwhere.errors import OptionError
from whatwhere.simulation.seeds import Seed, stream


class Stimulus(Protocol):
    """Makes images of a sequence, `first` to `first + n_images`: (n_images, n_channels, height, width)."""

    def __call__(self, n_images: int, image_size: tuple[int, int], *, seed: Seed = 0, first: int = 0) -> np.ndarray: ...


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raises `OptionError` unless `value` is a whole number of at least `least`."""
    if int(value) != value or value < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, got {value}.")


def white_noise(n_images: int, image_size: tuple[int, int], *, seed: Seed = 0, first: int = 0) -> np.ndarray:
    """Gaussian white noise: every pixel of every image is drawn from N(0, 1), independently.

    - `image_size` (height, width), pixels
    - returns (n_images, 1, height, width), float32

    Each image has a random stream of its own, so that the same image comes out in chunks of any size and from
    longer or shorter sequences. Raises `OptionError` for sizes below 1. Source: Klindt et al. 2017, section
    4.4.

    >>> images = white_noise(5, (4, 6), seed=1)
    >>> images.shape, bool((white_noise(2, (4, 6), seed=1, first=3) == images[3:]).all())
    ((5, 1, 4, 6), True)
    """
    height, width = image_size
    for name, value, least in (
        ("n_images", n_images, 1),
        ("height", height, 1),
        ("width", width, 1),
        ("first", first, 0),
    ):
        check_count(name, value, least)
    images = np.empty((n_images, 1, height, width), np.float32)
    for number, image in enumerate(images, start=first):
        np.random.default_rng(stream(seed, number)).standard_normal(dtype=np.float32, out=image)
    return images


STIMULI: dict[str, Stimulus] = {"white-noise": white_noise}


def make_stimuli(
    name: str, n_images: int, image_size: tuple[int, int], *, seed: Seed = 0, first: int = 0
) -> np.ndarray:
    """Images of the stimulus of that name; raises `OptionError` naming the known ones."""
    return STIMULI[check_choice("stimulus", name, STIMULI)](n_images, image_size, seed=seed, first=first)
