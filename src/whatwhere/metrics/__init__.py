"""Scores of predictions, one per neuron, and confidence intervals of their averages.

Arrays: predictions (n_images, n_neurons), responses (n_trials, n_neurons), and image_index (n_trials,), which
image each trial showed; repeats may differ between images. Every score is (n_neurons,), float64; NaN means
left out, and is counted wherever scores are averaged.
"""

from whatwhere.metrics.correlations import (
    correlation,
    correlation_with_average,
    oracle,
    single_trial_correlation,
)
from whatwhere.metrics.explained import (
    explainable_variance,
    fev,
    feve,
    noise_ceiling,
    normalized_correlation,
    normalized_noise_power,
)
from whatwhere.metrics.image_sums import constant_neurons
from whatwhere.metrics.intervals import Interval, PairedDifference, interval_over_neurons, paired_difference
from whatwhere.metrics.likelihood import poisson_log_likelihood
from whatwhere.metrics.pooled import pooled_table
from whatwhere.metrics.resampling import interval_over_images
from whatwhere.metrics.scores import SCORES
from whatwhere.metrics.several_tests import holm
from whatwhere.metrics.table import ScoreTable, score_table

__all__ = [
    "SCORES",
    "Interval",
    "PairedDifference",
    "ScoreTable",
    "constant_neurons",
    "correlation",
    "correlation_with_average",
    "explainable_variance",
    "fev",
    "feve",
    "holm",
    "interval_over_images",
    "interval_over_neurons",
    "noise_ceiling",
    "normalized_correlation",
    "normalized_noise_power",
    "oracle",
    "paired_difference",
    "poisson_log_likelihood",
    "pooled_table",
    "score_table",
    "single_trial_correlation",
]
