"""The posterior over places: blurs and evidences against SciPy, regions and entropy against loops."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import multivariate_normal

from whatwhere.errors import OptionError
from whatwhere.location_posterior import (
    ConstantNoiseEvidence,
    VaryingNoiseEvidence,
    blur,
    credible_regions,
    entropy,
    posterior,
)
from whatwhere.noise_models import NoiseModel

N_IMAGES, N_FEATURES, N_ATOMS, N_NEURONS = 30, 3, 7, 4


@pytest.mark.parametrize("width", [0.2, 0.7, 1.0, 2.0, 5.0])
def test_blur_is_scipys_gaussian_filter_with_zeros_beyond_the_border(width: float, rng: np.random.Generator) -> None:
    maps = rng.normal(size=(2, 3, 9, 14))
    reach = max(1, int(np.ceil(3 * width)))
    expected = gaussian_filter(maps, (0, 0, width, width), mode="constant", radius=(0, 0, reach, reach))
    np.testing.assert_allclose(blur(torch.from_numpy(maps), width).numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("width", [0.0, 1.0, 2.0])
def test_blur_is_its_own_adjoint_and_keeps_the_sum_inside(width: float, rng: np.random.Generator) -> None:
    a, b = (torch.from_numpy(rng.normal(size=(5, 9, 14))) for _ in range(2))
    torch.testing.assert_close((blur(a, width) * b).sum(), (a * blur(b, width)).sum(), rtol=1e-12, atol=0)
    point = torch.zeros(21, 26, dtype=torch.float64)
    point[9, 15] = 1.0
    blurred = blur(point, width)
    assert blurred.sum().item() == pytest.approx(1.0, abs=1e-12)
    rows = torch.arange(21) - 9.0
    assert (blurred.sum(1) @ rows.square().double()).item() == pytest.approx(width**2, rel=0.03)  # cut at 3 widths
    assert torch.equal(blur(a, 0.0), a)


def population(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n_images, K, n_atoms) far from 0 on average, and responses, each neuron's of one place."""
    features = rng.normal(size=(N_IMAGES, N_FEATURES, N_ATOMS)) * rng.uniform(0.5, 2, N_ATOMS) + 3.0
    weights = rng.normal(size=(N_NEURONS, N_FEATURES))
    responses = np.einsum("bkn,nk->bn", features[:, :, [5, 0, 3, 3]], weights) + rng.normal(0, 2, (N_IMAGES, N_NEURONS))
    return torch.from_numpy(features), torch.from_numpy(responses)


def constant_evidence(features: torch.Tensor, responses: torch.Tensor, size: int, ridge: float) -> torch.Tensor:
    found = ConstantNoiseEvidence(features.shape[1], features.shape[2], responses)
    for some, wanted in zip(features.split(size), responses.split(size), strict=True):
        found.add(some, wanted)
    return found.evidence(ridge)


