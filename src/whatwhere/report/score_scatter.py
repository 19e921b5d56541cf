"""One model against others, neuron by neuron."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whatwhere.checks import check_same_rows
from whatwhere.errors import InputError
from whatwhere.report.style import COLOURS, GREY, SMALL, WIDTH, counted, dress, new_figure, padded_limits, percent

MOST_COLUMNS = 3


def score_scatter(scores: Mapping[str, Any], *, label: str = "score") -> Figure:
    """One panel for each model after the first: a dot per neuron, the first model's score upwards, the other's across.

    Above the diagonal the first model is better; the title says for which share of the neurons it is (strictly), and
    the diamond is at the medians.

    - `scores`: model's name to its scores (n_neurons,), the same neurons in the same order; NaN in either: left out
    - `label`: which score

    Raises `InputError` for fewer than two models, different numbers of neurons, or infinite scores.
    """
    values = {name: np.asarray(some, float) for name, some in scores.items()}
    if len(values) < 2:
        raise InputError(
            f"scores holds {len(values)} models: expected two or more, to set the first against the others."
        )
    first, *others = values
    for name in others:
        check_same_rows(name, len(values[name]), first, len(values[first]), each="neuron")
    for name, some in values.items():
        if np.isinf(some).any():
            raise InputError(
                f"the scores of {name} hold {np.isinf(some).sum():,} infinite values: expected finite ones."
            )
    shown = np.concatenate([some[~np.isnan(some)] for some in values.values()])
    limits = padded_limits(shown) if len(shown) else (0.0, 1.0)
    n_columns = min(len(others), MOST_COLUMNS)
    n_rows = -(-len(others) // n_columns)
    width = WIDTH / MOST_COLUMNS
    figure = new_figure(max(width * n_columns, 2.8), (width + 0.5) * n_rows)
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, name in zip(panels, others, strict=False):
        _draw(axes, values[name], values[first], limits)
        _describe(axes, first, name, values, label)
    for axes in panels[len(others) :]:
        axes.set_visible(False)
    return figure


def _draw(axes: Axes, across: np.ndarray, upwards: np.ndarray, limits: tuple[float, float]) -> None:
    both = ~np.isnan(across) & ~np.isnan(upwards)
    across, upwards = across[both], upwards[both]
    axes.plot(limits, limits, color=GREY, linewidth=0.8, zorder=1)
    if len(across):
        faint = float(np.clip(150 / len(across), 0.2, 0.7))
        look: dict[str, Any] = {"color": COLOURS[0], "markersize": 4, "alpha": faint, "markeredgewidth": 0}
        axes.plot(across, upwards, ".", **look, zorder=2)
        medians = np.median(across), np.median(upwards)
        axes.plot(*medians, "D", color="black", markerfacecolor="white", markersize=4.5, zorder=3)
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    axes.locator_params(nbins=5)


def _describe(axes: Axes, first: str, name: str, values: Mapping[str, np.ndarray], label: str) -> None:
    both = ~np.isnan(values[first]) & ~np.isnan(values[name])
    ours, theirs = values[first][both], values[name][both]
    if not len(ours):
        dress(axes, x=f"{label}, {name}", y=f"{label}, {first}", title="no neuron has both scores", size=SMALL)
        return
    better = percent([float(np.mean(ours > theirs))])[0]
    medians = f"medians {np.median(ours):.3f}, {np.median(theirs):.3f}"
    title = f"{first} better: {better}\nof {counted(len(ours), 'neuron')}\n{medians}"
    dress(axes, x=f"{label}, {name}", y=f"{label}, {first}", title=title, size=SMALL)
