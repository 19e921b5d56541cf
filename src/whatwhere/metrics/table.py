"""All scores that apply to one set of held-out data, per neuron and in summary."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from whatwhere.errors import InputError
from whatwhere.metrics.image_sums import Array, ImageSums, ScoreOptions, over_images, sum_images
from whatwhere.metrics.intervals import check_resampling, interval_over_neurons
from whatwhere.metrics.resampling import intervals_over_images
from whatwhere.metrics.scores import SCORES, check_applies


@dataclass(frozen=True)
class ScoreTable:
    """Scores of every neuron and their averages.

    neurons: one row a neuron, one column a score (NaN: left out), and whether its prediction, response or
    rate is constant over the images.
    summary: for each score `mean`; `low` and `high` at `level`, `over` "neurons"; `low_images` and
    `high_images`, over test images; `low_both` and `high_both`, over images and neurons at once; `n_neurons`
    averaged, `n_left_out` for want of a score, `n_constant` counted as 0 because a prediction or response is
    constant. Safe for JSON: None where there is no number.
    absent: why each other score is not there.
    """

    neurons: pd.DataFrame
    summary: dict[str, dict[str, Any]]
    absent: dict[str, str]


@dataclass(frozen=True)
class Resampling:
    """How the intervals of a table are made; `n_images` resamples of the images, 0 for none."""

    level: float
    n_neurons: int
    n_images: int
    seed: int

    def __post_init__(self) -> None:
        check_resampling(self.level, self.n_neurons)
        check_resampling(self.level, self.n_images or 1)


@dataclass(frozen=True)
class Source:
    """What the predictions are compared with, "response" or "rate", and which neurons are constant."""

    kind: str
    data: ImageSums
    values: ArrayLike

    def constant(self, what: str) -> NDArray[np.bool_]:
        """Which neurons' "prediction" or "response" is constant over the images (zero when centred)."""
        data = self.data
        zero = data.predictions == 0 if what == "prediction" else (data.means == 0) & (data.within == 0)
        return zero.all(axis=0)


def summarize(name: str, source: Source, options: ScoreOptions, resampling: Resampling) -> tuple[Array, dict[str, Any]]:
    """One score's values per neuron, and its entry in the summary."""
    score, data = SCORES[name], source.data
    level, seed = resampling.level, resampling.seed
    values = score.kernel(data, over_images, options)
    means = {"": interval_over_neurons(values, level=level, n_resamples=resampling.n_neurons, seed=seed)}
    if resampling.n_images:
        found = intervals_over_images(score, data, options, level, resampling.n_images, seed)
        means |= {f"_{over}": interval for over, interval in found.items()}
    entry: dict[str, Any] = {"mean": means[""].mean, "level": level, "over": "neurons"}
    for suffix in ("", "_images", "_both"):
        entry[f"low{suffix}"] = means[suffix].low if suffix in means else None
        entry[f"high{suffix}"] = means[suffix].high if suffix in means else None
    zero = [source.constant(what) & ~np.isnan(values) for what in score.zero_for_constant]
    entry["n_neurons"], entry["n_left_out"] = means[""].n, means[""].n_left_out
    entry["n_constant"] = int(np.any(zero, axis=0).sum()) if zero else 0
    return values, {key: None if value != value else value for key, value in entry.items()}


def source_of(name: str, sources: dict[str, Source]) -> Source:
    """What the score `name` compares the predictions with; raises `InputError` where there is nothing."""
    kind = "rate" if SCORES[name].needs == "rates" else "response"
    if kind not in sources:
        raise InputError(
            f"{name} needs noise-free rates, got recorded responses only."
            if kind == "rate"
            else f"{name} needs responses, got rates only."
        )
    check_applies(name, sources[kind].data, sources[kind].values)
    return sources[kind]


def fill_table(sources: dict[str, Source], options: ScoreOptions, resampling: Resampling) -> ScoreTable:
    """The table of all scores that the sources allow."""
    columns: dict[str, Any] = {}
    summary: dict[str, dict[str, Any]] = {}
    absent: dict[str, str] = {}
    for name in SCORES:
        try:
            source = source_of(name, sources)
        except InputError as reason:
            absent[name] = str(reason)
            continue
        columns[name], summary[name] = summarize(name, source, options, resampling)
    for kind, source in sources.items():
        columns[f"constant_{kind}"] = source.constant("response")
        columns["constant_prediction"] = source.constant("prediction")
    neurons = pd.DataFrame(columns)
    neurons.index.name = "neuron"
    return ScoreTable(neurons, summary, absent)


def score_table(
    predictions: ArrayLike,
    responses: ArrayLike | None = None,
    image_index: ArrayLike | None = None,
    *,
    rates: ArrayLike | None = None,
    mean_rate: ArrayLike | None = None,
    floor: float = ScoreOptions.floor,
    level: float = 0.95,
    n_resamples: int = 1000,
    n_resamples_images: int | None = None,
    seed: int = 0,
) -> ScoreTable:
    """Every score that these data allow, with intervals over neurons, over test images and over both.

    predictions (n_images, n_neurons); responses (n_trials, n_neurons) with image_index (n_trials,), or None
    for one trial of each image in order; `rates` (n_images, n_neurons), noise-free, for FEV. Either responses
    or rates, or both. `mean_rate` (n_neurons,) is the likelihood's null model (None: the mean of the
    responses), `floor` that of `feve`. Scores that do not apply are in `absent`, with the reason.
    `n_resamples_images` (None: n_resamples) takes most of the time, which grows with n_images x n_neurons; 0
    leaves those intervals None.

    Raises `InputError` for arrays that do not fit or are not finite, `OptionError` for options out of range.

    >>> table = score_table([[0.0], [1.0], [2.0], [3.0]], rates=[[0.0], [1.0], [2.0], [4.0]])
    >>> table.summary["fev"]["mean"], table.absent["oracle"]
    (0.886, 'oracle needs responses, got rates only.')
    """
    if responses is None and rates is None:
        raise InputError("score_table needs responses or rates to compare the predictions with, got neither.")
    images = n_resamples if n_resamples_images is None else n_resamples_images
    resampling = Resampling(level, n_resamples, images, seed)
    sources: dict[str, Source] = {}
    if responses is not None:
        data = sum_images(predictions, responses, image_index, mean_rate)
        sources["response"] = Source("response", data, responses)
    if rates is not None:
        sources["rate"] = Source("rate", sum_images(predictions, rates, None), rates)
    return fill_table(sources, ScoreOptions(floor=floor), resampling)
