"""How well responses are predicted: all neurons together, and the best, median and worst of them."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from whatwhere.checks import check_finite, check_ndim, check_positions
from whatwhere.errors import InputError
from whatwhere.report.style import (
    COLOURS,
    DENSITY,
    GREY,
    SMALL,
    counted,
    dress,
    dress_colour_bar,
    new_figure,
    padded_limits,
)

BINS = 60
KEPT = 0.999  # share of the values that the density's axes show: one outlier would squeeze all others


def predicted_against_true(predictions: Any, truth: Any, scores: Any) -> Figure:
    """Predicted against true responses: the density over all, and the best, median and worst neuron by score.

    The density counts pairs of all neurons and images on a logarithmic scale; its axes, the same for both,
    hold 99.9 % of the values, and the title says how many pairs lie beyond. Dashed is where both are equal.
    The median is the neuron whose score is the (lower) median; neurons without a score (NaN) are not shown by
    themselves.

    - `predictions`, `truth` (n_images, n_neurons), in the same unit; `scores` (n_neurons,)

    Raises `InputError` where shapes do not fit or values are not finite.
    """
    predictions, truth, scores = (np.asarray(values, float) for values in (predictions, truth, scores))
    for name, values in (("predictions", predictions), ("truth", truth)):
        check_ndim(name, values, ("n_images", "n_neurons"))
        check_finite(name, values)
    if predictions.shape != truth.shape or scores.shape != truth.shape[1:]:
        raise InputError(
            f"predictions has shape {predictions.shape}, truth {truth.shape} and scores {scores.shape}:"
            " expected (n_images, n_neurons) twice, and one score per neuron."
        )
    shown = example_neurons(scores)
    figure = new_figure(2.7 + 1.6 * len(shown), 2.8)
    grid = figure.add_gridspec(1, 1 + len(shown), width_ratios=[1.4] + [1.0] * len(shown))
    _draw_density(figure, figure.add_subplot(grid[0]), predictions, truth)
    for place, (name, neuron) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(grid[place])
        title = f"{name}: neuron {neuron}\nscore {scores[neuron]:.3f}"
        _draw_neuron(axes, predictions[:, neuron], truth[:, neuron], title)
    n_unscored = int(np.isnan(scores).sum())
    if n_unscored:
        note = f"without a score: {n_unscored:,} of {counted(len(scores), 'neuron')}"
        figure.supxlabel(note, x=0.99, ha="right", fontsize=SMALL)
    return figure


def example_neurons(scores: np.ndarray) -> dict[str, int]:
    """The positions of the best, median and worst neuron, each neuron once, none without a score.

    >>> example_neurons(np.array([0.2, np.nan, 0.9, 0.5, 0.1]))
    {'best': 2, 'median': 0, 'worst': 4}
    >>> example_neurons(np.array([0.2]))
    {'only': 0}
    """
    scored = np.flatnonzero(np.isfinite(scores))
    order = scored[np.argsort(scores[scored], kind="stable")]
    if not len(order):
        return {}
    chosen = {"best": order[-1], "median": order[(len(order) - 1) // 2], "worst": order[0]}
    names = {1: ["only"], 2: ["best", "worst"]}.get(len(order), list(chosen))
    return {name: int(chosen.get(name, order[0])) for name in names}


def panel_neurons(neurons: Any, n_neurons: int, most: int) -> np.ndarray:
    """Positions that a user asked for, at least one and at most so many; `InputError` where one is not there.

    >>> panel_neurons([7, 2], 8, most=4)
    array([7, 2])
    """
    chosen = check_positions("neurons", neurons, n_neurons, "neuron")
    if len(chosen) > most:
        raise InputError(f"neurons holds {len(chosen)} positions: expected 1 to {most}, a panel for each.")
    return chosen


def _draw_density(figure: Figure, axes: Axes, predictions: np.ndarray, truth: np.ndarray) -> None:
    tail = (1 - KEPT) / 2
    low = min(np.quantile(values, tail) for values in (predictions, truth))
    high = max(np.quantile(values, 1 - tail) for values in (predictions, truth))
    limits = padded_limits(np.array([low, high]))
    edges = np.linspace(*limits, BINS + 1)
    counts, _, _ = np.histogram2d(truth.ravel(), predictions.ravel(), bins=(edges, edges))
    mesh = axes.pcolormesh(
        edges,
        edges,
        np.ma.masked_equal(counts.T, 0),
        cmap=DENSITY,
        norm=LogNorm(1, max(counts.max(), 2)),
        rasterized=True,
    )
    n_beyond = truth.size - int(counts.sum())
    neurons = "all " * (truth.shape[1] > 1) + counted(truth.shape[1], "neuron")
    _frame(axes, limits, f"{neurons}\n{counted(truth.size, 'pair')}, {n_beyond:,} beyond")
    axes.set_ylabel("predicted", fontsize=SMALL)
    dress_colour_bar(figure.colorbar(mesh, ax=axes, shrink=0.65, pad=0.02), "pairs per bin")


def _draw_neuron(axes: Axes, predictions: np.ndarray, truth: np.ndarray, title: str) -> None:
    faint = float(np.clip(200 / len(truth), 0.1, 0.8))
    axes.plot(
        truth,
        predictions,
        ".",
        color=COLOURS[0],
        markersize=3,
        alpha=faint,
        markeredgewidth=0,
        rasterized=True,
    )
    _frame(axes, padded_limits(np.concatenate([predictions, truth]), 0.05), title)


def _frame(axes: Axes, limits: tuple[float, float], title: str) -> None:
    axes.plot(limits, limits, "--", color=GREY, linewidth=0.8)
    axes.set(xlim=limits, ylim=limits, box_aspect=1)
    dress(axes, x="true", title=title, size=SMALL)
    axes.locator_params(nbins=3)
