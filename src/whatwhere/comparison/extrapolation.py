"""What more images would give: a power law through a learning curve, with its uncertainty, in numbers and in words."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whatwhere.checks import check_ndim, check_same_rows
from whatwhere.errors import InputError
from whatwhere.metrics.intervals import check_resampling

EXPONENTS = np.linspace(0.01, 2.0, 200)
FEWEST = 3
"""Numbers of images without which nothing is extrapolated: the curve has as many parameters."""
WORTH = 0.01
"""A gain that is worth recording more for; smaller ones are called little."""
MOST_SCORE = 1.0
LEVEL = 0.95
_DRAWN_GRID = 60

Array = NDArray[np.float64]


class PowerLaw(NamedTuple):
    """score(D) = c - a D^-b for D images: arrays (n_curves,)."""

    c: Array
    a: Array
    b: Array

    def at(self, n_images: ArrayLike) -> Array:
        """The scores (n_curves, n_numbers) for these numbers of images (n_numbers,)."""
        numbers = np.atleast_1d(np.asarray(n_images, float))
        return self.c[:, None] - self.a[:, None] * numbers ** -self.b[:, None]


def fit_power_law(n_images: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> PowerLaw:
    """Weighted least squares of c - a D^-b with 0 < b <= 2 and c <= 1, for each curve by itself.

    n_images (n_numbers,), scores (n_curves, n_numbers), weights (n_numbers,) of the squared errors, None for equal
    ones. For a given b the minimum in c and a is in closed form; of 200 values of b, 0.01 to 2, the best is taken, so
    no start is needed and no local minimum taken. a may be negative: a curve may fall. Raises `InputError` for
    fewer than three numbers of images, or arrays that do not fit.

    >>> law = fit_power_law([100, 200, 400, 800], [[0.6 - 2 / n**0.5 for n in (100, 200, 400, 800)]])
    >>> float(law.c[0]), float(law.a[0]), float(law.b[0])
    (0.600, 2.00, 0.50)
    """
    numbers, values = np.asarray(n_images, float), np.asarray(scores, float)
    check_ndim("n_images", numbers, ("n_numbers",))
    check_ndim("scores", values, ("n_curves", "n_numbers"))
    check_same_rows("scores, transposed,", values.shape[1], "n_images", len(numbers), each="number of images")
    if len(np.unique(numbers)) < FEWEST:
        raise InputError(
            f"n_images holds {len(np.unique(numbers))} different numbers: a curve of three parameters needs at least"
            f" {FEWEST}."
        )
    weight = np.ones(len(numbers)) if weights is None else np.asarray(weights, float)
    weight = weight / weight.sum()
    scale = numbers.max()
    best = np.full(len(values), np.inf)
    found = np.zeros((3, len(values)))
    for b in EXPONENTS:
        x = -((numbers / scale) ** -b)
        mean_x, mean_y = weight @ x, values @ weight
        slope = (values - mean_y[:, None]) @ (weight * (x - mean_x)) / (weight @ (x - mean_x) ** 2)
        c = mean_y - slope * mean_x
        bound = c > MOST_SCORE
        slope = np.where(bound, (values - MOST_SCORE) @ (weight * x) / (weight @ x**2), slope)
        c = np.minimum(c, MOST_SCORE)
        error = (values - c[:, None] - slope[:, None] * x) ** 2 @ weight
        better = error < best
        best = np.where(better, error, best)
        found[:, better] = np.array([c, slope * scale**b, np.full(len(c), b)])[:, better]
    return PowerLaw(*found)


@dataclass(frozen=True, eq=False)
class Outlook:
    """What twice the images would give one model.

    n_images, twice: the most that were measured, and their double. gain: the curve at `twice` minus the curve at
    `n_images`, with its interval `low` to `high`; NaN where nothing can be said, for the `reason`. numbers, score,
    score_low, score_high: the curve and its band, for a figure; empty where nothing is extrapolated. c, a, b: of the
    power law.
    """

    model: str
    n_images: int
    gain: float = np.nan
    low: float = np.nan
    high: float = np.nan
    c: float = np.nan
    a: float = np.nan
    b: float = np.nan
    numbers: Array = field(default_factory=lambda: np.empty(0))
    score: Array = field(default_factory=lambda: np.empty(0))
    score_low: Array = field(default_factory=lambda: np.empty(0))
    score_high: Array = field(default_factory=lambda: np.empty(0))
    reason: str = ""

    @property
    def twice(self) -> int:
        """Twice the images."""
        return 2 * self.n_images

    @property
    def predicted(self) -> float:
        """The score at `twice`; NaN where nothing is extrapolated."""
        return float(self.score[-1]) if len(self.score) else np.nan

    def words(self) -> str:
        """What the numbers say.

        >>> Outlook("factorized", 1000, 0.03, 0.01, 0.06).words()
        'twice the images (2,000) would give +0.030 [+0.010, +0.060] for factorized: worth recording more'
        """
        if self.reason:
            return f"{self.model}: {self.reason}"
        gain = f"twice the images ({self.twice:,}) would give {self.gain:+.3f}"
        if np.isnan(self.low):
            return f"{gain} for {self.model}, from one neuron and one seed: how surely, the points do not tell"
        if self.low > 0 and self.gain >= WORTH:
            verdict = "worth recording more"
        elif self.high < WORTH:
            verdict = "little to gain from more"
        else:
            verdict = "the points do not tell whether more are worth recording"
        if self.b >= EXPONENTS[-1]:
            verdict += " (it levels off faster than the power law can: read the interval with care)"
        return f"{gain} [{self.low:+.3f}, {self.high:+.3f}] for {self.model}: {verdict}"


def extrapolate(
    model: str,
    n_images: ArrayLike,
    scores: ArrayLike,
    *,
    level: float = LEVEL,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Outlook:
    """A model's score at twice the images, from the scores of its neurons at three numbers of images or more.

    n_images (n_numbers,), rising; scores (n_seeds, n_numbers, n_neurons): of the same neurons throughout; a neuron
    without a score somewhere is left out. A power law (`fit_power_law`) is fitted to the means over neurons and seeds,
    each weighted by the inverse of its bootstrap variance, and again to each of `n_resamples` draws of neurons, and of
    seeds where there are several: the interval is the middle `level` of these. It answers: other neurons, other seeds;
    not: other images, and not: another law than this. Raises `InputError` for arrays that do not fit.

    >>> neurons = np.linspace(-0.1, 0.1, 30)
    >>> curve = [[0.5 - 1 / n**0.5 + neurons for n in (100, 400, 1600)]]
    >>> extrapolate("ridge", [100, 400, 1600], curve).words()
    'twice the images (3,200) would give +0.007 [+0.007, +0.007] for ridge: little to gain from more'
    """
    check_resampling(level, n_resamples)
    numbers, values = np.asarray(n_images, float), np.asarray(scores, float)
    check_ndim("scores", values, ("n_seeds", "n_numbers", "n_neurons"))
    check_same_rows("scores", values.shape[1], "n_images", len(numbers), each="number of images")
    largest = int(numbers.max())
    values = values[:, :, ~np.isnan(values).any(axis=(0, 1))]
    if len(numbers) < FEWEST:
        return Outlook(
            model, largest, reason=f"{len(numbers)} of the {FEWEST} numbers of images that an extrapolation needs"
        )
    if not values.shape[2]:
        return Outlook(model, largest, reason="no neuron has a score at every number of images: no extrapolation")
    means = _resampled(values, n_resamples, np.random.default_rng(seed))
    spread = means.std(axis=0)
    can_tell = values.shape[0] > 1 or values.shape[2] > 1
    weights = 1 / np.maximum(spread, 1e-3 * spread.max()) ** 2 if spread.max() > 0 else None
    law = fit_power_law(numbers, values.mean(axis=(0, 2))[None], weights)
    laws = fit_power_law(numbers, means, weights)
    grid = np.geomspace(numbers.min(), 2 * largest, _DRAWN_GRID)
    tails = [(1 - level) / 2, (1 + level) / 2]
    band = np.quantile(laws.at(grid), tails, axis=0) if can_tell else np.full((2, len(grid)), np.nan)
    gains = np.diff(laws.at([largest, 2 * largest]))[:, 0]
    low, high = np.quantile(gains, tails) if can_tell else (np.nan, np.nan)
    gain = float(np.diff(law.at([largest, 2 * largest]))[0, 0])
    parameters = (float(law.c[0]), float(law.a[0]), float(law.b[0]))
    return Outlook(model, largest, gain, float(low), float(high), *parameters, grid, law.at(grid)[0], *band)


def _resampled(values: Array, n_resamples: int, rng: np.random.Generator) -> Array:
    """Means over neurons and seeds drawn with replacement, (n_resamples, n_numbers)."""
    n_seeds, n_numbers, n_neurons = values.shape
    means = np.empty((n_resamples, n_numbers))
    for row in range(n_resamples):
        counts = np.bincount(rng.integers(0, n_neurons, n_neurons), minlength=n_neurons)
        seeds = rng.integers(0, n_seeds, n_seeds)
        means[row] = (values @ (counts / n_neurons))[seeds].mean(axis=0)
    return means
