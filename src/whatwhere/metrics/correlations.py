"""Pearson correlations, one per neuron; a constant prediction or response has correlation 0."""

import numpy as np
from numpy.typing import ArrayLike

from whatwhere.checks import check_same_rows
from whatwhere.metrics.image_sums import (
    TINY,
    Array,
    ImageSums,
    ScoreOptions,
    Total,
    check_array,
    check_repeats,
    over_images,
    sum_images,
)


def pearson(n: Array, x: Array, y: Array, xx: Array, yy: Array, xy: Array) -> Array:
    """Correlation from a count and the sums of x, y, x^2, y^2 and x y; 0 where x or y is constant."""
    var_x = xx - x**2 / n
    var_y = yy - y**2 / n
    varies = (var_x > TINY * xx) & (var_y > TINY * yy)
    scale = np.sqrt(np.where(varies, var_x, 1.0)) * np.sqrt(np.where(varies, var_y, 1.0))
    return np.where(varies, np.clip((xy - x * y / n) / scale, -1.0, 1.0), 0.0)


def average_kernel(data: ImageSums, total: Total, options: ScoreOptions) -> Array:
    """Correlation over images with the mean of each image's trials."""
    x, y = data.predictions, data.means
    n = total(np.ones_like(data.n_repeats))
    return pearson(n, total(x), total(y), total(x * x), total(y * y), total(x * y))


def single_trial_kernel(data: ImageSums, total: Total, options: ScoreOptions) -> Array:
    """Correlation over trials; an image's prediction counts once for each of its trials."""
    k, x, y = data.n_repeats, data.predictions, data.means
    squares = data.within + k * y * y
    return pearson(total(k), total(k * x), total(k * y), total(k * x * x), total(squares), total(k * x * y))


def oracle_kernel(data: ImageSums, total: Total, options: ScoreOptions) -> Array:
    """Correlation over trials with the mean of the other trials, from each image's sums alone.

    With s = sum_t y_t and q = sum_t y_t^2 over an image's k trials, and o_t = (s - y_t) / (k - 1):
    sum o = s, sum o^2 = ((k - 2) s^2 + q) / (k - 1)^2, sum y o = (s^2 - q) / (k - 1).
    """
    repeated = data.n_repeats > 1
    k = np.where(repeated, data.n_repeats, 2.0)  # the images of one trial are zeroed below
    s = np.where(repeated, k * data.means, 0.0)
    q = np.where(repeated, data.within + k * data.means**2, 0.0)
    s_total, n = total(s), total(np.where(repeated, k, 0.0))
    others, cross = ((k - 2) * s**2 + q) / (k - 1) ** 2, (s**2 - q) / (k - 1)
    found = pearson(np.maximum(n, 1.0), s_total, s_total, total(q), total(others), total(cross))
    return np.where(n > 0, found, np.nan)  # a resample may hold no repeated image


def correlation(predictions: ArrayLike, responses: ArrayLike) -> Array:
    """Pearson correlation of each neuron's predictions and responses over rows, with no repeats averaged.

    rho_n = Cov(r_n, y_n) / sqrt(Var(r_n) Var(y_n)); 0 where either is constant (`constant_neurons` tells
    which).

    Both arrays have shape (n_images, n_neurons); returns (n_neurons,), between -1 and 1. Raises `InputError`
    for shapes that differ, values that are not finite, or fewer than two rows.

    >>> correlation([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]], [[2.0, 1.0], [4.0, 2.0], [8.0, 3.0]])
    array([1., 0.])
    """
    predicted = check_array("predictions", predictions, ("n_images", "n_neurons"))
    observed = check_array("responses", responses, ("n_images", "n_neurons"))
    check_same_rows("responses", len(observed), "predictions", len(predicted))
    return average_kernel(sum_images(predicted, observed, None), over_images, ScoreOptions())


def correlation_with_average(predictions: ArrayLike, responses: ArrayLike, image_index: ArrayLike) -> Array:
    """Correlation of the prediction with the response averaged over an image's trials; images count equally.

    rho_n = corr_i(r_in, mean_t y_itn), the score of Klindt et al. 2017, Table 1.

    predictions (n_images, n_neurons), responses (n_trials, n_neurons), image_index (n_trials,); returns
    (n_neurons,), 0 where either is constant. Images without a trial are left out. Raises `InputError` for
    shapes or indices that do not fit, values that are not finite, or fewer than two images shown.

    >>> correlation_with_average([[0.0], [1.0], [2.0]], [[0.0], [2.0], [2.0], [4.0], [3.0]], [0, 0, 1, 1, 2])
    array([0.87])
    """
    return average_kernel(sum_images(predictions, responses, image_index), over_images, ScoreOptions())


def single_trial_correlation(predictions: ArrayLike, responses: ArrayLike, image_index: ArrayLike) -> Array:
    """Correlation of the prediction with every single trial; an image counts as often as it was shown.

    rho_n = corr_it(r_in, y_itn), over all trials pooled.

    Shapes, images left out and errors as in `correlation_with_average`.

    >>> single_trial_correlation([[0.0], [2.0]], [[0.0], [2.0], [1.0], [3.0]], [0, 0, 1, 1])
    array([0.45])
    """
    return single_trial_kernel(sum_images(predictions, responses, image_index), over_images, ScoreOptions())


def oracle(responses: ArrayLike, image_index: ArrayLike) -> Array:
    """Leave-one-out oracle: correlation of each trial with the mean of the other trials of its image.

    rho_n = corr_it(y_itn, mean_(u != t) y_iun), over the trials of all repeated images pooled (Walker et al.
    2019). It is how well repeats predict each other, not an upper bound for a model: the mean of few trials
    is noisy.

    responses (n_trials, n_neurons), image_index (n_trials,); returns (n_neurons,), 0 for a constant response.
    Images of one trial are left out. Raises `InputError` where fewer than two images were repeated.

    >>> oracle([[0.0], [0.0], [1.0], [1.0], [3.0], [2.0]], [0, 0, 1, 1, 2, 2])
    array([0.9])
    """
    data = check_repeats(sum_images(None, responses, image_index), "oracle", least=2)
    return oracle_kernel(data, over_images, ScoreOptions())
