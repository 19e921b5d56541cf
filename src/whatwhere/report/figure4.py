"""Figure 4: types of neurons found as the kernels that they choose."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure

from whatwhere.experiments.fig4 import TYPES
from whatwhere.experiments.grid import GridResults
from whatwhere.experiments.points import Point
from whatwhere.report.barcode import draw_weights
from whatwhere.report.style import (
    DIVERGING,
    SMALL,
    TEXT,
    WIDTH,
    bare,
    dress,
    new_figure,
    symmetric_limit,
    type_look,
)


def cell_types(results: GridResults, point: Point) -> Figure:
    """The paper's arrangement for one population, and the places beside it.

    A: receptive fields of three neurons of each type. B: the learned kernels, below them the means of the types that
    they match best. C: every neuron's feature weights; for two types against each other, for more as rows, neurons of
    a type together. D: true (rings) and found (dots) places, joined by lines. A kernel's colours go from minus to plus
    its own largest magnitude.
    """
    kept = results.arrays(point)
    n_types = len(kept["kernels"])
    figure = new_figure(WIDTH, 2.6 + 0.75 * n_types)
    grid = figure.add_gridspec(2, 2, height_ratios=[0.75 * n_types + 0.2, 2.4], width_ratios=[1, 1])
    upper = figure.add_subfigure(grid[0, 0]), figure.add_subfigure(grid[0, 1])
    lower = figure.add_subfigure(grid[1, 0]), figure.add_subfigure(grid[1, 1])
    for letter, part in zip("ABCD", (*upper, *lower), strict=True):
        part.text(0.01, 0.99, letter, fontsize=TEXT + 2, fontweight="bold", va="top")
    factors = TYPES[point.model]
    _draw_kernels(upper[0], kept["examples"], [f"size {factor:.2g}" for factor in factors], ["neuron"] * 3)
    pairs = np.stack([kept["kernels"], kept["type_means"]], axis=1)
    _draw_kernels(upper[1], pairs, [f"kernel {number}" for number in range(n_types)], ["learned", "type's mean"])
    if n_types == 2:
        _draw_scatter(lower[0].subplots(), kept["feature_weights"], kept["types"], factors)
    else:
        names = [f"{factor:.2g}" for factor in factors]
        draw_weights(
            lower[0], kept["feature_weights"], kept["types"], names, feature="kernel", neurons="neurons of size"
        )
    _draw_places(lower[1].subplots(), kept, results.asked["image_size"])
    return figure


def _draw_kernels(part: SubFigure, kernels: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """kernels: (n_rows, n_columns, n_channels, kh, kw)."""
    grid = part.subplots(len(rows), len(columns), squeeze=False)
    for axes_row, kernel_row, name in zip(grid, kernels, rows, strict=True):
        for axes, kernel in zip(axes_row, kernel_row, strict=True):
            bare(axes)
            axes.spines[:].set_linewidth(0.4)
            limit = symmetric_limit(kernel.sum(0))
            axes.imshow(kernel.sum(0), cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
        axes_row[0].set_ylabel(name, fontsize=SMALL)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=SMALL, pad=3)


def _draw_scatter(axes: Axes, weights: np.ndarray, types: np.ndarray, factors: Sequence[float]) -> None:
    for number, factor in enumerate(factors):
        x, y = weights[types == number].T
        axes.scatter(x, y, s=10, linewidths=0.3, edgecolors="white", label=f"size {factor:.2g}", **type_look(number))
    axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.6, zorder=0)
    axes.set_aspect("equal", "datalim")
    axes.legend(fontsize=SMALL, frameon=False, loc="best", handletextpad=0.2)
    dress(axes, x="weight of kernel 0", y="weight of kernel 1")


def _draw_places(axes: Axes, kept: dict[str, np.ndarray], image_size: Sequence[int]) -> None:
    found, true, types = kept["found"], kept["true_locations"], kept["types"]
    height, width = image_size
    joins = np.stack([found, true], axis=1)[:, :, ::-1]  # (n_neurons, 2 ends, x and y)
    axes.add_collection(LineCollection(list(joins), colors="black", linewidths=0.5, zorder=1))
    size = float(np.clip(1500 / len(found), 3, 20))
    for number in np.unique(types):
        look: dict[str, Any] = type_look(int(number))
        (rows, columns), (true_rows, true_columns) = found[types == number].T, true[types == number].T
        axes.scatter(columns, rows, s=size, linewidths=0, zorder=3, **look)
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": look["color"], "linewidths": 0.6}
        axes.scatter(true_columns, true_rows, s=3 * size, zorder=2, **ring)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    dress(axes, x="column (pixels)", y="row (pixels)", frame=True)
