"""Weights of many neurons that are drawn towards each other as far as they are alike. Pure functions on tensors."""

import torch
from torch import Tensor


def shrunken(gram: Tensor, cross: Tensor, n_rounds: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """w_n = argmax of -w^T G_n w / 2 + b_n^T w + log N(w; m, T), with m and T of the highest likelihood over neurons.

    gram: (n_neurons, K, K), cross: (n_neurons, K); returns w (n_neurons, K), m (K,), T (K, K). Expectation maximisation
    of a normal hierarchy: alike neurons share one w, unlike ones keep their own. Fewer than four neurons make no prior:
    then w is each neuron's own estimate, m their mean, and T says how far those estimates can be trusted.
    """
    n_neurons, n_features = cross.shape
    eye = torch.eye(n_features).to(gram)
    gram = gram + 1e-6 * gram.diagonal(dim1=1, dim2=2).mean() * eye
    own = torch.linalg.inv(gram)  # covariance of each neuron's own estimate
    values = (own @ cross[:, :, None])[:, :, 0]
    mean = values.mean(0)
    least = 1e-6 * values.square().mean().clamp(min=1e-12)
    if n_neurons < 4:
        apart = values - mean
        return values, mean, _positive(apart.T @ apart / n_neurons + own.mean(0), least)
    prior = _positive(torch.cov(values.T).view(n_features, n_features) - own.mean(0), least)  # by moments, at first
    for _ in range(n_rounds):
        inverse = torch.linalg.inv(prior)
        covariance = torch.linalg.inv(gram + inverse)
        values = (covariance @ (cross + mean @ inverse)[:, :, None])[:, :, 0]
        mean = values.mean(0)
        prior = _positive((values - mean).T @ (values - mean) / n_neurons + covariance.mean(0), least)
    return values, mean, prior


def _positive(matrix: Tensor, least: Tensor) -> Tensor:
    """The nearest symmetric matrix whose eigenvalues are at least `least`."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors @ torch.diag(torch.maximum(values, least)) @ vectors.T
