"""Confidence intervals of a mean over neurons, by the percentile bootstrap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import wilcoxon

from whatwhere.checks import check_ndim, check_numeric, check_same_rows
from whatwhere.errors import InputError, OptionError
from whatwhere.metrics.image_sums import CHUNK, Array


@dataclass(frozen=True)
class Interval:
    """A mean over neurons with its confidence interval.

    mean, low, high: in the score's unit; NaN where no neuron has a score.
    level: nominal coverage, 0.95 for 95 %.
    n: number of neurons averaged; n_left_out: number of those that have no score (NaN).
    """

    mean: float
    low: float
    high: float
    level: float
    n: int
    n_left_out: int


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a neuron's difference between two models, and its two-sided Wilcoxon signed-rank test."""

    difference: Interval
    p_value: float


def check_resampling(level: float, n_resamples: int) -> None:
    """Raises `OptionError` unless both can be used."""
    if not 0 < level < 1:
        raise OptionError(f"level must be between 0 and 1, got {level}: 0.95 means 95 %.")
    if int(n_resamples) != n_resamples or n_resamples < 1:
        raise OptionError(f"n_resamples must be a whole number of at least 1, got {n_resamples}.")


def check_scores(name: str, scores: ArrayLike) -> Array:
    """`scores` as floats (n_neurons,), NaN allowed; raises `InputError`."""
    checked: NDArray[Any] = np.asarray(scores)
    check_ndim(name, checked, ("n_neurons",))
    check_numeric(name, checked)
    values = checked.astype(np.float64)
    if np.isinf(values).any():
        n_infinite = int(np.isinf(values).sum())
        raise InputError(f"{name} has {n_infinite:,} infinite values: a mean needs finite scores.")
    return values


def percentile_interval(scores: Array, means: Array, level: float) -> Interval:
    """The interval of the middle `level` of the resampled `means`; those without a mean are left out."""
    kept = scores[~np.isnan(scores)]
    means = means[~np.isnan(means)]
    n_left_out = len(scores) - len(kept)
    if not len(kept) or not len(means):
        mean = float(kept.mean()) if len(kept) else np.nan
        return Interval(mean, np.nan, np.nan, level, len(kept), n_left_out)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(kept.mean()), float(low), float(high), level, len(kept), n_left_out)


def interval_over_neurons(
    scores: ArrayLike, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean score and its percentile bootstrap interval over neurons (Efron 1979).

    It answers: other neurons of this population, the same images. scores (n_neurons,); NaN is left out and
    counted. One neuron gives the interval from its score to its score: one neuron cannot tell how neurons
    differ. Raises `InputError` for infinite scores, `OptionError` for a level or number of resamples out of
    range.

    >>> interval_over_neurons([0.5, 0.5, float("nan")])
    Interval(mean=0.5, low=0.5, high=0.5, level=0.95, n=2, n_left_out=1)
    """
    check_resampling(level, n_resamples)
    values = check_scores("scores", scores)
    kept = values[~np.isnan(values)]
    rng = np.random.default_rng(seed)
    means = np.full(n_resamples, np.nan)
    rows = max(1, CHUNK // max(1, len(kept)))
    for start in range(0, n_resamples if len(kept) else 0, rows):
        n_rows = min(rows, n_resamples - start)
        drawn = rng.integers(0, len(kept), (n_rows, len(kept)))
        means[start : start + n_rows] = kept[drawn].mean(axis=1)
    return percentile_interval(values, means, level)


def paired_difference(
    scores_a: ArrayLike, scores_b: ArrayLike, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> PairedDifference:
    """Mean of a - b over neurons with its interval, and SciPy's two-sided Wilcoxon signed-rank p-value.

    Both (n_neurons,), the same neurons in the same order; a neuron without a score in either is left out and
    counted. Neurons without a difference say nothing to the test; with no other, p is 1. With no neuron at
    all p is NaN. Neurons recorded together are not independent: read p as description. Raises as
    `interval_over_neurons`.

    >>> paired = paired_difference([0.5, 0.6, 0.7, 0.8, 0.9], [0.4, 0.4, 0.4, 0.4, 0.4])
    >>> paired.difference.mean, paired.p_value  # all five differ in one direction: 2 / 2^5
    (0.3, 0.0625)
    """
    a, b = check_scores("scores_a", scores_a), check_scores("scores_b", scores_b)
    check_same_rows("scores_a", len(a), "scores_b", len(b), each="neuron")
    interval = interval_over_neurons(a - b, level=level, n_resamples=n_resamples, seed=seed)
    if not interval.n:
        return PairedDifference(interval, np.nan)
    changed = (a - b)[np.nan_to_num(a - b) != 0]
    return PairedDifference(interval, float(wilcoxon(changed).pvalue) if len(changed) else 1.0)
