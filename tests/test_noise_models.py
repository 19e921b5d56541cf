"""Noise models: likelihoods against SciPy, and estimates against the noise that made the responses."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import gammaln
from scipy.stats import norm, poisson

from whatwhere.losses import EPSILON
from whatwhere.noise_models import NOISE_MODELS, NoiseModel, choose_noise, fit_noise

COEFFICIENTS = {"constant": (0.7, 0.0, 0.0), "rate": (0.3, 0.5, 0.0), "estimated": (0.2, 0.5, 0.4)}


def model(kind: str, dispersion: list[float]) -> NoiseModel:
    coefficients = torch.tensor(COEFFICIENTS.get(kind, (0.0, 0.0, 0.0)), dtype=torch.float64)
    return NoiseModel(kind, coefficients, torch.tensor(dispersion, dtype=torch.float64))


def gaussian(
    kind: str, n_images: int, dispersion: np.ndarray, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rates of both signs, and responses with the variance of `COEFFICIENTS` times each neuron's dispersion."""
    alpha, beta, gamma = COEFFICIENTS[kind]
    rates = rng.normal(0, 1.5, (n_images, len(dispersion)))
    variance = dispersion * (alpha + beta * np.abs(rates) + gamma * rates**2)
    return torch.from_numpy(rates), torch.from_numpy(rates + np.sqrt(variance) * rng.normal(size=rates.shape))