@pytest.mark.parametrize("n_features", [1, N_FEATURES])
@pytest.mark.parametrize("ridge", [0.02, 1.5])
def test_constant_noise_evidence_is_the_density_of_the_responses(
    n_features: int, ridge: float, rng: np.random.Generator
) -> None:
    """y ~ N(0, s^2 I + tau^2 C C^T) with the responses' variance s^2, and tau^2 = s^2 / (ridge x the mean power)."""
    features, responses = population(rng)
    features = features[:, :n_features]
    found = constant_evidence(features, responses, N_IMAGES, ridge).numpy()
    c, y = features.numpy() - features.numpy().mean(0), responses.numpy() - responses.numpy().mean(0)
    power = (c**2).sum(0).mean()
    expected = np.empty((N_NEURONS, N_ATOMS))
    for n in range(N_NEURONS):
        variance = y[:, n].var()
        for a in range(N_ATOMS):
            covariance = variance * (np.eye(N_IMAGES) + c[:, :, a] @ c[:, :, a].T / (ridge * power))
            expected[n, a] = multivariate_normal.logpdf(y[:, n], cov=covariance)
    found, expected = (table - table[:, :1] for table in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert np.ptp(expected, axis=1).min() > 0.5


def test_constant_noise_evidence_does_not_depend_on_how_images_are_batched(rng: np.random.Generator) -> None:
    features, responses = population(rng)
    whole = constant_evidence(features, responses, N_IMAGES, 0.02)
    for size in (1, 7, 29):
        torch.testing.assert_close(constant_evidence(features, responses, size, 0.02), whole, rtol=1e-9, atol=1e-9)
    single = constant_evidence(features.float(), responses.float(), 7, 0.02).double()
    torch.testing.assert_close(single, whole, rtol=0, atol=1e-3)  # nats, in single precision


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_neuron_that_never_varies_looks_nowhere_in_particular(value: float, rng: np.random.Generator) -> None:
    features, responses = population(rng)
    alone = constant_evidence(features, responses, 7, 0.02)
    responses[:, 1] = value
    found = constant_evidence(features, responses, 7, 0.02)
    torch.testing.assert_close(found[[0, 2, 3]], alone[[0, 2, 3]])
    determinants = constant_evidence(features, torch.zeros_like(responses), 7, 0.02)  # evidence without any response
    torch.testing.assert_close(found[1], determinants[1], rtol=0, atol=1e-9)
    assert torch.isfinite(constant_evidence(features.float(), responses.float(), 7, 0.02)).all()


def test_features_that_never_vary_have_no_evidence(rng: np.random.Generator) -> None:
    features, responses = population(rng)
    torch.testing.assert_close(
        constant_evidence(torch.zeros_like(features), responses, 7, 0.02), torch.zeros(N_NEURONS, N_ATOMS).double()
    )


def varying_evidence(
    noise: NoiseModel, features: torch.Tensor, responses: torch.Tensor, size: int
) -> tuple[torch.Tensor, np.ndarray, np.ndarray, float]:
    n_features = features.shape[1]
    mean, offset = torch.tensor([0.6, -0.4, 0.9], dtype=torch.float64)[:n_features], 0.3
    root = torch.tensor([[0.5, 0.0, 0.0], [0.2, 0.4, 0.0], [-0.1, 0.3, 0.6]], dtype=torch.float64)
    covariance = (root @ root.T)[:n_features, :n_features]
    found = VaryingNoiseEvidence(noise, mean, covariance, torch.tensor(offset, dtype=torch.float64))
    for some, wanted in zip(features.split(size), responses.split(size), strict=True):
        found.add(some, wanted)
    return found.evidence(), mean.numpy(), covariance.numpy(), offset


@pytest.mark.parametrize("n_features", [1, N_FEATURES])
def test_varying_noise_evidence_without_variation_is_the_density_of_the_responses(
    n_features: int, rng: np.random.Generator
) -> None:
    """Laplace's method is exact for a Gaussian: y ~ N(C m + b, alpha I + C T C^T)."""
    features, responses = population(rng)
    features = features[:, :n_features]
    coefficients = torch.tensor([1.7, 0.0, 0.0], dtype=torch.float64)
    noise = NoiseModel("rate", coefficients, torch.ones(N_NEURONS, dtype=torch.float64))
    found, mean, covariance, offset = varying_evidence(noise, features, responses, 7)
    expected = np.empty((N_NEURONS, N_ATOMS))
    for a in range(N_ATOMS):
        c = features[:, :, a].numpy()
        density = multivariate_normal(c @ mean + offset, 1.7 * np.eye(N_IMAGES) + c @ covariance @ c.T)
        expected[:, a] = density.logpdf(responses.numpy().T)
    np.testing.assert_allclose(found.numpy() - expected, N_IMAGES / 2 * np.log(2 * np.pi), rtol=1e-9)


@pytest.mark.parametrize("kind", ["rate", "estimated"])
def test_varying_noise_evidence_is_one_step_of_fisher_scoring(kind: str, rng: np.random.Generator) -> None:
    """Gradient by automatic differentiation of the log likelihood, information as the mean of its square."""
    features, responses = population(rng)
    gamma = 0.3 if kind == "estimated" else 0.0
    coefficients = torch.tensor([0.8, 0.5, gamma], dtype=torch.float64)
    noise = NoiseModel(kind, coefficients, torch.ones(N_NEURONS, dtype=torch.float64))
    found, mean, covariance, offset = varying_evidence(noise, features, responses, 11)
    n, a = 2, 4
    c, y = features[:, :, a], responses[:, n]
    weights = torch.tensor(mean, requires_grad=True)

    def log_likelihood(y: torch.Tensor) -> torch.Tensor:
        rates = c @ weights + offset
        variance = 0.8 + 0.5 * rates.abs() + gamma * rates**2
        return -0.5 * ((y - rates).square() / variance + variance.log())

    value = log_likelihood(y).sum()
    (gradient,) = torch.autograd.grad(value, weights)
    rates = (c @ weights + offset).detach()
    variance = 0.8 + 0.5 * rates.abs() + gamma * rates**2
    nodes, shares = np.polynomial.hermite_e.hermegauss(20)
    information = np.zeros((N_FEATURES, N_FEATURES))
    for node, share in zip(nodes, shares / shares.sum(), strict=True):  # over responses as the model draws them
        for b in range(N_IMAGES):
            drawn = log_likelihood((rates + node * variance.sqrt()).detach())[b]
            (score,) = torch.autograd.grad(drawn, weights)
            information += share * np.outer(score, score)
    gain = gradient.numpy() @ np.linalg.solve(information + np.linalg.inv(covariance), gradient.numpy())
    determinant = np.linalg.slogdet(np.eye(N_FEATURES) + covariance @ information)[1]
    assert found[n, a].item() == pytest.approx(value.item() + 0.5 * gain - 0.5 * determinant, rel=1e-9)


def test_dispersions_scale_the_variance_in_the_varying_noise_evidence(rng: np.random.Generator) -> None:
    """With weights that are certain (T near 0) the evidence is the log likelihood at the mean weights."""
    features, responses = population(rng)
    dispersion = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    noise = NoiseModel("rate", torch.tensor([0.8, 0.5, 0.0], dtype=torch.float64), dispersion)
    mean = torch.tensor([0.6, -0.4, 0.9], dtype=torch.float64)
    certain = 1e-14 * torch.eye(N_FEATURES, dtype=torch.float64)
    found = VaryingNoiseEvidence(noise, mean, certain, torch.tensor(0.3, dtype=torch.float64))
    found.add(features, responses)
    rates = torch.einsum("k,bka->ba", mean, features)[:, :, None] + 0.3
    expected = -noise.negative_log_likelihood(rates, responses[:, None]).sum(0).T  # (n_neurons, n_atoms)
    got = found.evidence()
    torch.testing.assert_close(got - got[:, :1], expected - expected[:, :1], rtol=1e-7, atol=1e-6)


def test_posterior_is_a_tempered_softmax(rng: np.random.Generator) -> None:
    evidence = rng.normal(0, 300, size=(4, 9))
    evidence[1, 3:] = -np.inf
    for temperature in (1.0, 4.0):
        found = posterior(torch.from_numpy(evidence), temperature).numpy()
        for row, of_neuron in zip(found, evidence, strict=True):
            odds = np.array([np.exp((value - of_neuron.max()) / temperature) for value in of_neuron])
            np.testing.assert_allclose(row, odds / odds.sum(), rtol=1e-12)
    shifted = posterior(torch.from_numpy(evidence + rng.normal(0, 1e3, (4, 1))))
    torch.testing.assert_close(shifted, posterior(torch.from_numpy(evidence)), rtol=1e-9, atol=1e-12)


def test_entropy_is_that_of_a_loop_and_lies_between_0_and_the_logarithm(rng: np.random.Generator) -> None:
    probabilities = rng.dirichlet(np.full(20, 0.2), size=5).reshape(5, 4, 5)
    probabilities[0] = 0.05
    probabilities[1] = 0.0
    probabilities[1, 2, 3] = 1.0
    found = entropy(probabilities)
    expected = [-sum(p * np.log(p) for p in plane.ravel() if p > 0) for plane in probabilities]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)
    assert found[0] == pytest.approx(np.log(20))
    assert found[1] == 0.0
    assert not np.signbit(found[1])


