"""Predicted against observed responses, beside what the noise lets any model reach."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whatwhere.checks import check_same_rows
from whatwhere.heldout import trial_means
from whatwhere.metrics import correlation_with_average, noise_ceiling
from whatwhere.report.prediction import example_neurons, panel_neurons
from whatwhere.report.style import COLOURS, GREY, SMALL, counted, dress, new_figure, padded_limits

MOST_NEURONS = 4


def predicted_against_observed(
    predictions: Any,
    responses: Any,
    image_index: Any,
    *,
    neurons: Sequence[int] | np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Left every neuron's correlation against its noise ceiling; beside it some neurons, image by image.

    A neuron on the diagonal is predicted as well as the noise of its averages allows. The ceiling is the largest
    correlation with the repeat-averaged response that a perfect model can expect (`metrics.noise_ceiling`); it is an
    estimate, so a neuron may lie above. Neurons without one (NaN: no signal in the repeats) are counted below. In the
    other panels a dot is an image: the prediction across, the mean over its trials upwards, its bar one standard error
    of the mean (none for an image of one trial). Dashed is where both are equal.

    - `predictions` (n_images, n_neurons), `responses` (n_trials, n_neurons) in the same unit, `image_index`
      (n_trials,): which image each trial showed
    - `neurons`: positions of at most 4; by default the best, the median and the worst by correlation, of those that
      have a ceiling
    - `names` (n_neurons,): identifiers for the titles; positions by default

    Raises `InputError` where shapes do not fit, no image was repeated, or a neuron is not there.
    """
    found = correlation_with_average(predictions, responses, image_index)
    ceilings = noise_ceiling(responses, image_index)
    predicted, trials = np.asarray(predictions, float), np.asarray(responses, float)
    titles = [str(i) for i in range(len(found))] if names is None else [str(name) for name in names]
    check_same_rows("names", len(titles), "responses", len(found), each="neuron")
    if neurons is None:
        ranked = found if np.isnan(ceilings).all() else np.where(np.isnan(ceilings), np.nan, found)
        shown = [(f"{which}: ", neuron) for which, neuron in example_neurons(ranked).items()]
    else:
        shown = [("", neuron) for neuron in panel_neurons(neurons, len(found), MOST_NEURONS)]
    figure = new_figure(2.4 + 1.75 * len(shown), 2.8)
    panels = figure.subplots(1, 1 + len(shown), squeeze=False, width_ratios=[1.25] + [1.0] * len(shown))[0]
    _draw_population(panels[0], ceilings, found)
    means, errors = trial_means(trials, np.asarray(image_index), np.arange(len(predicted)))
    seen = np.isin(np.arange(len(predicted)), image_index)
    for axes, (which, neuron) in zip(panels[1:], shown, strict=True):
        ceiling = "none" if np.isnan(ceilings[neuron]) else f"{ceilings[neuron]:.2f}"
        title = f"{which}neuron {titles[neuron]}\ncorrelation {found[neuron]:.2f}\nceiling {ceiling}"
        _draw_neuron(axes, predicted[seen, neuron], means[seen, neuron], errors[seen, neuron], title)
    if len(shown):
        panels[1].set_ylabel("observed (mean, s.e.)", fontsize=SMALL)
    n_without = int(np.isnan(ceilings).sum())
    if n_without:
        note = f"without a ceiling: {n_without:,} of {counted(len(found), 'neuron')}"
        figure.supxlabel(note, x=0.99, ha="right", fontsize=SMALL)
    return figure


def _draw_population(axes: Axes, ceilings: np.ndarray, found: np.ndarray) -> None:
    with_ceiling = ~np.isnan(ceilings)
    low = min(0.0, float(found[with_ceiling].min())) - 0.05 if with_ceiling.any() else -0.05
    axes.plot([low, 1], [low, 1], "--", color=GREY, linewidth=0.8)
    faint = float(np.clip(150 / max(with_ceiling.sum(), 1), 0.25, 0.8))
    look: dict[str, Any] = {"color": COLOURS[0], "markersize": 4.5, "alpha": faint, "markeredgewidth": 0}
    axes.plot(ceilings[with_ceiling], found[with_ceiling], ".", **look)
    axes.set(xlim=(low, 1.02), ylim=(low, 1.02), box_aspect=1)
    title = counted(len(found), "neuron")
    if with_ceiling.any():
        share = np.median(found[with_ceiling] / ceilings[with_ceiling])
        title += f"\nmedian {share:.2f} of the ceiling"
    dress(axes, x="noise ceiling", y="correlation", title=title, size=SMALL)
    axes.locator_params(nbins=5)


def _draw_neuron(axes: Axes, predicted: np.ndarray, means: np.ndarray, errors: np.ndarray, title: str) -> None:
    faint = float(np.clip(100 / len(means), 0.3, 0.9))
    bars = np.nan_to_num(errors)
    axes.errorbar(
        *(predicted, means, bars),
        fmt=".",
        color=COLOURS[0],
        markersize=4,
        elinewidth=0.7,
        alpha=faint,
        markeredgewidth=0,
    )
    limits = padded_limits(np.concatenate([predicted, means - bars, means + bars]), 0.05)
    axes.plot(limits, limits, "--", color=GREY, linewidth=0.8)
    axes.set(xlim=limits, ylim=limits, box_aspect=1)
    dress(axes, x="predicted", title=title, size=SMALL)
    axes.locator_params(nbins=3)
