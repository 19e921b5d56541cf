"""What a drive becomes: the nonlinearity, the loss of the rate that it gives, and the slope of that loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.special import expit, xlogy

from whatwhere.checks import check_choice
from whatwhere.errors import OptionError
from whatwhere.losses import EPSILON, LOSSES

MOST_DRIVE = 50.0
"""An exponential's drive is cut here, so that no prediction is infinite."""
_LEAST_MEAN = 1e-3  # in standard deviations: where the fit of a silent neuron starts

RateAndSlope: TypeAlias = tuple[np.ndarray, np.ndarray]


def _identity(drive: np.ndarray) -> RateAndSlope:
    return drive, np.ones_like(drive)


def _relu(drive: np.ndarray) -> RateAndSlope:
    return np.maximum(drive, 0), (drive > 0).astype(drive.dtype)


def _exponential(drive: np.ndarray) -> RateAndSlope:
    rate = np.exp(np.minimum(drive, MOST_DRIVE))
    return rate, np.where(drive <= MOST_DRIVE, rate, 0)


def _softplus(drive: np.ndarray) -> RateAndSlope:
    return np.logaddexp(drive, 0), expit(drive)


NONLINEARITIES: dict[str, Callable[[np.ndarray], RateAndSlope]] = {
    "identity": _identity,
    "relu": _relu,
    "exponential": _exponential,
    "softplus": _softplus,
}
_INVERSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda rate: rate,
    "relu": lambda rate: rate,
    "exponential": np.log,
    "softplus": lambda rate: rate + np.log(-np.expm1(-rate)),
}


@dataclass(frozen=True)
class Family:
    """A nonlinearity f with the loss of the rate r = f(drive), both by name.

    "squared": (r - y)^2; "poisson": r - y log(r + eps) as in `whatwhere.losses`, with an exponential exactly
    r - y drive. Raises `OptionError` for names that are not known, or that do not fit together.

    >>> losses, slopes = Family("exponential", "poisson").losses(np.array([0.0]), np.array([3.0]))
    >>> float(losses[0]), float(slopes[0])  # 1 - 3 * 0, 1 - 3
    (1.0, -2.0)
    """

    nonlinearity: str = "identity"
    loss: str = "squared"

    def __post_init__(self) -> None:
        check_choice("nonlinearity", self.nonlinearity, NONLINEARITIES)
        check_choice("loss", self.loss, LOSSES)
        if self.is_linear and self.loss == "poisson":
            raise OptionError(
                "the poisson loss needs predictions of 0 or more, but the nonlinearity is 'identity': choose"
                " 'softplus', 'exponential' or 'relu', or the loss 'squared'."
            )

    @property
    def is_linear(self) -> bool:
        """Whether the rate is the drive itself."""
        return self.nonlinearity == "identity"

    @property
    def is_convex(self) -> bool:
        """Whether the loss is convex in the drive, so that a penalised fit has one minimum (Paninski 2004)."""
        return self.is_linear or (self.loss == "poisson" and self.nonlinearity in ("exponential", "softplus"))

    def rate(self, drive: np.ndarray) -> np.ndarray:
        """f(drive), in the shape of `drive`."""
        return NONLINEARITIES[self.nonlinearity](drive)[0]

    def losses(self, drive: np.ndarray, responses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The loss of each drive and its derivative, in the shape of both arguments (n_images, n_neurons)."""
        rate, slope = NONLINEARITIES[self.nonlinearity](drive)
        if self.loss == "squared":
            error = rate - responses
            return error**2, 2 * error * slope
        if self.nonlinearity == "exponential":
            return rate - responses * drive, slope - responses
        return rate - xlogy(responses, rate + EPSILON), (1 - responses / (rate + EPSILON)) * slope

    def start(self, mean_responses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The drive whose rate is the mean response, floored where f cannot reach it, and the slope of f there."""
        if self.is_linear:
            return mean_responses, np.ones_like(mean_responses)
        drive = _INVERSES[self.nonlinearity](np.maximum(mean_responses, _LEAST_MEAN))
        return drive, NONLINEARITIES[self.nonlinearity](drive)[1]
