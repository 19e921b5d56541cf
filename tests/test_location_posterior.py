"""The posterior over places: blurs and evidences against SciPy, regions and entropy against loops."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import multivariate_normal

from whatwhere.errors import OptionError
from whatwhere.location_posterior import (
    FeatureMoments,
    VaryingNoiseEvidence,
    blur,
    blur_places,
    constant_noise_evidence,
    credible_regions,
    entropy,
    narrow_priors,
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


@pytest.mark.parametrize("width", [0.0, 0.7, 2.0])
def test_blur_places_is_blur_with_pixels_first(width: float, rng: np.random.Generator) -> None:
    maps = torch.from_numpy(rng.normal(size=(9, 14, 3, 2)))
    expected = blur(maps.permute(2, 3, 0, 1), width).permute(2, 3, 0, 1)
    torch.testing.assert_close(blur_places(maps, width), expected)


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


def constant_evidence(features: torch.Tensor, responses: torch.Tensor, size: int, *ridges: float) -> torch.Tensor:
    moments = FeatureMoments(features.shape[1], features.shape[2], features)
    for some in features.split(size):
        moments.add(some)
    cross = torch.einsum("bka,bn->akn", features, responses - responses.mean(0))
    return constant_noise_evidence(moments, cross, responses.var(0, correction=0), ridges)


@pytest.mark.parametrize("n_features", [1, N_FEATURES])
@pytest.mark.parametrize("ridge", [0.02, 1.5])
def test_constant_noise_evidence_is_the_density_of_the_responses(
    n_features: int, ridge: float, rng: np.random.Generator
) -> None:
    """y ~ N(0, s^2 I + tau^2 C C^T) against N(0, s^2 I): s^2 of the responses, tau^2 = s^2 / (ridge x mean power)."""
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
            expected[n, a] -= multivariate_normal.logpdf(y[:, n], cov=variance * np.eye(N_IMAGES))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert np.ptp(expected, axis=1).min() > 0.5


def test_of_several_ridges_each_neuron_has_its_own(rng: np.random.Generator) -> None:
    features, responses = population(rng)
    responses[:, 1] = 0.1 * responses[:, 1] + torch.from_numpy(rng.normal(0, 2, N_IMAGES))  # follows hardly
    responses[:, 0] = 3 * features[:, :, 5].sum(1)  # follows without noise
    wide, narrow = (constant_evidence(features, responses, N_IMAGES, ridge) for ridge in (0.02, 20.0))
    both = constant_evidence(features, responses, N_IMAGES, 0.02, 20.0)
    torch.testing.assert_close(both, torch.log((wide.exp() + narrow.exp()) / 2))
    assert (narrow - wide)[1].max() > 2
    assert (wide - narrow)[0, 5] > 2


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


MEAN, VARIANCE, OFFSET = 0.6, 0.25, 0.3


def one_feature(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    features, _ = population(rng)
    features = features[:, :1] - 2.0
    weights = torch.tensor([0.5, 0.7, 0.3, 0.9], dtype=torch.float64)
    rates = features[:, 0, [5, 0, 3, 3]] * weights + OFFSET
    return features, rates + torch.from_numpy(rng.normal(size=rates.shape)) * (0.2 + 0.5 * rates.abs()).sqrt()


def varying_evidence(
    noise: NoiseModel, features: torch.Tensor, responses: torch.Tensor, size: int, variance: float = VARIANCE
) -> torch.Tensor:
    scalars = (torch.tensor(value, dtype=torch.float64) for value in (MEAN, variance, OFFSET))
    found = VaryingNoiseEvidence(noise, *scalars)
    for some, wanted in zip(features.split(size), responses.split(size), strict=True):
        found.add(some, wanted)
    return found.evidence()


def test_varying_noise_evidence_without_variation_is_the_density_of_the_responses(rng: np.random.Generator) -> None:
    """Laplace's method is exact for a Gaussian: y ~ N(c m + b, phi alpha I + T c c^T)."""
    features, responses = one_feature(rng)
    dispersion = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    noise = NoiseModel("rate", torch.tensor([1.7, 0.0, 0.0], dtype=torch.float64), dispersion)
    found = varying_evidence(noise, features, responses, 7, variance=4.0)
    expected = np.empty((N_NEURONS, N_ATOMS))
    for a in range(N_ATOMS):
        c = features[:, 0, a].numpy()
        for n in range(N_NEURONS):
            covariance = 1.7 * dispersion[n].item() * np.eye(N_IMAGES) + 4.0 * np.outer(c, c)
            density = multivariate_normal(MEAN * c + OFFSET, covariance)
            expected[n, a] = density.logpdf(responses[:, n].numpy())
    np.testing.assert_allclose(found.numpy() - expected, N_IMAGES / 2 * np.log(2 * np.pi), rtol=1e-9)


