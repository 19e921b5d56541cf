"""Variance explained, and how much of it can be: signal, noise and the ceilings that follow from them.

One convention throughout. With n images, k_i trials of image i, and m_i their mean,

    noise    = sum_i sum_t (y_it - m_i)^2 / sum_i (k_i - 1)           variance of a trial about its rate
    Var(m)   = sum_i (m_i - mean m)^2 / (n - 1)                       variance of the averaged response
    signal   = Var(m) - noise <1/k_i>                                 variance of the rate over images
    total    = signal + noise                                         variance of a single trial

Each divides by its degrees of freedom (ddof = 1), so each is unbiased, however ragged the repeats; images of
one trial add nothing to the noise. Nothing is clipped: a neuron without signal has an estimate of either
sign. With equal repeats `signal` is the signal power of Sahani and Linden 2003 and Schoppe et al. 2016, but
for trials of different images, which they pair by number and which are unrelated here.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whatwhere.metrics.correlations import average_kernel
from whatwhere.metrics.image_sums import (
    TINY,
    Array,
    ImageSums,
    ScoreOptions,
    Total,
    check_repeats,
    over_images,
    sum_images,
)


class Variances(NamedTuple):
    """Variances per neuron in squared units of the response; NaN where there are none to divide by."""

    signal: Array
    noise: Array
    of_means: Array  # of the averaged response
    explainable: Array  # signal / (signal + noise); NaN for a constant response


def divide(numerator: Array, denominator: Array, where: NDArray[np.bool_]) -> Array:
    """The ratio, NaN (left out) elsewhere."""
    return np.where(where, numerator / np.where(where, denominator, 1.0), np.nan)


def variances(data: ImageSums, total: Total) -> Variances:
    """The module's four estimates from weighted sums over images."""
    k, m = data.n_repeats, data.means
    n = total(np.ones_like(k))
    freedom = total(k - 1)
    noise = divide(total(data.within), freedom, freedom > 0)  # a resample may hold no repeated image
    of_means = (total(m * m) - total(m) ** 2 / n) / (n - 1)
    signal = of_means - noise * total(1 / k) / n
    second_moment = total(data.within + k * m * m) / total(k)
    varies = signal + noise > TINY * second_moment
    return Variances(signal, noise, of_means, divide(signal, signal + noise, varies))


def fev_kernel(data: ImageSums, total: Total, options: ScoreOptions) -> Array:
    """Equation 5, the responses being noise-free rates."""
    n = total(np.ones_like(data.n_repeats))
    spread = total(data.means**2)
    variance = spread - total(data.means) ** 2 / n
    varies = variance > TINY * spread
    return np.where(varies, 1 - total(squared_error(data)) / np.where(varies, variance, 1.0), 0.0)


def squared_error(data: ImageSums) -> Array:
    """(prediction - mean response)^2 of each image."""
    return (data.predictions + (data.prediction_centre - data.response_centre) - data.means) ** 2


def explainable_kernel(data: ImageSums, total: Total, options: ScoreOptions) -> Array:
    """Signal over total variance."""
    return variances(data, total).explainable


def noise_power_kernel(data: ImageSums, total: Total, options: ScoreOptions) -> Array:
    """Noise over total variance."""
    return 1 - variances(data, total).explainable


def feve_kernel(data: ImageSums, total: Total, options: ScoreOptions) -> Array:
    """Explained over explainable variance, for neurons with enough of it."""
    found = variances(data, total)
    error = total(squared_error(data)) / total(np.ones_like(data.n_repeats))
    enough = (found.explainable >= options.floor) & (found.signal > TINY * found.of_means)
    return divide(found.of_means - error, found.signal, enough)


def ceiling_kernel(data: ImageSums, total: Total, options: ScoreOptions) -> Array:
    """CC_max."""
    found = variances(data, total)
    enough = found.signal > TINY * found.of_means
    return np.sqrt(divide(found.signal, found.of_means, enough))


def normalized_kernel(data: ImageSums, total: Total, options: ScoreOptions) -> Array:
    """CC_abs / CC_max."""
    return average_kernel(data, total, options) / ceiling_kernel(data, total, options)


def fev(predictions: ArrayLike, rates: ArrayLike) -> Array:
    """Fraction of explainable variance explained, the noise-free rates being known.

    FEV_n = 1 - <(r_hat_in - r_in)^2>_i / Var_i(r_in) (Klindt et al. 2017, equation 5). The rates of these
    images are known, not estimated, so Var divides by n_images like the mean: this is R^2, and predicting the
    mean rate gives 0. A constant rate has nothing to explain: its FEV is 0 (`constant_neurons` tells which,
    `score_table` counts them).

    Both arrays (n_images, n_neurons) in one unit; returns (n_neurons,), at most 1. Raises `InputError` for
    shapes that differ, values that are not finite, or fewer than two images.

    >>> fev([[1.0, 3.0], [2.0, 3.0], [3.0, 3.0]], [[1.0, 2.0], [2.0, 2.0], [4.0, 2.0]])
    array([0.79, 0.  ])
    """
    return fev_kernel(sum_images(predictions, rates, None), over_images, ScoreOptions())


