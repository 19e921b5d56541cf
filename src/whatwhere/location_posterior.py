"""The posterior over where each neuron looks: log evidence of every place, regions, entropy. Pure functions on tensors.

A place is an atom: a width s and a pixel l of the map. Shapes: features (n_images, K, n_atoms), responses (n_images,
n_neurons), evidence and posterior (n_neurons, n_atoms).
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_REACH = 3  # standard deviations of a blur that are kept


def blur(maps: Tensor, width: float) -> Tensor:
    """Maps (..., h, w) smoothed by a Gaussian of standard deviation `width` pixels, zeros beyond the border.

    The kernel sums to one; 0 leaves the maps as they are. It is symmetric, so it is its own adjoint.
    """
    if width == 0:
        return maps
    reach = max(1, math.ceil(_REACH * width))
    steps = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-steps.square() / (2 * width**2))
    kernel = kernel / kernel.sum()
    planes = maps.reshape(-1, 1, *maps.shape[-2:])
    planes = functional.conv2d(planes, kernel.view(1, 1, -1, 1), padding=(reach, 0))
    planes = functional.conv2d(planes, kernel.view(1, 1, 1, -1), padding=(0, reach))
    return planes.view_as(maps)


class ConstantNoiseEvidence:
    """log p(y_n | n looks at atom a), weights integrated out, for noise of constant variance s_n^2.

    With centred features and responses and w ~ N(0, tau_n^2 I), where tau_n^2 = s_n^2 / ridge:
    -1/2 log|I + G_a / ridge| + 1/2 S_an^T (G_a + ridge I)^-1 S_an / s_n^2, up to a constant, with G_a = sum_b c_a c_a^T
    and S_an = sum_b c_a y_bn. Both sums are taken batch by batch, so images never have to fit in memory together.
    """

    def __init__(self, n_features: int, n_atoms: int, responses: Tensor) -> None:
        n_neurons = responses.shape[1]
        self.n_images = 0
        self.means = responses.mean(0)
        self.variances = responses.var(0, correction=0).clamp(min=1e-12)
        self.sums = responses.new_zeros(n_atoms, n_features)
        self.gram = responses.new_zeros(n_atoms, n_features, n_features)
        self.cross = responses.new_zeros(n_atoms * n_features, n_neurons)

    def add(self, features: Tensor, responses: Tensor) -> None:
        """One batch: features (n_images, K, n_atoms), responses (n_images, n_neurons)."""
        self.n_images += len(features)
        atoms_first = features.permute(2, 1, 0)  # (n_atoms, K, n_images)
        self.sums += atoms_first.sum(2)
        self.gram += atoms_first @ atoms_first.mT
        centred = responses - self.means
        self.cross += features.permute(0, 2, 1).reshape(len(features), -1).T @ centred  # (n_atoms * K, n_neurons)

    def evidence(self, ridge: float) -> Tensor:
        """(n_neurons, n_atoms). ridge: s_n^2 / tau_n^2, relative to the mean of G's diagonal."""
        n_atoms, n_features = self.sums.shape
        mean = self.sums / self.n_images
        gram = self.gram - self.n_images * mean[:, :, None] * mean[:, None]  # (n_atoms, K, K)
        size = gram.diagonal(dim1=1, dim2=2).mean().clamp(min=1e-12) * ridge
        factor = torch.linalg.cholesky(gram + size * torch.eye(n_features).to(gram))
        cross = self.cross.view(n_atoms, n_features, -1)  # (n_atoms, K, n_neurons)
        solved = torch.linalg.solve_triangular(factor, cross, upper=False)
        determinant = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1) - n_features * size.log()  # (n_atoms,)
        gain = solved.square().sum(1) / self.variances  # (n_atoms, n_neurons)
        return (0.5 * (gain - determinant[:, None])).T


def posterior(evidence: Tensor, temperature: float = 1.0) -> Tensor:
    """q_n = softmax(evidence / temperature) over the atoms, (n_neurons, n_atoms): a flat prior.

    >>> posterior(torch.tensor([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    return torch.softmax(evidence / temperature, 1)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Of each neuron's posterior, (n_neurons,), in nats: 0 where it is sure, log of the number of places at most.

    probabilities: (n_neurons, ...), each neuron's sum to one.

    >>> entropy(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])).round(3)
    array([0.693, 0.   ])
    """
    flat = probabilities.reshape(len(probabilities), -1).astype(np.float64)
    logarithm = np.log(flat, out=np.zeros_like(flat), where=flat > 0)
    return -(flat * logarithm).sum(1) + 0.0


def credible_regions(probabilities: np.ndarray, level: float = 0.9) -> np.ndarray:
    """The smallest set of places that holds at least `level` of each neuron's posterior: bool, of the same shape.

    Highest posterior density: places are taken from the most probable on, until their sum reaches the level.

    >>> credible_regions(np.array([[0.5, 0.1, 0.4]]), 0.9)
    array([[ True, False,  True]])
    """
    flat = probabilities.reshape(len(probabilities), -1).astype(np.float64)
    order = np.argsort(-flat, axis=1, kind="stable")
    ranked = np.take_along_axis(flat, order, 1)
    before = np.cumsum(ranked, 1) - ranked
    inside = np.zeros(flat.shape, bool)
    np.put_along_axis(inside, order, before < level - 1e-9, 1)
    return inside.reshape(probabilities.shape)
