"""Noise by name: what turns a noise-free rate into the response of one trial."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from whatwhere.checks import check_choice, check_finite
from whatwhere.errors import InputError
from whatwhere.simulation.seeds import Seed, stream

Noise: TypeAlias = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def paper_noise(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Poisson-like: y = r + sqrt(|r|) z with z ~ N(0, 1), so the variance is |r|, for rates of either sign.

    Source: Klindt et al. 2017, equation 1.
    """
    return rates + np.sqrt(np.abs(rates)) * rng.standard_normal(rates.shape, dtype=np.float32)


def poisson_noise(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts: y ~ Poisson(r). Raises `InputError` for negative rates."""
    n_negative = int((rates < 0).sum())
    if n_negative:
        raise InputError(
            f"rates holds {n_negative:,} negative values of {rates.size:,}, the least {rates.min():.3g}:"
            " Poisson counts need rates of 0 or more. Use noise='paper', or neurons with a nonlinearity."
        )
    return rng.poisson(rates).astype(np.float32)


NOISES: dict[str, Noise] = {"paper": paper_noise, "poisson": poisson_noise}


def add_noise(rates: ArrayLike, noise: str = "paper", *, seed: Seed = 0) -> np.ndarray:
    """One noisy trial of each rate, float32, in the shape of `rates` (n_images, n_neurons).

    With as many neurons, more images leave the responses to the first ones as they are.
    Raises `OptionError` for an unknown noise, `InputError` for rates that are not finite or that it cannot
    have.

    >>> add_noise([[0.0, 4.0]], "poisson", seed=1).dtype
    dtype('float32')
    """
    check_choice("noise", noise, NOISES)
    values = np.asarray(rates, np.float32)
    check_finite("rates", np.atleast_1d(values))
    return NOISES[noise](values, np.random.default_rng(stream(seed)))
