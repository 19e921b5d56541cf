"""Generalised linear models: a filter, an offset and a nonlinearity a neuron, fitted by a quasi-Newton method."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from whatwhere.baselines.base import FilterModel
from whatwhere.baselines.families import Family
from whatwhere.baselines.lbfgs import MEMORY, minimise
from whatwhere.baselines.options import STA_SMOOTHING
from whatwhere.baselines.ridge import RidgeSolver, factorisation_numbers
from whatwhere.baselines.search import Solution

STRENGTHS = tuple(float(strength) for strength in np.logspace(-2, 4, 7))
TOLERANCE = 1e-6
MOST_STEPS = 200
LEAST_GAIN = 1e-4
"""Of the loss with a ReLU, in ten steps: its kinks leave no gradient to vanish."""


class PenalisedLoss:
    """mean_b loss(f(c_b^T v + b), y_b) + penalty |v|^2 for many neurons, with its exact gradient.

    - features (n_images, rank), scaling (rank,): v = scaling u, so that the curvature in u is about the same in all
      directions
    - responses (n_images, n_neurons)

    Called with points (n, rank + 1), u and then the offset, of the neurons numbered `which` (n,): the losses (n,)
    and their gradients (n, rank + 1).
    """

    def __init__(
        self, features: np.ndarray, scaling: np.ndarray, responses: np.ndarray, family: Family, penalty: float
    ) -> None:
        self.features, self.scaling, self.responses = features, scaling, responses
        self.family, self.penalty = family, penalty

    def __call__(self, points: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights, offset = points[:, :-1] * self.scaling, points[:, -1]  # (n, rank), (n,)
        losses, slopes = self.family.losses(self.features @ weights.T + offset, self.responses[:, which])
        gradient = slopes.T @ self.features / len(slopes) + 2 * self.penalty * weights  # (n, rank)
        values = losses.mean(0) + self.penalty * np.square(weights).sum(1)
        return values, np.column_stack([gradient * self.scaling, slopes.mean(0)])


class GLMSolver:
    """argmin_(w, b) mean loss(f(X w + b), y) + strength |w|^2, from strong to weak, by limited-memory BFGS.

    pixels: (n_images, n_pixels), centred; strengths are relative to their mean variance. The minimum lies in the span
    of ridge's basis. The start is ridge's solution for the same strength, divided by the slope of f at the mean
    response, or no filter at all where that is better: with few responses above 0 the first can be far off. Where there
    is one minimum only, it is found sooner from where the last strength's was.
    """

    def __init__(self, pixels: np.ndarray, family: Family) -> None:
        self.ridge = RidgeSolver(pixels)
        self.family = family

    def path(self, responses: np.ndarray, strengths: np.ndarray) -> Iterator[Solution]:
        ridge, features = self.ridge, self.ridge.features()
        mean = responses.mean(0)
        mean_drive, slope = self.family.start(mean)
        projected = ridge.project(responses - mean)
        least_gain = LEAST_GAIN if self.family.nonlinearity == "relu" else 0.0
        for number, strength in enumerate(strengths):
            penalty = strength * ridge.unit
            scaling = 1 / np.sqrt(ridge.values / len(features) + penalty)
            loss = PenalisedLoss(features, scaling, responses, self.family, penalty)
            if number == 0 or not self.family.is_convex:
                weights, offset = (ridge.coefficients(projected, strength) / slope).T, mean_drive  # (n_neurons, rank)
                weights = np.where(_worse_than_none(loss, weights / scaling, offset)[:, None], 0, weights)
            start = np.column_stack([weights / scaling, offset])
            found, solved = minimise(loss, start, tolerance=TOLERANCE, least_gain=least_gain, most_steps=MOST_STEPS)
            weights, offset = found[:, :-1] * scaling, found[:, -1]
            yield Solution(ridge.basis @ weights.T, offset, solved)


def _worse_than_none(loss: PenalisedLoss, weights: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Whether each neuron's weights (n_neurons, rank) have a higher loss than zeros, (n_neurons,)."""
    which = np.arange(len(offset))
    losses = [loss(np.column_stack([some, offset]), which)[0] for some in (weights, np.zeros_like(weights))]
    return ~(losses[0] <= losses[1])


class GLM(FilterModel):
    """r_n = s_n f(a_n^T x + b_n): argmin mean loss(r_n / s_n, y_n / s_n) + strength |a_n|^2, the offset is free.

    s_n is the response's standard deviation. nonlinearity: "softplus", "exponential", "relu" or "identity"; loss:
    "poisson" (responses of 0 or more) or "squared"; see `families.Family`. With a ReLU, and with the squared error but
    for the identity, the loss is not convex: what is found is the local minimum next to ridge's solution. The other
    options and the fitted attributes: see `FilterModel`; `scale_` (n_neurons,) is s_n.
    Source: Klindt et al. 2017, section 5 (ReLU, L2 penalty).
    """

    name: ClassVar[str] = "glm"
    solver_name: ClassVar[str] = "quasi-Newton method"

    def __init__(
        self,
        strengths: Sequence[float] = STRENGTHS,
        standardize: str = "global",
        validation_fraction: float = 0.2,
        *,
        nonlinearity: str = "softplus",
        loss: str = "poisson",
        crop: int | tuple[int, int] | None = None,
        locations: str = "average",
        sta_smoothing: float = STA_SMOOTHING,
        folds: int | None = None,
        per_neuron: bool = False,
        refit: bool = False,
        seed: int = 0,
        nonfinite: str = "error",
    ) -> None:
        self.strengths = strengths
        self.standardize = standardize
        self.validation_fraction = validation_fraction
        self.nonlinearity = nonlinearity
        self.loss = loss
        self.crop = crop
        self.locations = locations
        self.sta_smoothing = sta_smoothing
        self.folds = folds
        self.per_neuron = per_neuron
        self.refit = refit
        self.seed = seed
        self.nonfinite = nonfinite

    def family(self) -> Family:
        return Family(self.nonlinearity, self.loss)

    def solver(self, pixels: np.ndarray, shape: tuple[int, int, int]) -> GLMSolver:
        return GLMSolver(pixels, self.family())

    def operations(self, n_images: int, n_pixels: int, n_windows: int, n_neurons: int) -> float:
        small, large = sorted((n_images, n_pixels))
        evaluations = (80.0 if self.nonlinearity == "relu" else 20.0) * len(self._strengths())
        factorising = 4.0 * small**2 * large + 10.0 * small**3
        return n_windows * factorising + n_neurons * evaluations * n_images * (4.0 * small + 50.0)

    def numbers(self, n_images: int, n_pixels: int, n_neurons: int) -> float:
        points = (2 * MEMORY + 8.0) * min(n_images, n_pixels) + 8.0 * n_images  # steps and gradients; drives and losses
        return factorisation_numbers(n_images, n_pixels) + points * n_neurons
