"""Which kernels the population uses: the first layer's, sorted by how much all neurons read them."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from whatwhere.checks import check_finite, check_ndim
from whatwhere.errors import OptionError
from whatwhere.estimators import CNN
from whatwhere.report.kernel_grid import kernels


def kernels_by_use(model: CNN, *, most: int | None = None) -> Figure:
    """Every first-layer kernel, the one that the population reads most first, with its share of all that is read.

    The share is `kernel_use`, the titles are the kernels' numbers in `kernels_`, the scales those of `kernels`.

    - `model`: a fitted convolutional one; `most`: so many kernels at most, all by default

    Raises `OptionError` for `most` under 1, scikit-learn's `NotFittedError` before `fit`.
    """
    if most is not None and most < 1:
        raise OptionError(f"most must be at least 1, got {most}: None shows all kernels.")
    use = kernel_use(model)
    order = np.argsort(-use, kind="stable")[:most]
    return kernels(model.kernels_[order], names=[str(number) for number in order], share=use[order])


def feature_use(feature_weights: Any) -> np.ndarray:
    """How much the population reads each feature map: use_k = mean_n |w_kn| / sum_l |w_ln|, (n_features,).

    Every neuron counts once, for masks and weights share a scale that means nothing. They sum to one; a neuron without
    weights is left out, and without any neuron left all are 0.

    - `feature_weights` (n_neurons, n_features)

    Raises `InputError` where shapes do not fit or weights are not finite.

    >>> feature_use([[1.0, -3.0], [0.0, 2.0], [0.0, 0.0]])
    array([0.125, 0.875])
    """
    weights = np.abs(np.asarray(feature_weights, float))
    check_ndim("feature_weights", weights, ("n_neurons", "n_features"))
    check_finite("feature_weights", weights, row="neuron")
    return _shares(weights).sum(axis=0) / max(1, np.count_nonzero(weights.any(axis=1)))


def kernel_use(model: CNN) -> np.ndarray:
    """How much the population reads each kernel of `kernels_`, (n_kernels,); they sum to one.

    In a core of one layer `feature_use`. Through later layers a map's use is handed on to the maps that it is made of,
    in proportion to the norms of their kernels, use_l = sum_k use_k |W_kl|_2 / sum_m |W_km|_2: under batch
    normalisation maps have one variance, so the norms can be compared. Nonlinearities are passed over.
    """
    use = feature_use(model.feature_weights_)
    for number, layer in reversed(list(enumerate(model.model_.core.layers))):
        if number or layer.depthwise is not None:  # a separable layer's kernels belong to the maps that it reads
            use = use @ _shares(layer.group_norms().detach().cpu().numpy().astype(float))
    return use


def _shares(weights: np.ndarray) -> np.ndarray:
    """Each row over its sum; a row of zeros stays."""
    sums = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, sums, out=np.zeros_like(weights), where=sums > 0)