def region(probabilities: np.ndarray, level: float) -> set[tuple[int, int]]:
    """The most probable places, one after the other, until their sum reaches the level."""
    chosen: set[tuple[int, int]] = set()
    total = 0.0
    for place in sorted(np.ndindex(probabilities.shape), key=lambda place: -probabilities[place]):
        if total >= level - 1e-9:
            break
        chosen.add(place)
        total += probabilities[place]
    return chosen


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9, 0.999])
def test_credible_regions_are_those_of_a_loop(level: float, rng: np.random.Generator) -> None:
    probabilities = rng.dirichlet(np.full(20, 0.3), size=30).reshape(30, 4, 5)
    found = credible_regions(probabilities, level)
    for inside, plane in zip(found, probabilities, strict=True):
        assert set(map(tuple, np.argwhere(inside).tolist())) == region(plane, level)
        assert plane[inside].sum() >= level
        assert plane[inside].sum() - plane[inside].min() < level, "one place less would do"


def test_credible_regions_of_ties_points_and_everything() -> None:
    even = np.full((1, 2, 5), 0.1)
    for level, n in ((0.1, 1), (0.3, 3), (0.9, 9), (0.95, 10), (1.0, 10)):
        inside = credible_regions(even, level)
        assert inside.sum() == n
        assert inside.ravel()[:n].all(), "of equal places the first ones"
    point = np.zeros((1, 3, 4), np.float32)
    point[0, 1, 2] = 0.9999999  # short of 1, as a softmax in single precision may be
    for level in (0.01, 0.9, 1.0):
        assert np.argwhere(credible_regions(point, level)).tolist() == [[0, 1, 2]]
    some = np.array([[0.0, 0.3, 0.0, 0.7]])
    assert credible_regions(some, 1.0).tolist() == [[False, True, False, True]]


@pytest.mark.parametrize("level", [0.0, -0.1, 1.5, 90, float("nan")])
def test_a_level_that_is_no_probability_is_refused(level: float) -> None:
    with pytest.raises(OptionError, match=rf"level must be above 0 and at most 1, got {level}: 0\.9 is usual"):
        credible_regions(np.full((1, 2, 2), 0.25), level)
