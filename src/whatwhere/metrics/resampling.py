"""Confidence intervals over test images: whole images are drawn again with all their trials."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whatwhere.checks import check_choice
from whatwhere.metrics.image_sums import (
    CHUNK,
    Array,
    ImageSums,
    ScoreOptions,
    check_array,
    check_image_index,
    over_images,
    sum_images,
)
from whatwhere.metrics.intervals import Interval, check_resampling, check_scores, percentile_interval
from whatwhere.metrics.scores import SCORES, Score, check_applies

ScoreFunction: TypeAlias = Callable[[NDArray[Any], NDArray[Any], NDArray[np.intp]], Array]
Over: TypeAlias = Literal["images", "both"]


def draw_images(n_images: int, n_resamples: int, seed: int) -> NDArray[np.intp]:
    """The images of each resample, (n_resamples, n_images), drawn with replacement."""
    return np.random.default_rng(seed).integers(0, n_images, (n_resamples, n_images))


def count_draws(drawn: NDArray[np.intp], n_images: int) -> Array:
    """How often each resample holds each image, (n_resamples, n_images)."""
    rows = np.arange(len(drawn))[:, None] * n_images
    counts = np.bincount((rows + drawn).ravel(), minlength=len(drawn) * n_images)
    return counts.reshape(len(drawn), n_images).astype(np.float64)


def neuron_blocks(n_neurons: int, n_resamples: int) -> list[slice]:
    """Neurons in blocks, so that (n_resamples, block) scores stay small."""
    width = max(1, CHUNK // n_resamples)
    return [slice(start, min(start + width, n_neurons)) for start in range(0, n_neurons, width)]


def neuron_counts(blocks: list[slice], n_resamples: int, seed: int) -> Iterator[Array]:
    """For each block of neurons, how often each resample of the whole population holds each of its neurons.

    The number of draws that fall into each block is multinomial; within a block they are uniform.
    """
    rng = np.random.default_rng([seed, 1])  # independent of the draw of images
    sizes = np.array([block.stop - block.start for block in blocks])
    draws = rng.multinomial(sizes.sum(), sizes / sizes.sum(), n_resamples)
    for size, n_drawn in zip(sizes, draws.T, strict=True):
        rows = np.repeat(np.arange(n_resamples), n_drawn) * size
        counts = np.bincount(rows + rng.integers(0, size, len(rows)), minlength=n_resamples * size)
        yield counts.reshape(n_resamples, size).astype(np.float64)


def resampled_means(scores: Iterable[Array], blocks: list[slice], n_resamples: int, seed: int) -> dict[Over, Array]:
    """Each resample's mean over neurons, of images alone and of both; `scores` are (n_resamples, block)."""
    sums: dict[Over, Array] = {"images": np.zeros(n_resamples), "both": np.zeros(n_resamples)}
    n: dict[Over, Array] = {"images": np.zeros(n_resamples), "both": np.zeros(n_resamples)}
    for block, drawn in zip(scores, neuron_counts(blocks, n_resamples, seed), strict=True):
        given = (~np.isnan(block)).astype(np.float64)
        values = np.nan_to_num(block)
        n["images"] += given.sum(axis=1)
        sums["images"] += values.sum(axis=1)
        n["both"] += (given * drawn).sum(axis=1)
        sums["both"] += (values * drawn).sum(axis=1)
    return {over: np.where(n[over] > 0, sums[over] / np.maximum(n[over], 1), np.nan) for over in sums}


