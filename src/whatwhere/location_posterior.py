"""The posterior over where each neuron looks: log evidence of every place, regions, entropy. Pure functions on tensors.

A place is an atom: a width s and a pixel l of the map. Shapes: features (n_images, K, n_atoms), responses (n_images,
n_neurons), evidence and posterior (n_neurons, n_atoms).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from whatwhere.errors import OptionError
from whatwhere.noise_models import NoiseModel

_REACH = 3  # standard deviations of a blur that are kept
_FARTHEST = 2.0  # standard deviations of the prior that one step may go
_NARROW = 0.1  # standard deviation of weights, relative to their mean, that one step spans


def blur(maps: Tensor, width: float) -> Tensor:
    """Maps (..., h, w) smoothed by a Gaussian of standard deviation `width` pixels, zeros beyond the border.

    The kernel sums to one; 0 leaves the maps as they are. It is symmetric, so it is its own adjoint.
    """
    if width == 0:
        return maps
    of_rows, of_columns = (_blur_matrix(size, width, maps) for size in maps.shape[-2:])
    return of_rows @ maps @ of_columns  # far faster than convolutions of one map each


def blur_places(maps: Tensor, width: float) -> Tensor:
    """`blur` of maps that have their pixels first, (h, w, ...), and keep them so in memory."""
    if width == 0:
        return maps
    height, columns = maps.shape[:2]
    of_rows, of_columns = (_blur_matrix(size, width, maps) for size in (height, columns))
    down = of_rows @ maps.reshape(height, -1)
    return (of_columns @ down.view(height, columns, -1)).view_as(maps)


def features_at_places(maps: Tensor, widths: Sequence[float]) -> Tensor:
    """What a neuron reads at each place, the maps under its Gaussian: (n, K, h, w) to (n, K, n_widths * h * w)."""
    return torch.cat([blur(maps, width).flatten(2) for width in widths], 2)


def _blur_matrix(size: int, width: float, like: Tensor) -> Tensor:
    """(size, size), symmetric: the Gaussian's weight between any two of `size` pixels in a row."""
    reach = max(1, math.ceil(_REACH * width))
    steps = torch.arange(-reach, reach + 1, device=like.device, dtype=torch.float64)
    total = torch.exp(-steps.square() / (2 * width**2)).sum()
    pixels = torch.arange(size, device=like.device, dtype=torch.float64)
    apart = (pixels[:, None] - pixels).abs()
    return torch.where(apart <= reach, torch.exp(-apart.square() / (2 * width**2)) / total, 0.0).to(like.dtype)


class FeatureMoments:
    """sum_b c_a and sum_b c_a c_a^T of the features at every atom, batch by batch: images need not fit together."""

    def __init__(self, n_features: int, n_atoms: int, like: Tensor) -> None:
        self.n_images = 0
        self.sums = like.new_zeros(n_atoms, n_features)
        self.gram = like.new_zeros(n_atoms, n_features, n_features)

    def add(self, features: Tensor) -> None:
        """One batch: (n_images, K, n_atoms)."""
        self.n_images += len(features)
        atoms_first = features.permute(2, 1, 0)  # (n_atoms, K, n_images)
        self.sums += atoms_first.sum(2)
        self.gram += atoms_first @ atoms_first.mT

    def centred_gram(self) -> Tensor:
        """G_a = sum_b c_a c_a^T of centred features: (n_atoms, K, K)."""
        mean = self.sums / self.n_images
        return self.gram - self.n_images * mean[:, :, None] * mean[:, None]

    def projected(self, weights: Tensor) -> "FeatureMoments":
        """Of the one feature that is the sum of these with weights (K,)."""
        found = FeatureMoments(1, len(self.sums), self.sums)
        found.n_images = self.n_images
        found.sums = (self.sums @ weights)[:, None]
        found.gram = torch.einsum("k,akl,l->a", weights, self.gram, weights)[:, None, None]
        return found


def constant_noise_evidence(
    moments: FeatureMoments, cross: Tensor, variances: Tensor, ridges: Sequence[float]
) -> Tensor:
    """log p(y_n | n looks at atom a), weights integrated out, for noise of constant variance: (n_neurons, n_atoms).

    With centred features and responses and w ~ N(0, tau^2 I), where tau^2 = s_n^2 / ridge, relative to no weights:
    -1/2 log|I + G_a / ridge| + 1/2 S_an^T (G_a + ridge I)^-1 S_an / s_n^2. Of several ridges each is as likely before
    the responses are seen, for every neuron anew: some neurons follow the images far more than others, and a prior
    that is too wide for one makes it sure of places where noise fits best.

    - `cross`: S_an = sum_b c_a y_bn, responses centred, (n_atoms, K, n_neurons)
    - `variances`: s_n^2, (n_neurons,)
    - `ridges`: s_n^2 / tau^2, relative to the mean of G's diagonal
    """
    gram = moments.centred_gram()
    power = gram.diagonal(dim1=1, dim2=2).mean().clamp(min=1e-12)
    values, vectors = torch.linalg.eigh(gram)
    sizes = power * torch.tensor(ridges).to(gram)
    values = values.clamp(min=0.0)[:, None]  # (n_atoms, 1, K)
    determinants = torch.log1p(values / sizes[:, None]).sum(2)  # (n_atoms, n_ridges)
    gains = (1 / (values + sizes[:, None])) @ (vectors.mT @ cross).square_()  # (n_atoms, n_ridges, n_neurons)
    evidence = 0.5 * (gains / variances.clamp(min=1e-12) - determinants[:, :, None])
    return torch.logsumexp(evidence, 1).T - math.log(len(ridges))


