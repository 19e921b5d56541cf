"""Optimisers compared: one loss, value against time."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whatwhere.errors import InputError
from whatwhere.optimisers import OptimisationResult
from whatwhere.report.style import COLOURS, GREY, SMALL, WIDTH, counted, dress, new_figure, padded_limits

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
FINEST = 1e-10  # of the first gap: what is nearer to the lowest loss is drawn there


def loss_against_time(results: Mapping[str, OptimisationResult]) -> Figure:
    """The same loss minimised several times from one start: its value, and how far above the lowest, by wall time.

    Left the loss, right its distance from the lowest value that any of them met, on a logarithmic axis, on which a
    method that converges linearly falls along a curve and one that does not levels off. The mark is where each ended:
    filled where it converged. A distance below a ten-billionth of the first is drawn there.

    - `results`: name to what `optimisers.minimise` or `optimisers.fit_full_batch` returned

    Raises `InputError` for no results, or fits that did not start at one value.
    """
    if not results:
        raise InputError("results is empty: expected at least one method's name and its result.")
    starts = np.array([result.values[0] for result in results.values()])
    if not np.allclose(starts, starts[0], rtol=1e-5):
        named = ", ".join(f"{name} at {start:.6g}" for name, start in zip(results, starts, strict=True))
        raise InputError(f"the fits start at different losses ({named}): compare them from the same parameters.")
    lowest = min(result.best_value for result in results.values())
    figure = new_figure(WIDTH, 3.6)
    losses, distances = figure.subplots(1, 2)
    for number, (name, result) in enumerate(results.items()):
        look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
        _draw(losses, result, result.values, look, _label(name, result))
        floor = max(FINEST * (starts[0] - lowest), np.finfo(float).tiny)
        _draw(distances, result, np.maximum(result.values - lowest, floor), look)
    losses.set_ylim(*padded_limits(np.array([lowest, starts[0]]), share=0.08))
    distances.set_yscale("log")
    losses.axhline(lowest, color=GREY, linewidth=0.6, zorder=0)
    for axes, label in ((losses, "loss"), (distances, "loss above the lowest")):
        axes.set_xscale("log")
        dress(axes, x="seconds", y=label)
    figure.legend(loc="outside upper center", ncols=2, fontsize=SMALL, frameon=False, handlelength=3)
    return figure


def _draw(axes: Axes, result: OptimisationResult, values: np.ndarray, look: dict[str, Any], label: str = "") -> None:
    axes.plot(result.seconds, values, linewidth=1.3, label=label or None, **look)
    axes.plot(
        result.seconds[-1],
        values[-1],
        "o",
        markersize=5,
        color=look["color"],
        markerfacecolor=look["color"] if result.converged else "white",
        zorder=3,
    )


def _label(name: str, result: OptimisationResult) -> str:
    end = "converged" if result.converged else "not converged"
    return f"{name}: {counted(result.n_iterations, 'iteration')}, {result.seconds[-1]:.2g} s, {end}"
