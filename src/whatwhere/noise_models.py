"""How the variance of a response depends on its rate: the noise models of the posterior over locations.

Rates and responses are in the units of the fit. A variance is phi_n (alpha + beta |r| + gamma r^2): `constant` has
beta = gamma = 0, `rate` gamma = 0 (the paper's simulations: variance |r|), `estimated` all three. `poisson` is the
Poisson likelihood with a dispersion phi_n.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whatwhere.losses import EPSILON

N_COEFFICIENTS = {"constant": 1, "rate": 2, "poisson": 0, "estimated": 3}
NOISE_MODELS = tuple(N_COEFFICIENTS)
_ROUNDS = 30
_BINS = 4096  # of the size of the rate
_LEAST = 1e-6
_PRIOR_TRIALS = 20.0  # a neuron's own dispersion counts once it has many more trials than these


@dataclass(frozen=True)
class NoiseModel:
    """The variance v(r) = alpha + beta |r| + gamma r^2, for each neuron times its dispersion phi_n.

    kind: one of `NOISE_MODELS`. coefficients: (3,) alpha, beta, gamma, not used by `poisson`. dispersion: (n_neurons,).
    """

    kind: str
    coefficients: Tensor
    dispersion: Tensor

    def variance(self, rates: Tensor) -> Tensor:
        """v(r) of any shape, without the dispersion; for `poisson` it is the rate itself."""
        if self.kind == "poisson":
            return rates.clamp(min=0.0) + EPSILON
        alpha, beta, gamma = self.coefficients
        if self.kind == "constant":
            return alpha.expand_as(rates)
        size = rates.abs()
        return alpha + beta * size + gamma * size.square() if self.kind == "estimated" else alpha + beta * size

    def slope(self, rates: Tensor) -> Tensor:
        """dv/dr = sign(r) (beta + 2 gamma |r|)."""
        _, beta, gamma = self.coefficients
        return rates.sign() * (beta + 2 * gamma * rates.abs())

    def bend(self) -> Tensor:
        """d^2 v / dr^2 = 2 gamma, away from 0."""
        return 2 * self.coefficients[2]

    def stabilised(self, responses: Tensor) -> Tensor:
        """t(y) = integral from 0 to y of du / sqrt(v(u)), odd: its noise is of one variance, whatever the rate.

        To first order in the noise (the delta method): 2 sqrt(y) for `poisson`, nearly a logarithm where gamma rules,
        y itself for `constant`, whose variance need not be 1.
        """
        if self.kind == "constant":
            return responses
        size = responses.abs().double()
        if self.kind == "poisson":
            return (responses.sign() * 2 * size.sqrt()).to(responses.dtype)
        alpha, beta, gamma = self.coefficients.double()
        root = (alpha + beta * size + gamma * size.square()).sqrt()
        if gamma > _LEAST * alpha:
            side = gamma.sqrt()
            grown = (2 * side * (root - alpha.sqrt()) + 2 * gamma * size) / (2 * side * alpha.sqrt() + beta)
            total = torch.log1p(grown) / side
        else:
            total = 2 * size / (root + alpha.sqrt())
        return (responses.sign() * total).to(responses.dtype)

    def negative_log_likelihood(self, rates: Tensor, responses: Tensor) -> Tensor:
        """-log p(y | r) up to a constant, of every response apart: the shape of `rates`, neurons last.

        Gaussian: (y - r)^2 / (2 v) + log(v) / 2. Poisson: (r - y log r) / phi_n.
        """
        if self.kind == "poisson":
            return (rates - responses * (rates + EPSILON).log()) / self.dispersion
        variance = self.variance(rates) * self.dispersion
        return 0.5 * ((responses - rates).square() / variance + variance.log())


def fit_noise(kind: str, rates: Tensor, responses: Tensor, floor: float = 0.0) -> NoiseModel:
    """The noise model of the highest likelihood, given rates and responses (n, n_neurons).

    The coefficients are found by iterated least squares of the squared residual on 1, |r|, r^2, weighted by 1 / v^2 and
    kept at or above 0; alpha is then raised to `floor`, so that small rates count as less certain than they look. Each
    neuron's dispersion is the mean of its squared residuals over v, drawn towards that of all neurons while its trials
    are few, and within [0.05, 20]; it also makes up for what the floor has added on the whole.

    >>> rates = torch.linspace(-1.0, 1.0, 20_000)[:, None]
    >>> noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    >>> found = fit_noise("rate", rates, rates + noise * (0.1 + 0.5 * rates.abs()).sqrt())
    >>> [round(float(value), 1) for value in found.coefficients]
    [0.1, 0.5, 0.0]
    """
    squares = (responses - rates).square().double()
    n_neurons = rates.shape[-1]
    coefficients = torch.zeros(3, dtype=torch.float64, device=rates.device)
    if kind != "poisson":
        n_terms = N_COEFFICIENTS[kind]
        coefficients[:n_terms] = _least_squares(rates.double().abs().flatten(), squares.flatten(), n_terms)
        coefficients[0] = coefficients[0].clamp(min=max(_LEAST, floor))
    model = NoiseModel(kind, coefficients.to(rates), torch.ones(n_neurons).to(rates))
    ratio = squares / model.variance(rates).double().clamp(min=_LEAST)
    n = ratio.shape[0]
    dispersion = (ratio.sum(0) + _PRIOR_TRIALS * ratio.mean()) / (n + _PRIOR_TRIALS)
    return NoiseModel(kind, model.coefficients, dispersion.clamp(min=0.05, max=20.0).to(rates))


def choose_noise(kinds: Sequence[str], rates: Tensor, responses: Tensor) -> str:
    """Which of these kinds explains responses given rates, both (n, n_neurons), best by BIC.

    All are compared as normal noise of their variance, dispersions included; one coefficient more must raise the log
    likelihood by more than log(n n_neurons) / 2.

    >>> rates = torch.rand(5_000, 2, generator=torch.Generator().manual_seed(0)) * 4
    >>> noise = torch.randn(5_000, 2, generator=torch.Generator().manual_seed(1))
    >>> [choose_noise(NOISE_MODELS, rates, rates + noise * v.sqrt()) for v in (1 + 0 * rates, 0.1 + rates, 3 * rates)]
    ['constant', 'rate', 'poisson']
    """
    costs = []
    for kind in kinds:
        noise = fit_noise(kind, rates, responses)
        variance = (noise.variance(rates) * noise.dispersion).double().clamp(min=1e-12)
        likelihood = -0.5 * ((responses - rates).square() / variance + variance.log()).sum().item()
        costs.append(0.5 * N_COEFFICIENTS[kind] * math.log(rates.numel()) - likelihood)
    return kinds[costs.index(min(costs))]


def _least_squares(sizes: Tensor, squares: Tensor, n_terms: int) -> Tensor:
    """Coefficients of v = sum_t a_t size^t, t < n_terms, each at or above 0, by iterated weighted least squares."""
    mean = squares.mean().clamp(min=_LEAST)
    if n_terms == 1:
        return mean[None]
    counts, sizes, squares = _binned(sizes, squares)
    terms = torch.stack([sizes**power for power in range(n_terms)])  # (n_terms, n_bins)
    scale = ((terms * counts).sum(1) / counts.sum()).clamp(min=_LEAST)
    terms = terms / scale[:, None]
    values = mean.repeat(n_terms) / n_terms
    for _ in range(_ROUNDS):
        weighted = terms * (counts / (values @ terms).clamp(min=_LEAST * mean).square())
        solved = _nonnegative(weighted @ terms.T, weighted @ squares).clamp(min=_LEAST * mean)
        values = (values + solved) / 2  # whole steps may go to and fro for ever where the variance is no such sum
    return values / scale


def _binned(sizes: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean size and mean square of the trials in each of many narrow bins of size, finer where size is small.

    v hardly changes inside a bin, so millions of trials need to be looked at once only.
    """
    place = (sizes / sizes.max().clamp(min=_LEAST)).sqrt() * _BINS
    bins = place.nan_to_num().clamp(max=_BINS - 1).long()
    counts = bins.bincount(minlength=_BINS)
    some = counts > 0
    counts = counts[some].to(sizes)
    mean_size, mean_square = (bins.bincount(values, minlength=_BINS)[some] / counts for values in (sizes, squares))
    return counts, mean_size, mean_square


def _nonnegative(gram: Tensor, wanted: Tensor) -> Tensor:
    """argmin_a>=0 of a^T G a / 2 - b^T a for up to three unknowns: the best of all sets of unknowns that are not 0."""
    n = len(wanted)
    best, least = torch.zeros_like(wanted), torch.zeros((), dtype=wanted.dtype)
    for chosen in range(1, 2**n):
        index = [i for i in range(n) if chosen >> i & 1]
        part = gram[index][:, index]
        solution, singular = torch.linalg.solve_ex(part, wanted[index])  # `lstsq` has other last digits at each call
        if singular or not (solution >= 0).all():  # where it is singular, fewer unknowns do as well
            continue
        value = 0.5 * solution @ part @ solution - wanted[index] @ solution
        if value < least:
            least, best = value, torch.zeros_like(wanted)
            best[index] = solution
    return best
