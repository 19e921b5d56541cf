"""Weights under a normal hierarchy against its closed form, SciPy's maximum of its likelihood, and its limits."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from whatwhere.normal_hierarchy import shrunken

N_NEURONS, K = 12, 3


def population(
    rng: np.random.Generator, n_images: int, n_neurons: int = N_NEURONS, spread: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Gram matrices, cross products and the true weights of linear neurons with noise of variance 1."""
    weights = np.array([1.0, -0.5, 0.2]) + spread * rng.normal(size=(n_neurons, K))
    features = rng.normal(size=(n_neurons, n_images, K)) + 0.3
    responses = np.einsum("nbk,nk->nb", features, weights) + rng.normal(size=(n_neurons, n_images))
    gram = np.einsum("nbk,nbl->nkl", features, features)
    return torch.from_numpy(gram), torch.from_numpy(np.einsum("nbk,nb->nk", features, responses)), weights


def own_estimates(gram: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve(gram, cross)


def test_at_its_fixed_point_it_is_the_closed_form_of_the_hierarchy(rng: np.random.Generator) -> None:
    """w_n = (G + T^-1)^-1 (b + T^-1 m); m their mean; T their scatter and what is not known of each, on average."""
    gram, cross, _ = population(rng, 15)
    values, mean, covariance = (tensor.numpy() for tensor in shrunken(gram, cross, n_rounds=3_000))
    inverse = np.linalg.inv(covariance)
    expected, unknown = np.empty_like(values), np.zeros((K, K))
    for n in range(N_NEURONS):
        precision = gram[n].numpy() + inverse
        expected[n] = np.linalg.solve(precision, cross[n].numpy() + inverse @ mean)
        unknown += np.linalg.inv(precision) / N_NEURONS
    np.testing.assert_allclose(values, expected, rtol=1e-5)  # a millionth is added to the diagonal of G
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(values.T, bias=True) + unknown, atol=1e-5)


def log_likelihood(mean: np.ndarray, covariance: np.ndarray, gram: np.ndarray, cross: np.ndarray) -> float:
    """Of each neuron's own estimate G^-1 b, which is distributed as N(m, T + G^-1)."""
    own = np.linalg.inv(gram)
    return sum(
        multivariate_normal.logpdf(estimate @ b, mean, covariance + estimate)
        for estimate, b in zip(own, cross, strict=True)
    )


def test_mean_and_covariance_have_the_highest_likelihood(rng: np.random.Generator) -> None:
    gram, cross, _ = population(rng, 40, spread=1.0)
    _, mean, covariance = (tensor.numpy() for tensor in shrunken(gram, cross, n_rounds=300))
    rows, columns = np.tril_indices(K)

    def loss(values: np.ndarray) -> float:
        root = np.zeros((K, K))
        root[rows, columns] = values[K:]
        return -log_likelihood(values[:K], root @ root.T, gram.numpy(), cross.numpy())

    best = minimize(loss, np.concatenate([np.zeros(K), 0.5 * np.eye(K)[rows, columns]]))
    assert log_likelihood(mean, covariance, gram.numpy(), cross.numpy()) == pytest.approx(-best.fun, abs=1e-4)
    np.testing.assert_allclose(mean, best.x[:K], atol=1e-3)


def test_with_much_data_each_neuron_keeps_its_own_weights(rng: np.random.Generator) -> None:
    distances = []
    for n_images in (10, 100, 10_000):
        gram, cross, _ = population(rng, n_images)
        values = shrunken(gram, cross)[0]
        distances.append((values - own_estimates(gram, cross)).abs().max().item())
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-3


def test_with_little_data_alike_neurons_share_one_weight_that_is_nearer_the_truth(rng: np.random.Generator) -> None:
    gram, cross, weights = population(rng, 5, n_neurons=40, spread=0.0)
    values, own = shrunken(gram, cross, n_rounds=300)[0].numpy(), own_estimates(gram, cross).numpy()
    assert values.std(0).max() < 0.05 * own.std(0).min()
    pooled = np.linalg.solve(gram.sum(0).numpy(), cross.sum(0).numpy())
    np.testing.assert_allclose(values.mean(0), pooled, atol=0.02)
    assert ((values - weights) ** 2).mean() < 0.02 * ((own - weights) ** 2).mean()


def test_unlike_neurons_are_nearer_the_truth_than_alone_or_all_the_same(rng: np.random.Generator) -> None:
    gram, cross, weights = population(rng, 6, n_neurons=200)
    errors = [
        ((values - weights) ** 2).mean()
        for values in (
            shrunken(gram, cross)[0].numpy(),
            own_estimates(gram, cross).numpy(),
            np.linalg.solve(gram.sum(0).numpy(), cross.sum(0).numpy())[None],
        )
    ]
    assert errors[0] < 0.8 * min(errors[1:])


@pytest.mark.parametrize("n_neurons", [1, 2, 3])
def test_few_neurons_make_no_prior(n_neurons: int, rng: np.random.Generator) -> None:
    gram, cross, _ = population(rng, 15, n_neurons)
    values, mean, covariance = shrunken(gram, cross)
    torch.testing.assert_close(values, own_estimates(gram, cross), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean, values.mean(0))
    scatter = np.cov(values.numpy().T, bias=True) if n_neurons > 1 else 0.0
    expected = scatter + np.linalg.inv(gram.numpy()).mean(0)
    np.testing.assert_allclose(covariance.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_neurons_may_be_permuted_and_one_feature_is_enough(rng: np.random.Generator) -> None:
    gram, cross, _ = population(rng, 8)
    order = rng.permutation(N_NEURONS)
    before, after = shrunken(gram, cross), shrunken(gram[order], cross[order])
    for one, other in zip(before, (after[0][np.argsort(order)], *after[1:]), strict=True):
        torch.testing.assert_close(one, other)
    single = shrunken(gram[:, :1, :1], cross[:, :1])
    assert [tuple(tensor.shape) for tensor in single] == [(N_NEURONS, 1), (1,), (1, 1)]


def test_neurons_without_any_response_or_feature_give_finite_weights(rng: np.random.Generator) -> None:
    gram, cross, _ = population(rng, 8)
    cross[0] = 0.0
    gram[1], cross[1] = 0.0, 0.0
    for tensor in shrunken(gram, cross):
        assert torch.isfinite(tensor).all()
    nothing = shrunken(torch.zeros_like(gram) + 1e-6 * torch.eye(K).double(), torch.zeros_like(cross))
    assert nothing[0].abs().max() == 0
