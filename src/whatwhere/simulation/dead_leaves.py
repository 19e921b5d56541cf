"""Dead leaves: images of discs that lie on top of each other, the simplest model of occlusion."""

from dataclasses import dataclass

import numpy as np

from whatwhere.errors import OptionError
from whatwhere.simulation.counts import check_number

LEAVES_AT_ONCE = 128  # drawn: about a third of what covers 48 x 48 pixels with the default radii
LEAVES_LAID = 16  # laid together: those in front leave few pixels bare for those behind
MOST_EXPONENT = 20.0  # beyond, the areas of discs overflow
DEPTH = np.sqrt(3.0)  # values from U(-DEPTH, DEPTH) have variance 1


@dataclass(frozen=True)
class DeadLeaves:
    """Occluding discs: radii of density r^-exponent, places uniform, each disc of one value (one colour).

    Discs are laid from the front to the back until every pixel is covered, which samples the stationary distribution
    exactly, also at the image's edges. A disc's value is drawn from U(-sqrt(3), sqrt(3)) for each channel, so every
    pixel has mean 0 and variance 1, and two pixels d apart have covariance g(d) / (2 g(0) - g(d)), the probability
    that one disc shows in both; g(d) is the mean area that a disc shares with itself moved by d.

    - radii in pixels. With an exponent of 3 the images look alike at all scales between the two radii.

    Raises `OptionError` for radii out of order or not above 0, or an exponent not within -20 and 20. Source: Lee,
    Mumford & Huang 2001, Occlusion models for natural images; from front to back: Kendall & Thoennes 1999, Perfect
    simulation in stochastic geometry.
    """

    smallest_radius: float = 2.0
    largest_radius: float = 24.0
    exponent: float = 3.0

    def __post_init__(self) -> None:
        check_number("exponent", self.exponent, least=-MOST_EXPONENT, most=MOST_EXPONENT)
        check_number("smallest_radius", self.smallest_radius, above=0)
        check_number("largest_radius", self.largest_radius)
        if not self.smallest_radius < self.largest_radius:
            raise OptionError(
                f"largest_radius (={self.largest_radius}) must be above smallest_radius (={self.smallest_radius})."
            )

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
        """One image (n_channels, height, width), float32."""
        n_channels, height, width = shape
        last = np.array([[height - 1], [width - 1]])  # of the rows and of the columns
        values = np.empty((n_channels, height * width), np.float32)
        bare = np.arange(height * width)  # pixels that no disc covers yet
        while len(bare):
            radii = self._radii(rng, height - 1, width - 1)  # (n_leaves,)
            centres = rng.random((2, LEAVES_AT_ONCE)) * (last + 2 * radii) - radii
            colours = rng.uniform(-DEPTH, DEPTH, (n_channels, LEAVES_AT_ONCE))
            for first in range(0, LEAVES_AT_ONCE, LEAVES_LAID):
                laid = slice(first, first + LEAVES_LAID)
                rows, columns = np.divmod(bare[:, None], width)
                squares = (rows - centres[0, laid]) ** 2 + (columns - centres[1, laid]) ** 2
                covered = squares <= radii[laid] ** 2  # (n_bare, n_leaves)
                hit = covered.any(axis=1)
                values[:, bare[hit]] = colours[:, first + covered[hit].argmax(axis=1)]  # the first is in front
                bare = bare[~hit]
        return values.reshape(shape)

    def _radii(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Radii of discs that can reach the image.

        Those of radius r have their centres within (height + 2 r) (width + 2 r), and larger discs reach it more often:
        r^-exponent times that area is a mixture of three power laws.
        """
        powers = -self.exponent + np.arange(3)
        areas = np.array([height * width, 2 * (height + width), 4.0])
        lowest, highest = np.log(self.smallest_radius), np.log(self.largest_radius)
        weights = areas * [_power_law_mass(power, lowest, highest) for power in powers]
        power = powers[rng.choice(3, LEAVES_AT_ONCE, p=weights / weights.sum())]
        return _power_law_quantile(power, lowest, highest, rng.random(LEAVES_AT_ONCE))


def _power_law_mass(power: float, lowest: float, highest: float) -> float:
    """The integral of r^power between two radii, given by their logarithms."""
    if np.isclose(power, -1):
        return highest - lowest
    return float((np.exp((power + 1) * highest) - np.exp((power + 1) * lowest)) / (power + 1))


def _power_law_quantile(power: np.ndarray, lowest: float, highest: float, share: np.ndarray) -> np.ndarray:
    """The radius below which this share of the mass of r^power lies."""
    flat = np.isclose(power, -1)
    order = np.where(flat, 1.0, power + 1)
    low, high = np.exp(order * lowest), np.exp(order * highest)
    steep = np.log(low + share * (high - low)) / order
    return np.exp(np.where(flat, lowest + share * (highest - lowest), steep))