def shifted_interval(
    scores: Array, means: Array, level: float, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Interval:
    """The percentile interval of resampled means shifted to the mean score, cut at the score's `bounds`.

    Resamples hold fewer different images than the data, and a score that is not linear in the images differs
    systematically in them: for the mean over many neurons by far more than its spread, so that the plain
    percentiles would not hold the mean score itself. Shifted, they tell its spread over test sets of this
    size.
    """
    interval = percentile_interval(scores, means, level)
    given = means[~np.isnan(means)]
    shift = interval.mean - given.mean() if len(given) else np.nan
    low, high = (float(np.clip(end + shift, *bounds)) for end in (interval.low, interval.high))
    return replace(interval, low=low, high=high)


def intervals_over_images(
    score: Score, data: ImageSums, options: ScoreOptions, level: float, n_resamples: int, seed: int
) -> dict[Over, Interval]:
    """Intervals over images, and over images and neurons at once, of a score made of sums over images."""
    n_images = len(data.n_repeats)
    weights = count_draws(draw_images(n_images, n_resamples, seed), n_images)
    blocks = neuron_blocks(data.n_neurons, n_resamples)
    parts = map(data.of_neurons, blocks)
    scores = (score.kernel(part, lambda values: weights @ values, options) for part in parts)
    means = resampled_means(scores, blocks, n_resamples, seed)
    of_data = score.kernel(data, over_images, options)
    return {over: shifted_interval(of_data, means[over], level, score.bounds) for over in means}


def interval_over_images(
    score: str | ScoreFunction,
    predictions: ArrayLike,
    responses: ArrayLike,
    image_index: ArrayLike | None = None,
    *,
    over: Over = "images",
    mean_rate: ArrayLike | None = None,
    floor: float = ScoreOptions.floor,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean score over neurons with its percentile bootstrap interval over test images.

    Each resample draws as many images with replacement, each with all its trials, and repeats the whole
    score, with its floor, on it; a neuron without a score in a resample is left out of that resample's mean.
    The resampled means are shifted to the mean score: the interval tells how the mean would vary over test
    sets of this many images, not how it would rise with more of them. It is too narrow where few images
    carry most of the variance. over="images" means other images, the same neurons; over="both" draws neurons
    as well: other images and other neurons.

    `score` is a name of `SCORES`, or a function (predictions, responses, image_index) -> (n_neurons,), which
    is called once a resample and so is slow. predictions (n_images, n_neurons), responses (n_trials,
    n_neurons; for "fev" the rates), image_index (n_trials,) or None for one trial of each image; `mean_rate`
    and `floor` as in `poisson_log_likelihood` and `feve`. A name costs n_resamples x n_images x n_neurons
    multiplications a sum, some five sums, and 8 MiB for each of them. Raises `InputError` where the score
    does not apply, `OptionError` for unknown names.

    >>> predictions, responses = [[0.0], [1.0], [2.0], [3.0]], [[0.0], [2.0], [4.0], [6.0]]
    >>> interval = interval_over_images("correlation", predictions, responses)
    >>> interval.mean, interval.high, interval.n
    (1.0, 1.0, 1)
    """
    check_resampling(level, n_resamples)
    check_choice("over", over, ["images", "both"])
    if callable(score):
        arrays = predictions, responses, image_index
        return interval_of_function(score, *arrays, over, level, n_resamples, seed)
    check_choice("score", score, SCORES)
    options = ScoreOptions(floor=floor)
    data = sum_images(predictions, responses, image_index, mean_rate)
    check_applies(score, data, responses)
    return intervals_over_images(SCORES[score], data, options, level, n_resamples, seed)[over]


def interval_of_function(
    score: ScoreFunction,
    predictions: ArrayLike,
    responses: ArrayLike,
    image_index: ArrayLike | None,
    over: Over,
    level: float,
    n_resamples: int,
    seed: int,
) -> Interval:
    """`interval_over_images` of any function, which sees an image drawn twice as two images."""
    data = sum_images(predictions, responses, image_index)  # for its checks
    predicted = check_array("predictions", predictions, ("n_images", "n_neurons"))
    trials = check_array("responses", responses, ("n_trials", "n_neurons"))
    index = check_image_index(np.arange(len(trials)) if image_index is None else image_index, len(trials))
    shown = np.unique(index)
    trials_of = [np.flatnonzero(index == image) for image in shown]
    resampled = np.empty((n_resamples, data.n_neurons))
    for row, drawn in enumerate(draw_images(len(shown), n_resamples, seed)):
        chosen = [trials_of[i] for i in drawn]
        image = np.repeat(np.arange(len(drawn)), [len(some) for some in chosen])
        resampled[row] = score(predicted[shown[drawn]], trials[np.concatenate(chosen)], image)
    scores = check_scores("the score function's value", score(predicted, trials, index))
    blocks = neuron_blocks(data.n_neurons, n_resamples)
    means = resampled_means((resampled[:, block] for block in blocks), blocks, n_resamples, seed)
    return shifted_interval(scores, means[over], level)