@pytest.mark.parametrize("kind", ["constant", "rate", "estimated"])
def test_gaussian_likelihoods_are_scipys(kind: str, rng: np.random.Generator) -> None:
    dispersion = np.array([0.5, 1.0, 3.0])
    rates, responses = gaussian(kind, 50, dispersion, rng)
    alpha, beta, gamma = COEFFICIENTS[kind]
    r = rates.numpy()
    deviation = np.sqrt(dispersion * (alpha + beta * np.abs(r) + gamma * r**2))
    expected = -norm.logpdf(responses.numpy(), r, deviation) - 0.5 * np.log(2 * np.pi)
    found = model(kind, [0.5, 1.0, 3.0])
    np.testing.assert_allclose(found.negative_log_likelihood(rates, responses).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose((found.variance(rates) * found.dispersion).numpy(), deviation**2, rtol=1e-12)


def test_poisson_likelihood_is_scipys_over_the_dispersion(rng: np.random.Generator) -> None:
    rates = rng.uniform(0.5, 6, (50, 3))
    responses = rng.poisson(rates)
    expected = (-poisson.logpmf(responses, rates + EPSILON) - gammaln(responses + 1) - EPSILON) / [0.5, 1.0, 3.0]
    found = model("poisson", [0.5, 1.0, 3.0])
    got = found.negative_log_likelihood(torch.from_numpy(rates), torch.from_numpy(responses).double()).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    silent = torch.zeros(1, 3, dtype=torch.float64)
    assert torch.isfinite(found.negative_log_likelihood(silent, silent + 2)).all(), "costs much, but not everything"


@pytest.mark.parametrize("kind", ["constant", "rate", "estimated"])
def test_slope_is_the_derivative_of_the_variance(kind: str, rng: np.random.Generator) -> None:
    rates = torch.from_numpy(rng.normal(size=20)).requires_grad_()
    noise = model(kind, [1.0])
    if kind == "constant":
        expected = torch.zeros(20, dtype=torch.float64)
    else:
        (expected,) = torch.autograd.grad(noise.variance(rates).sum(), rates)
    torch.testing.assert_close(noise.slope(rates.detach()), expected)


@pytest.mark.parametrize("kind", ["constant", "rate", "estimated"])
def test_coefficients_and_dispersions_are_recovered(kind: str, rng: np.random.Generator) -> None:
    """40,000 trials a neuron: a variance is known to sqrt(2 / 40,000) = 0.7 %, three times that at most is off."""
    dispersion = np.array([0.4, 0.8, 1.2, 1.6])  # of mean 1, or the coefficients would take the scale
    found = fit_noise(kind, *gaussian(kind, 40_000, dispersion, rng))
    sizes = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    expected = model(kind, [1.0]).variance(sizes)
    torch.testing.assert_close(found.variance(sizes), expected, rtol=0.04, atol=0)
    np.testing.assert_allclose(found.dispersion.numpy(), dispersion, rtol=0.03)


def log_likelihood(coefficients: np.ndarray, rates: np.ndarray, squares: np.ndarray) -> float:
    variance = sum(a * np.abs(rates) ** power for power, a in enumerate(coefficients))
    return float(-0.5 * (squares / variance + np.log(variance)).mean())


@pytest.mark.parametrize("made_by", ["rate", "estimated"])
@pytest.mark.parametrize("kind", ["constant", "rate", "estimated"])
def test_coefficients_have_the_highest_likelihood(kind: str, made_by: str, rng: np.random.Generator) -> None:
    """Also where the noise is of another kind: against SciPy's minimum of the same likelihood."""
    rates, responses = gaussian(made_by, 3_000, np.ones(2), rng)
    r, squares = rates.numpy(), (responses - rates).square().numpy()
    n_terms = {"constant": 1, "rate": 2, "estimated": 3}[kind]
    best = minimize(
        lambda values: -log_likelihood(values, r, squares), np.full(n_terms, 0.5), bounds=[(1e-9, None)] * n_terms
    )
    found = fit_noise(kind, rates, responses).coefficients[:n_terms].numpy()
    assert log_likelihood(found, r, squares) == pytest.approx(-best.fun, abs=1e-6)
    assert (fit_noise(kind, rates, responses).coefficients[n_terms:] == 0).all()


@pytest.mark.parametrize(("alpha", "gamma"), [(0.02, 1.0), (0.5, 0.0)])
def test_steps_settle_where_the_variance_is_no_sum_of_the_terms(
    alpha: float, gamma: float, rng: np.random.Generator
) -> None:
    """`rate` where the variance is the square of the rate: plain iteration goes to and fro between two fits."""
    r = rng.normal(size=(20_000, 1))
    squares = (alpha + gamma * r**2) * rng.normal(size=r.shape) ** 2
    found = fit_noise("rate", torch.from_numpy(r), torch.from_numpy(r + np.sqrt(squares))).coefficients.numpy()
    best = minimize(lambda values: -log_likelihood(values, r, squares), [0.5, 0.5], bounds=[(1e-9, None)] * 2)
    assert log_likelihood(found[:2], r, squares) == pytest.approx(-best.fun, abs=1e-5)


def test_constant_noise_is_nested_in_the_others(rng: np.random.Generator) -> None:
    rates, responses = gaussian("constant", 20_000, np.ones(3), rng)
    fits = {kind: fit_noise(kind, rates, responses) for kind in ("constant", "rate", "estimated")}
    losses = [fit.negative_log_likelihood(rates, responses).mean().item() for fit in fits.values()]
    assert losses[0] >= losses[1] - 1e-6  # a term that is not wanted is kept at a millionth of the mean
    assert losses[1] >= losses[2] - 1e-6
    assert losses[0] - losses[2] < 1e-3
    squares = (responses - rates).square()
    assert fits["constant"].coefficients[0].item() == pytest.approx(squares.mean().item(), rel=1e-9)


def test_a_poisson_dispersion_is_the_mean_square_over_the_rate(rng: np.random.Generator) -> None:
    rates = rng.uniform(0.5, 3, (40_000, 2))
    responses = np.stack([rng.poisson(rates[:, 0]), 2 * rng.poisson(rates[:, 1] / 2)], 1).astype(float)
    found = fit_noise("poisson", torch.from_numpy(rates), torch.from_numpy(responses))
    np.testing.assert_allclose(found.dispersion.numpy(), [1.0, 2.0], rtol=0.03)


def test_alpha_is_raised_to_the_floor_and_the_rest_left(rng: np.random.Generator) -> None:
    rates, responses = gaussian("rate", 2_000, np.ones(3), rng)
    free, raised = (fit_noise("rate", rates, responses, floor) for floor in (0.0, 2.0))
    assert free.coefficients[0] < 1.0
    assert raised.coefficients[0] == 2.0
    assert raised.coefficients[1] == free.coefficients[1]
    ratio = (responses - rates).square() / raised.variance(rates)
    torch.testing.assert_close(raised.dispersion, (ratio.sum(0) + 20 * ratio.mean()) / (2_000 + 20), rtol=1e-9, atol=0)
    assert (raised.dispersion < free.dispersion / 1.5).all(), "they make up for what the floor adds"


def test_few_trials_draw_a_dispersion_to_that_of_all(rng: np.random.Generator) -> None:
    dispersion = np.array([0.2, 1.8])
    distances = []
    for n_images in (5, 50, 5_000):
        found = fit_noise("constant", *gaussian("constant", n_images, dispersion, rng)).dispersion.numpy()
        distances.append(found[1] - found[0])
    assert 0 < distances[0] < distances[1] < distances[2]
    assert distances[2] == pytest.approx(1.6, rel=0.05)


@pytest.mark.parametrize("kind", NOISE_MODELS)
def test_rates_that_tell_nothing_give_finite_numbers(kind: str) -> None:
    """All equal, all zero, or exact: no term can be told from another, and no residual is left."""
    for rates in (torch.zeros(30, 2), torch.full((30, 2), 0.5)):
        for responses in (rates, rates + torch.arange(30)[:, None] / 30):
            found = fit_noise(kind, rates, responses)
            assert torch.isfinite(found.coefficients).all()
            assert torch.isfinite(found.dispersion).all()
            assert torch.isfinite(found.negative_log_likelihood(rates, responses)).all()


@pytest.mark.parametrize("kind", NOISE_MODELS)
def test_the_same_trials_give_the_same_bits(kind: str, rng: np.random.Generator) -> None:
    """A resumed fit must find what the undisturbed one found."""
    rates, responses = gaussian("rate", 2_000, np.ones(3), rng)
    found = {fit_noise(kind, rates.clone(), responses).coefficients.numpy().tobytes() for _ in range(30)}
    assert len(found) == 1


def test_neurons_may_be_permuted(rng: np.random.Generator) -> None:
    rates, responses = gaussian("estimated", 500, np.array([0.5, 1.0, 2.0]), rng)
    order = [2, 0, 1]
    before, after = (fit_noise("estimated", rates[:, some], responses[:, some]) for some in ([0, 1, 2], order))
    torch.testing.assert_close(after.coefficients, before.coefficients)
    torch.testing.assert_close(after.dispersion, before.dispersion[order])


@pytest.mark.parametrize("kind", ["constant", "rate", "estimated"])
def test_the_noise_that_made_the_responses_is_chosen(kind: str, rng: np.random.Generator) -> None:
    """Also where dispersions differ; and of few responses the simplest, for more would be guessing."""
    rates, responses = gaussian(kind, 20_000, np.array([0.5, 1.0, 3.0]), rng)
    assert choose_noise(["constant", "rate", "estimated"], rates, responses) == kind
    assert choose_noise(["estimated", "rate", "constant"], rates, responses) == kind
    few = gaussian("constant", 15, np.array([0.5, 1.0, 3.0]), rng)
    assert choose_noise(["constant", "rate", "estimated"], *few) == "constant"
    assert choose_noise([kind], *few) == kind


@pytest.mark.parametrize(
    ("kind", "coefficients"),
    [
        ("rate", [0.3, 1.5, 0.0]),
        ("estimated", [0.3, 1.5, 0.7]),
        ("estimated", [0.2, 0.0, 5.0]),
        ("estimated", [0.5, 1.0, 1e-9]),
        ("poisson", [0.0, 0.0, 0.0]),
    ],
)
def test_stabilised_responses_change_by_their_noise(kind: str, coefficients: list[float]) -> None:
    noise = NoiseModel(kind, torch.tensor(coefficients), torch.ones(1))
    responses = torch.tensor([-7.0, -0.6, 0.3, 1.0, 12.0], dtype=torch.float64, requires_grad=True)
    found = noise.stabilised(responses)
    (slope,) = torch.autograd.grad(found.sum(), responses)
    size = responses.detach().abs()
    a, b, c = coefficients if kind != "poisson" else (0.0, 1.0, 0.0)
    torch.testing.assert_close(slope, (a + b * size + c * size**2).rsqrt(), rtol=1e-4, atol=0)
    torch.testing.assert_close(noise.stabilised(-responses), -found)
    assert noise.stabilised(torch.zeros(1)).item() == 0
    constant = NoiseModel("constant", torch.tensor([4.0, 0.0, 0.0]), torch.ones(1))
    assert torch.equal(constant.stabilised(responses), responses)


def test_stabilised_responses_have_one_variance() -> None:
    noise = NoiseModel("estimated", torch.tensor([0.02, 0.05, 0.01]), torch.ones(1))
    rates = torch.tensor([1.0, 5.0, 25.0]).repeat(40_000, 1)
    responses = rates + noise.variance(rates).sqrt() * torch.randn(
        rates.shape, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(noise.stabilised(responses).var(0), torch.ones(3), rtol=0.1, atol=0)
    assert responses.var(0).max() > 50 * responses.var(0).min()
