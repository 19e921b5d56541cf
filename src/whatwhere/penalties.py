"""Penalties on kernels and readout weights, each a scalar tensor that means the same for any population.

Kernels have shape (n_maps, n_input_maps, height, width); masks (n_neurons, n_pixels); feature weights
(n_neurons, n_features).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import conv2d

LAPLACIAN = torch.tensor([[0.5, 1.0, 0.5], [1.0, -6.0, 1.0], [0.5, 1.0, 0.5]])
_TINY = 1e-12


def weighted_sum(strengths: Mapping[str, float], terms: Mapping[str, Callable[[], Tensor]], zero: Tensor) -> Tensor:
    """sum_i strength_i term_i, a scalar; terms of strength 0 are not computed. zero: a scalar 0 on the device.

    >>> weighted_sum({"a": 2.0, "b": 0.0}, {"a": lambda: torch.tensor(3.0)}, torch.tensor(0.0)).item()
    6.0
    """
    total = zero
    for name, term in terms.items():
        if strengths[name]:
            total = total + strengths[name] * term()
    return total


def mean_l1(weights: Tensor) -> Tensor:
    """mean_n |v_n|_1 of weights (n_neurons, ...), the readout penalties of equation 4 averaged over neurons.

    >>> mean_l1(torch.tensor([[1.0, -2.0], [0.0, 1.0]])).item()
    2.0
    """
    return weights.abs().sum() / len(weights)


def mean_l2(weights: Tensor) -> Tensor:
    """mean_n |v_n|_2^2 of weights (n_neurons, ...): weight decay of the fully connected readout.

    >>> mean_l2(torch.tensor([[1.0, -2.0], [0.0, 1.0]])).item()
    3.0
    """
    return weights.square().sum() / len(weights)


def mean_product_l1(masks: Tensor, feature_weights: Tensor) -> Tensor:
    """mean_n |m_n|_1 |w_n|_1, the form of the published V1 code: blind to the scale that m and w share.

    >>> mean_product_l1(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, -0.5]])).item()
    3.0
    """
    return (masks.abs().sum(1) * feature_weights.abs().sum(1)).mean()


def smoothness(kernels: Tensor, relative: bool = True) -> Tensor:
    """sum_{ijkl} (W_kl * L)_ij^2 (equation 6), the kernels padded with zeros.

    Relative: each map's sum is divided by the squared norm of its kernel, since batch normalisation makes an
    absolute penalty free to escape by shrinking the kernel.
    """
    n_maps, n_inputs, height, width = kernels.shape
    planes = kernels.reshape(n_maps * n_inputs, 1, height, width)
    laplacian = LAPLACIAN.to(kernels)[None, None]
    rough = conv2d(planes, laplacian, padding=1).square().reshape(n_maps, -1).sum(1)  # (n_maps,)
    return (rough / _squared_norms(kernels)).sum() if relative else rough.sum()


def group_sparsity(group_norms: Tensor, relative: bool = True, smooth_only: bool = False) -> Tensor:
    """sum_{kl} |W_kl|_2 of norms (n_maps, n_input_maps): few input maps for each map.

    Equation 7 as printed sums over pixels; its text and the published code group by kernel, as here. Relative: each
    map's sum is divided by the norm of its whole kernel, which lies between 1 (one input map) and sqrt(n_input_maps).
    smooth_only: its gradient is that of the denominator alone, and 0 where there is none (see `group_slopes`).

    >>> group_sparsity(torch.tensor([[3.0, 4.0]])).item()
    1.4
    """
    sums = group_norms.sum(1)  # (n_maps,)
    sums = sums.detach() if smooth_only else sums
    return (sums / _squared_norms(group_norms).sqrt()).sum() if relative else sums.sum()


def group_slopes(group_norms: Tensor, relative: bool = True) -> Tensor:
    """The derivative of `group_sparsity` by each |W_kl|_2 of the sum, its denominator held: (n_maps, 1).

    >>> group_slopes(torch.tensor([[3.0, 4.0]])).item()
    0.2
    """
    norms = _squared_norms(group_norms).sqrt()[:, None]
    return 1 / norms if relative else torch.ones_like(norms)


def kernel_norms(kernels: Tensor) -> Tensor:
    """|W_kl|_2 of kernels (n_maps, n_input_maps, height, width), with a finite gradient at zero."""
    return (kernels.square().sum((2, 3)) + _TINY).sqrt()


def _squared_norms(weights: Tensor) -> Tensor:
    return weights.flatten(1).square().sum(1) + _TINY
