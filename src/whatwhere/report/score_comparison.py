"""Models compared by the scores of their neurons."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whatwhere.errors import InputError
from whatwhere.metrics import interval_over_neurons
from whatwhere.report.style import COLOURS, GREY, SMALL, WIDTH, dress, new_figure

GOLDEN = (np.sqrt(5) - 1) / 2  # its multiples, modulo 1, fill an interval evenly: the same picture each time
BINS = 30


def score_distribution(scores: Mapping[str, Any], *, label: str = "score") -> Figure:
    """One dot per neuron for each model, best mean on top, with the mean and its 95 % interval over neurons.

    Dots spread as wide as there are neurons with like scores. The bar is the middle half of the neurons, its
    notch the median; the diamond is the mean, its whiskers the bootstrap interval
    (`metrics.interval_over_neurons`). The models' intervals are of each by itself: for a comparison of two,
    use `metrics.paired_difference`.

    - `scores`: model's name to its scores (n_neurons,), NaN where a neuron has none: left out, and counted
    - `label`: which score

    Raises `InputError` for no models, or infinite scores.
    """
    if not scores:
        raise InputError("scores is empty: expected at least one model's name and its scores.")
    intervals = {name: interval_over_neurons(values) for name, values in scores.items()}
    means = [interval.mean for interval in intervals.values()]
    order = np.argsort(np.nan_to_num(means, nan=-np.inf), kind="stable")  # the best last, on top
    names = [list(scores)[i] for i in order]
    figure = new_figure(min(WIDTH, 6.2), 0.9 + 0.55 * len(names))
    axes = figure.add_subplot()
    labels = []
    for place, name in enumerate(names):
        values = np.asarray(scores[name], float)
        interval = intervals[name]
        _draw_neurons(axes, values[~np.isnan(values)], place)
        left_out = f", {interval.n_left_out:,} left out" if interval.n_left_out else ""
        mean = f"{interval.mean:.3f}" if interval.n else "no score"
        labels.append(f"{name}\n{mean} (n = {interval.n:,}{left_out})")
        axes.errorbar(
            interval.mean,
            place,
            xerr=[[interval.mean - interval.low], [interval.high - interval.mean]],
            fmt="D",
            color="black",
            markersize=4,
            markerfacecolor="white",
            elinewidth=1.2,
            capsize=2.5,
            zorder=4,
        )
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
    dress(axes, x=f"{label} (dots: neurons; bar: middle half; diamond: mean, 95 %)", size=SMALL)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def _draw_neurons(axes: Axes, values: np.ndarray, place: int) -> None:
    if not len(values):
        return
    faint = float(np.clip(150 / len(values), 0.25, 0.8))
    axes.plot(
        values,
        place + 0.35 * spread(values),
        ".",
        color=COLOURS[0],
        markersize=3.5,
        alpha=faint,
        markeredgewidth=0,
    )
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    axes.plot([low, high], [place, place], color=COLOURS[1], linewidth=5, alpha=0.6, solid_capstyle="butt", zorder=3)
    axes.plot([median, median], [place - 0.12, place + 0.12], color=COLOURS[1], linewidth=2, zorder=3)


def spread(values: np.ndarray) -> np.ndarray:
    """Each dot's distance from the line, in -1 to 1: wide where many values are alike, 0 for a single one."""
    counts, edges = np.histogram(values, bins=BINS)
    density = counts[np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BINS - 1)]
    rank = np.empty(len(values))
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    across = 2 * ((rank + 1) * GOLDEN % 1) - 1
    return across * (density - 1) / max(counts.max() - 1, 1)