def log_likelihood(w: torch.Tensor, c: torch.Tensor, y: torch.Tensor, phi: torch.Tensor, gamma: float) -> torch.Tensor:
    """Of every response apart, for the variance phi (0.8 + 0.5 |r| + gamma r^2)."""
    rates = c * w + OFFSET
    variance = phi * (0.8 + 0.5 * rates.abs() + gamma * rates**2)
    return -0.5 * ((y - rates).square() / variance + variance.log())


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_varying_noise_evidence_is_one_step_of_laplaces_method(gamma: float, rng: np.random.Generator) -> None:
    """Derivatives by automatic differentiation of the log likelihood, expected information by quadrature."""
    features, responses = one_feature(rng)
    dispersion = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    noise = NoiseModel("estimated", torch.tensor([0.8, 0.5, gamma], dtype=torch.float64), dispersion)
    responses *= 2  # so that some places explain them badly
    found = varying_evidence(noise, features, responses, 11)
    nodes, shares = np.polynomial.hermite_e.hermegauss(20)
    larger = set()
    for n, a in np.ndindex(N_NEURONS, N_ATOMS):
        c, phi = features[:, 0, a], dispersion[n]
        w = torch.tensor(MEAN, dtype=torch.float64, requires_grad=True)

        value = log_likelihood(w, c, responses[:, n], phi, gamma).sum()
        (gradient,) = torch.autograd.grad(value, w, create_graph=True)
        observed = -torch.autograd.grad(gradient, w)[0].item()
        rates = (c * w + OFFSET).detach()
        deviation = (phi * (0.8 + 0.5 * rates.abs() + gamma * rates**2)).sqrt()
        expected = 0.0
        for node, share in zip(nodes, shares / shares.sum(), strict=True):  # over responses as the model draws them
            for part in log_likelihood(w, c, rates + node * deviation, phi, gamma):
                expected += share * torch.autograd.grad(part, w, retain_graph=True)[0].item() ** 2
        information = max(observed, expected)
        step = gradient.item() / (information + 1 / VARIANCE)
        larger.add(observed > expected)
        step = np.clip(step, -2 * VARIANCE**0.5, 2 * VARIANCE**0.5)
        gain = gradient.item() * step - 0.5 * (information + 1 / VARIANCE) * step**2
        wanted = value.item() + gain - 0.5 * np.log(1 + VARIANCE * information)
        assert found[n, a].item() == pytest.approx(wanted, rel=1e-9)
    assert larger == {True, False}, "each kind of information is the larger one somewhere"


def test_narrow_priors_have_the_moments_of_the_prior() -> None:
    mean, variance = torch.tensor(-0.7, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    priors = narrow_priors(mean, variance)
    shares, means, variances = (np.array([float(prior[i]) for prior in priors]) for i in range(3))
    assert len(priors) == 5
    assert shares.sum() == pytest.approx(1.0)
    assert shares @ means == pytest.approx(-0.7)
    assert shares @ (variances + (means + 0.7) ** 2) == pytest.approx(0.3, rel=0.02)
    assert narrow_priors(mean, torch.tensor(0.0048)) == [(1.0, mean, torch.tensor(0.0048))]


def test_a_wide_prior_in_narrow_parts_gives_the_integral_over_the_weight(rng: np.random.Generator) -> None:
    """Against quadrature: right and wrong places keep their order, and the evidence is out by few of many nats."""
    n_images = 200
    features = torch.from_numpy(rng.normal(size=(n_images, 1, 12)))
    features[:, :, 6:] *= 0.2  # places where little is seen, whatever the weight
    weights = np.array([0.4, 1.1, 0.5, 1.2])
    rates = features[:, 0, [0, 1, 2, 3]] * torch.from_numpy(weights)
    responses = rates + torch.from_numpy(rng.normal(size=rates.shape)) * (0.05 + 0.3 * rates.abs()).sqrt()
    noise = NoiseModel("rate", torch.tensor([0.05, 0.3, 0.0]).double(), torch.ones(4).double())
    mean, variance, offset = (torch.tensor(value, dtype=torch.float64) for value in (0.8, 0.15, 0.0))
    parts = []
    for share, at, narrow in narrow_priors(mean, variance):
        part = VaryingNoiseEvidence(noise, at, narrow, offset)
        part.add(features, responses)
        parts.append(np.log(share) + part.evidence())
    found = torch.stack(parts).logsumexp(0)
    grid = torch.linspace(-2, 4, 3001, dtype=torch.float64)
    log_prior = -0.5 * (grid - mean).square() / variance - 0.5 * (2 * np.pi * variance).log()
    exact = torch.empty_like(found)
    for a in range(12):
        drive = features[:, 0, a, None] * grid  # (n_images, n_weights)
        for n in range(4):
            likelihood = -noise_cost(noise, drive, responses[:, n, None]).sum(0)
            exact[n, a] = (likelihood + log_prior).logsumexp(0) + np.log(6 / 3000)
    assert found.argmax(1).tolist() == exact.argmax(1).tolist() == [0, 1, 2, 3]
    right = torch.arange(4)
    odds, true_odds = (values - values[right, right][:, None] for values in (found, exact))
    assert (found - exact)[right, right].abs().max() < 3
    assert true_odds.topk(2, 1).values[:, 1].max() < -20
    assert (odds - true_odds).max() < 10, "no wrong place is credited with much more than it has"


def noise_cost(noise: NoiseModel, rates: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    variance = noise.variance(rates)
    return 0.5 * ((responses - rates).square() / variance + variance.log())


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
