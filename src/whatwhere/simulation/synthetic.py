"""Synthetic stimuli: white noise, checkerboards, pink noise. Each draws one image from a random stream."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from whatwhere.errors import OptionError
from whatwhere.rows import frozen
from whatwhere.simulation.counts import check_count, check_number


@dataclass(frozen=True)
class WhiteNoise:
    """Gaussian white noise: every pixel of every channel is drawn from N(0, 1), independently.

    Source: Klindt et al. 2017, section 4.4.
    """

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
        """One image (n_channels, height, width), float32."""
        return rng.standard_normal(shape, np.float32)


@dataclass(frozen=True)
class Checkerboard:
    """Binary white noise on blocks: each square of `block_size` x `block_size` pixels is -1 or 1, evenly and alone.

    So the mean is 0, the variance 1, and two pixels have covariance 1 in one block and 0 in two. Blocks begin at the
    first pixel; the last ones are cut where the image ends. Channels are independent.
    Raises `OptionError` for a block size that is not a whole number above 0.
    """

    block_size: int = 4

    def __post_init__(self) -> None:
        check_count("block_size", self.block_size)

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
        """One image (n_channels, height, width), float32."""
        n_channels, height, width = shape
        rows, columns = np.arange(height) // self.block_size, np.arange(width) // self.block_size
        blocks = rng.integers(0, 2, (n_channels, rows[-1] + 1, columns[-1] + 1))
        return (2 * blocks - 1).astype(np.float32)[:, rows[:, None], columns]


@dataclass(frozen=True)
class PinkNoise:
    """Gaussian noise whose amplitude spectrum falls as 1 / f^exponent, as those of natural images do for 1.

    f = sqrt(f_row^2 + f_column^2), cycles per pixel, so the spectrum is isotropic on images that are not square too.
    The mean of every image is 0, the expected variance of every pixel 1. Images are periodic: opposite edges match.
    Channels are independent. Raises `OptionError` for a negative exponent or an image of one pixel.
    Source: Field 1987, Relations between the statistics of natural images and the response properties of cortical
    cells.
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        check_number("exponent", self.exponent, least=0)

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
        """One image (n_channels, height, width), float32."""
        spectrum = np.fft.rfft2(rng.standard_normal(shape))
        spectrum *= _amplitudes(*shape[1:], self.exponent)
        return np.fft.irfft2(spectrum, shape[1:]).astype(np.float32)


@lru_cache(maxsize=8)
def _amplitudes(height: int, width: int, exponent: float) -> np.ndarray:
    """1 / f^exponent, 0 at f = 0, mean square 1 over all frequencies: (height, width // 2 + 1)."""
    if height * width < 2:
        raise OptionError("pink noise of one pixel has no frequency above 0: choose larger images.")
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))  # cycles per pixel
    frequency[0, 0] = np.inf
    relative = frequency.min() / frequency  # at most 1, so that no exponent makes it overflow
    amplitudes = relative**exponent if exponent else np.isfinite(frequency).astype(float)
    return frozen((amplitudes / np.sqrt((amplitudes**2).mean()))[:, : width // 2 + 1])