class VaryingNoiseEvidence:
    """log p(y_n | n looks at atom a) of one feature, its weight integrated out; the variance varies with the rate.

    Laplace's method from the population's mean weight m, the same for all neurons, under the prior w ~ N(m, T): with
    r_ba = m c_ba + b and e = y - r, L = -1/2 sum_b [e^2 / phi v + log phi v], its gradient g = sum_b c dL/dr and
    information H, log evidence = L + 1/2 g^2 / (H + 1/T) - 1/2 log(1 + T H). Since r does not depend on the neuron, all
    of it is a few matrix products with y and y^2. H is the larger of the expected and the observed information: at a
    wrong place responses are far off, and the expected one would promise a gain that no weight keeps. For the same
    reason a step ends at two standard deviations of the prior. phi_n is each neuron's dispersion.
    """

    def __init__(self, noise: NoiseModel, mean: Tensor, variance: Tensor, offset: Tensor) -> None:
        """mean, variance: scalars, of the weight over neurons; offset: a scalar, that of the rates."""
        self.noise, self.mean, self.prior, self.offset = noise, mean, variance, offset
        self.likelihood, self.gradient, self.expected, self.observed = (torch.zeros(()) for _ in range(4))

    def add(self, features: Tensor, responses: Tensor) -> None:
        """One batch: features (n_images, 1, n_atoms), responses (n_images, n_neurons)."""
        c = features[:, 0]
        r = self.mean * c + self.offset
        v, slope, bend = self.noise.variance(r), self.noise.slope(r), self.noise.bend()
        phi, squares = self.noise.dispersion, responses.square()

        def of_errors(linear: Tensor, square: Tensor) -> Tensor:
            """sum_b linear_ba e_ban + square_ba e_ban^2: (n_atoms, n_neurons)."""
            alone = (square * r.square() - linear * r).sum(0)[:, None]
            return (linear - 2 * square * r).T @ responses + square.T @ squares + alone

        fit = of_errors(torch.zeros_like(v), 1 / v)
        self.likelihood = self.likelihood - 0.5 * (fit / phi + (v.log().sum(0)[:, None] + len(c) * phi.log()))
        half = 0.5 * slope / v
        self.gradient = self.gradient + of_errors(c / v, c * half / v) / phi - (c * half).sum(0)[:, None]
        c = c.square()
        square = (slope.square() / v - 0.5 * bend) / v.square()
        free = (c * (0.5 * bend / v - 2 * half.square())).sum(0)[:, None]
        curved = of_errors(2 * c * slope / v.square(), c * square) + (c / v).sum(0)[:, None]
        self.observed = self.observed + curved / phi + free
        self.expected = self.expected + (c / v).sum(0)[:, None] / phi + 2 * (c * half.square()).sum(0)[:, None]

    def evidence(self) -> Tensor:
        """(n_neurons, n_atoms)."""
        information = torch.maximum(self.expected, self.observed)
        curvature = information + 1 / self.prior
        step = self.gradient / curvature
        reach = _FARTHEST * self.prior.sqrt()
        step = step.clamp(-reach, reach)
        gain = self.gradient * step - 0.5 * curvature * step.square()
        return (self.likelihood + gain - 0.5 * (1 + self.prior * information).log()).T


def narrow_priors(mean: Tensor, variance: Tensor) -> list[tuple[float, Tensor, Tensor]]:
    """The prior N(m, T) of one weight as a mixture of normals narrow enough for one step of Laplace's method each.

    mean, variance: scalars. Returns share, mean and variance of each: five of a quarter of the variance, sqrt(T) apart,
    with the prior's mean and nearly its variance; N(m, T) itself where sqrt(T) < |m| / 10.

    >>> [(round(share, 2), at.item()) for share, at, _ in narrow_priors(torch.tensor(1.0), torch.tensor(0.25))]
    [(0.03, 0.0), (0.24, 0.5), (0.46, 1.0), (0.24, 1.5), (0.03, 2.0)]
    """
    deviation = variance.sqrt()
    if deviation < _NARROW * mean.abs():
        return [(1.0, mean, variance)]
    shares = {step: math.exp(-(step**2) / 1.5) for step in (-2, -1, 0, 1, 2)}
    total = sum(shares.values())
    return [(share / total, mean + step * deviation, variance / 4) for step, share in shares.items()]


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

    Highest posterior density: places are taken from the most probable on (of equal ones the first), until their sum
    reaches the level. Raises `OptionError` for a level that is not above 0 and at most 1.

    >>> credible_regions(np.array([[0.5, 0.1, 0.4]]), 0.9)
    array([[ True, False,  True]])
    """
    if not 0 < level <= 1:
        raise OptionError(f"level must be above 0 and at most 1, got {level}: 0.9 is usual.")
    flat = probabilities.reshape(len(probabilities), -1).astype(np.float64)
    flat = flat / flat.sum(1, keepdims=True)  # a sum short of 1 by rounding would never reach the level 1
    order = np.argsort(-flat, axis=1, kind="stable")
    ranked = np.take_along_axis(flat, order, 1)
    before = np.cumsum(ranked, 1) - ranked
    inside = np.zeros(flat.shape, bool)
    np.put_along_axis(inside, order, before < level - 1e-9, 1)
    return inside.reshape(probabilities.shape)
