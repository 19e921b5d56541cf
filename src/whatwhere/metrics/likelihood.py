"""The Poisson log-likelihood per spike, in bits, over that of a constant rate."""

import numpy as np
from numpy.typing import ArrayLike

from whatwhere.metrics.explained import divide
from whatwhere.metrics.image_sums import (
    Array,
    ImageSums,
    ScoreOptions,
    Total,
    check_not_negative,
    over_images,
    sum_images,
)


def likelihood_kernel(data: ImageSums, total: Total, options: ScoreOptions) -> Array:
    """Bits per spike; log(y!) is the same for both models and cancels."""
    k, spikes = data.n_repeats, data.sums
    rate = np.maximum(data.predictions + data.prediction_centre, options.eps)
    n_trials, n_spikes = total(k), total(spikes)
    mean_rate = n_spikes / n_trials if data.mean_rate is None else data.mean_rate[0]
    null = np.maximum(mean_rate, options.eps)
    gain = total(spikes * np.log(rate) - k * rate) - (n_spikes * np.log(null) - n_trials * null)
    return divide(gain, n_spikes * np.log(2), n_spikes > 0)


def poisson_log_likelihood(
    predictions: ArrayLike,
    responses: ArrayLike,
    image_index: ArrayLike | None = None,
    *,
    mean_rate: ArrayLike | None = None,
    eps: float = ScoreOptions.eps,
) -> Array:
    """Poisson log-likelihood relative to the mean-rate model, in bits per spike.

    L_n = sum_it [log p(y_itn | r_in) - log p(y_itn | mean rate_n)] / (ln 2 sum_it y_itn)
    (single-spike information, Brenner et al. 2000; Pillow et al. 2008). 0 is no better than the mean rate.

    predictions (n_images, n_neurons) in spikes per image, responses (n_trials, n_neurons) in the same unit,
    image_index (n_trials,), or None for one trial of each image in order. `mean_rate` (n_neurons,) is the
    null model's rate, normally the training mean; None takes the mean of these responses, the hardest
    constant to beat. Predictions and mean rates are floored at `eps`: a spike where none was predicted costs
    log2(1 / eps) bits, about 20 by default. Returns (n_neurons,), NaN (left out) for neurons without a spike.
    Raises `InputError` for negative responses or mean rates, and as in `correlation_with_average`.

    >>> poisson_log_likelihood([[1.0], [3.0]], [[1.0], [3.0]])  # (log2(1 / 2) + 3 log2(3 / 2)) / 4
    array([0.189])
    """
    options = ScoreOptions(eps=eps)
    check_not_negative("responses", responses)
    if mean_rate is not None:
        check_not_negative("mean_rate", mean_rate)
    data = sum_images(predictions, responses, image_index, mean_rate)
    return likelihood_kernel(data, over_images, options)
