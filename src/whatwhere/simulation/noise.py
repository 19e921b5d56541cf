"""Noise by name: what turns noise-free rates into the responses of one trial, chunk after chunk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from whatwhere.checks import check_finite, check_ndim
from whatwhere.errors import InputError
from whatwhere.simulation.counts import check_number
from whatwhere.simulation.registry import make, resolve
from whatwhere.simulation.seeds import Seed, stream

MOST_COUNTS = 1e18  # of a rate: numpy's Poisson counts are 64-bit integers
Trial: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Rates of the next images (n_images, n_neurons), float32, to responses of that shape; keeps count between calls."""


class Noise(Protocol):
    """What a trial adds to the rates; the same seed gives the same responses, in chunks of any size."""

    needs_counts: ClassVar[bool]  # rates must be 0 or more
    has_memory: ClassVar[bool]  # a response depends on what was shown before

    def trial(self, seed: Seed) -> Trial:
        """One showing of a sequence of images, from its first one on."""


@dataclass(frozen=True)
class PaperNoise:
    """Poisson-like: y = r + sqrt(|r|) z with z ~ N(0, 1), so the variance is |r|, for rates of either sign.

    Source: Klindt et al. 2017, equation 1.
    """

    needs_counts: ClassVar[bool] = False
    has_memory: ClassVar[bool] = False

    def trial(self, seed: Seed) -> Trial:
        """One showing; a single random stream, of which every response takes one number."""
        rng = np.random.default_rng(stream(seed))

        def trial(rates: np.ndarray) -> np.ndarray:
            responses = rng.standard_normal(rates.shape, dtype=np.float32)
            responses *= np.sqrt(np.abs(rates))
            responses += rates
            return responses

        return trial


@dataclass(frozen=True)
class PoissonNoise:
    """Counts: y ~ Poisson(r), independent. Rates below 0 raise `InputError`."""

    needs_counts: ClassVar[bool] = True
    has_memory: ClassVar[bool] = False

    def trial(self, seed: Seed) -> Trial:
        """One showing; each image has a random stream."""
        return _by_image(seed, lambda rates, rng: rng.poisson(rates))


@dataclass(frozen=True)
class GainNoise:
    """Counts with a gain that the population shares: y_bn ~ Poisson(g_b r_bn), g_b ~ Gamma of mean 1.

    Each showing of an image has one gain g_b, of the given `variance` v, for all neurons. So y_bn has mean r_bn and
    variance r_bn + v r_bn^2, and two neurons have covariance v r_bn r_bm on the trials of one image; v = 0 is Poisson.
    Rates below 0 raise `InputError`, a negative variance `OptionError`.
    Source: Goris, Movshon & Simoncelli 2014, Partitioning neuronal variability, with one gain for all neurons as in
    Ecker et al. 2014, State dependence of noise correlations in macaque primary visual cortex.
    """

    variance: float = 0.25
    needs_counts: ClassVar[bool] = True
    has_memory: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number("variance", self.variance, least=0)

    def trial(self, seed: Seed) -> Trial:
        """One showing; each image has a random stream, the gain its first number."""

        def draw(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            gain = rng.gamma(1 / self.variance, self.variance) if self.variance else 1.0
            return rng.poisson(gain * rates)

        return _by_image(seed, draw)


@dataclass(frozen=True)
class CalciumNoise:
    """Fluorescence: spikes that decay over the images that follow, and a Gaussian error of measurement.

    s_b ~ Poisson(r_b); c_b = `decay` c_(b-1) + s_b with c = 0 before the first image; y_b = c_b + `deviation` z_b with
    z_b ~ N(0, 1), every neuron by itself. `decay` = exp(-T / tau) for images T seconds apart and a decay time tau. A
    spike counts 1 in the response to its own image, so the response to an image still has the rate as its own part,
    on top of what is left of those before. At a constant rate r, once the beginning is forgotten: mean
    r / (1 - decay), variance r / (1 - decay^2) + deviation^2, covariance of images k apart decay^k r / (1 - decay^2).

    Rates below 0 raise `InputError`, a decay not in [0, 1) or a negative deviation `OptionError`.
    Source: the generative model of Vogelstein et al. 2010, Fast nonnegative deconvolution for spike train inference
    from population calcium imaging, with one time step an image.
    """

    decay: float = 0.5
    deviation: float = 0.2
    needs_counts: ClassVar[bool] = True
    has_memory: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("decay", self.decay, least=0, below=1)
        check_number("deviation", self.deviation, least=0)

    def trial(self, seed: Seed) -> Trial:
        """One showing; each image has a random stream, its errors of measurement the first numbers."""
        trace: np.ndarray | float = 0.0

        def draw(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            nonlocal trace
            errors = rng.standard_normal(rates.shape)
            trace = self.decay * trace + rng.poisson(rates)
            return trace + self.deviation * errors

        return _by_image(seed, draw)


NOISES: dict[str, type[Noise]] = {
    "paper": PaperNoise,
    "poisson": PoissonNoise,
    "gain": GainNoise,
    "calcium": CalciumNoise,
}


def make_noise(name: str, **options: Any) -> Noise:
    """The noise of that name; raises `OptionError` for a name or option that is not known, naming the nearest.

    >>> make_noise("gain", variance=0.1)
    GainNoise(variance=0.1)
    """
    return make("noise", name, NOISES, options)


def add_noise(rates: ArrayLike, noise: str | Noise = "paper", *, seed: Seed = 0) -> np.ndarray:
    """One noisy trial of each rate, float32, in the shape of `rates` (n_images, n_neurons), shown in this order.

    With as many neurons, more images leave the responses to the first ones as they are.
    Raises `OptionError` for an unknown noise, `InputError` for rates that are not finite or that it cannot
    have.

    >>> add_noise([[0.0, 4.0]], "poisson", seed=1).dtype
    dtype('float32')
    """
    noise = resolve("noise", noise, NOISES)
    values = np.asarray(rates, np.float32)
    check_ndim("rates", values, ("n_images", "n_neurons"))
    check_finite("rates", values)
    return noise.trial(seed)(values)


def _by_image(seed: Seed, draw: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Trial:
    """A trial whose images have a random stream each: where a rate is rounded otherwise, only that image can differ.

    draw: the rates of one image (n_neurons,) and its stream to the responses.
    """
    numbers: Iterator[int] = count()

    def trial(rates: np.ndarray) -> np.ndarray:
        _check_countable(rates)
        responses = np.empty(rates.shape, np.float32)
        for response, rate in zip(responses, rates, strict=True):
            response[:] = draw(rate, np.random.default_rng(stream(seed, next(numbers))))
        return responses

    return trial


def _check_countable(rates: np.ndarray) -> None:
    n_negative = int((rates < 0).sum())
    if n_negative:
        raise InputError(
            f"rates holds {n_negative:,} negative values of {rates.size:,}, the least {rates.min():.3g}:"
            " Poisson counts need rates of 0 or more. Use noise='paper', or neurons with nonlinearity='relu'."
        )
    if rates.max(initial=0) > MOST_COUNTS:
        raise InputError(
            f"rates holds values up to {rates.max():.3g}: Poisson counts need rates of {MOST_COUNTS:g} at most. Choose"
            " a smaller mean rate."
        )