def explainable_variance(responses: ArrayLike, image_index: ArrayLike) -> Array:
    """Fraction of a single trial's variance that the image explains.

    EV_n = signal / total = (total - noise) / total, estimated as in this module's docstring, not clipped.

    responses (n_trials, n_neurons), image_index (n_trials,); returns (n_neurons,), NaN (left out) for a
    constant response. Raises `InputError` where no image was repeated, or fewer than two were shown.

    >>> explainable_variance([[0.0], [2.0], [4.0], [6.0]], [0, 0, 1, 1])  # noise 2, Var(m) 8, signal 7
    array([0.777])
    """
    data = check_repeats(sum_images(None, responses, image_index), "explainable_variance")
    return explainable_kernel(data, over_images, ScoreOptions())


def normalized_noise_power(responses: ArrayLike, image_index: ArrayLike) -> Array:
    """Fraction of a single trial's variance that is noise: noise / total = 1 - `explainable_variance`.

    The quantity of Antolik et al. 2016 and Sahani and Linden 2003; shapes and errors as in
    `explainable_variance`.

    >>> normalized_noise_power([[0.0], [2.0], [4.0], [6.0]], [0, 0, 1, 1])
    array([0.222])
    """
    data = check_repeats(sum_images(None, responses, image_index), "normalized_noise_power")
    return noise_power_kernel(data, over_images, ScoreOptions())


def feve(
    predictions: ArrayLike, responses: ArrayLike, image_index: ArrayLike, *, floor: float = ScoreOptions.floor
) -> Array:
    """Fraction of explainable variance explained, corrected for the noise of the averaged responses.

    FEVE_n = (Var(m) - <(r_hat_i - m_i)^2>_i) / (Var(m) - noise <1 / k_i>), as in this module's docstring
    (Cadena et al. 2019, for averages). The error divides by n_images: a prediction made elsewhere costs no
    degree of freedom. So the true rates give 1 and the true mean gives 0 in expectation; without
    noise 1 - FEVE = (1 - FEV) (n - 1) / n.

    predictions (n_images, n_neurons) and responses (n_trials, n_neurons) in one unit, image_index
    (n_trials,); returns (n_neurons,). Neurons of explainable variance under `floor` (default 0.15, Cadena et
    al. 2019), or of no positive signal, are NaN: left out. Raises `InputError` as in `explainable_variance`,
    `OptionError` for a floor outside 0 to 1.

    >>> feve([[1.0], [5.0]], [[0.0], [2.0], [4.0], [7.0]], [0, 0, 1, 1])  # (10.125 - 0.125) / 8.5
    array([1.176])
    """
    options = ScoreOptions(floor=floor)
    data = check_repeats(sum_images(predictions, responses, image_index), "feve")
    return feve_kernel(data, over_images, options)


def noise_ceiling(responses: ArrayLike, image_index: ArrayLike) -> Array:
    """The largest correlation with the averaged response that a perfect model can expect, CC_max.

    CC_max = sqrt(signal / Var(m)) (Schoppe et al. 2016), estimated as in this module's docstring.

    responses (n_trials, n_neurons), image_index (n_trials,); returns (n_neurons,), 0 to 1, NaN (left out) for
    neurons whose signal is not positive. Raises `InputError` as in `explainable_variance`.

    >>> noise_ceiling([[0.0], [2.0], [4.0], [6.0]], [0, 0, 1, 1])  # sqrt(7 / 8)
    array([0.935])
    """
    data = check_repeats(sum_images(None, responses, image_index), "noise_ceiling")
    return ceiling_kernel(data, over_images, ScoreOptions())


def normalized_correlation(predictions: ArrayLike, responses: ArrayLike, image_index: ArrayLike) -> Array:
    """Correlation with the averaged response over its ceiling, CC_norm (Schoppe et al. 2016).

    CC_norm = CC_abs / CC_max, `correlation_with_average` / `noise_ceiling`. It leaves out the same neurons as
    the latter and is not clipped: the ceiling is an estimate, so single neurons may exceed 1.

    Shapes and errors as in `feve`; a constant prediction gives 0.

    >>> normalized_correlation([[1.0], [5.0]], [[0.0], [2.0], [4.0], [6.0]], [0, 0, 1, 1])  # 1 / 0.935
    array([1.069])
    """
    data = check_repeats(sum_images(predictions, responses, image_index), "normalized_correlation")
    return normalized_kernel(data, over_images, ScoreOptions())
