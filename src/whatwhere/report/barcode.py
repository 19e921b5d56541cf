"""What each neuron computes: its feature weights as a barcode."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from whatwhere.checks import check_finite, check_ndim, check_same_rows
from whatwhere.report.style import (
    COLOURS,
    DIVERGING,
    SMALL,
    WIDTH,
    bare,
    counted,
    dress,
    dress_colour_bar,
    new_figure,
    numbered_types,
    symmetric_limit,
)


def normalized_barcodes(feature_weights: Any) -> np.ndarray:
    """Each neuron's weights over its largest one: (n_neurons, n_features), in -1 to 1, the largest +1.

    A mask and its feature weights may both change sign, and both their scales, without changing the model.
    Only the weights' signs relative to each other mean something, so the weight of largest magnitude is shown
    as positive. A neuron without weights stays at 0.

    >>> normalized_barcodes([[1.0, -2.0], [0.0, 0.0]])
    array([[-0.5,  1. ],
           [ 0. ,  0. ]])
    """
    weights = np.asarray(feature_weights, float)
    largest = np.take_along_axis(weights, np.abs(weights).argmax(axis=1)[:, None], axis=1)
    return np.divide(weights, largest, out=np.zeros_like(weights), where=largest != 0) + 0.0  # no -0


def barcode_order(feature_weights: Any, types: Any = None) -> np.ndarray:
    """Neurons by type, then by their largest feature, then the purest first: positions (n_neurons,)."""
    weights = np.abs(np.asarray(feature_weights, float))
    sums = weights.sum(axis=1)
    purity = np.divide(weights.max(axis=1), sums, out=np.zeros_like(sums), where=sums > 0)
    _, numbers = numbered_types(types, len(weights))
    return np.lexsort((-purity, weights.argmax(axis=1), numbers))


def barcodes(feature_weights: Any, types: Any = None) -> Figure:
    """Every neuron's feature weights as one line, neurons of a type together.

    Lines are ordered by `barcode_order` and scaled by `normalized_barcodes`: each neuron's weight of largest
    magnitude is +1, so a sign is one relative to it. Of more neurons than the picture has rows of pixels,
    evenly spaced ones are seen.

    - `feature_weights` (n_neurons, n_features); `types` (n_neurons,): names or numbers

    Raises `InputError` where shapes do not fit or weights are not finite.
    """
    weights = np.asarray(feature_weights, float)
    check_ndim("feature_weights", weights, ("n_neurons", "n_features"))
    check_finite("feature_weights", weights, row="neuron")
    names, numbers = numbered_types(types, len(weights))
    check_same_rows("types", len(numbers), "feature_weights", len(weights), each="neuron")
    order = barcode_order(weights, types)
    codes = normalized_barcodes(weights)[order]
    figure = new_figure(float(np.clip(2.6 + 0.16 * weights.shape[1], 3.2, WIDTH)), _height(len(weights)))
    grid = figure.add_gridspec(1, 2, width_ratios=[0.16, max(1.2, 0.16 * weights.shape[1])], wspace=0.02)
    axes = figure.add_subplot(grid[1])
    image = axes.imshow(codes, cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    dress(axes, x="feature", y="" if types is not None else counted(len(weights), "neuron"), frame=True)
    axes.set_yticks([])
    if types is not None:
        _draw_types(figure.add_subplot(grid[0]), axes, names, numbers[order])
    bar = figure.colorbar(image, ax=axes, pad=0.03, aspect=30)
    dress_colour_bar(bar, "weight / neuron's largest")
    if codes.min() >= 0:
        bar.ax.set_ylim(0, 1)
    return figure


def draw_weights(
    part: SubFigure,
    weights: np.ndarray,
    types: np.ndarray,
    names: Sequence[str],
    *,
    feature: str,
    neurons: str,
    bar: str = "weight",
) -> None:
    """Every neuron's weights (n_neurons, n_features) as they are, in the order of `barcode_order`, types apart.

    Features are numbered from 0, as in the arrays. types: (n_neurons,), 0, 1, ...; names: of the types; feature,
    neurons, bar: labels of the axes and the colour bar.
    """
    axes = part.subplots()
    limit = symmetric_limit(weights)
    order = barcode_order(weights, types)
    image = axes.imshow(weights[order], cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    ends = np.cumsum(np.bincount(types)) - 0.5
    for end in ends[:-1]:
        axes.axhline(end, color="black", linewidth=0.6)
    axes.set_xticks(range(weights.shape[1]))
    dress(axes, x=feature, y=neurons, frame=True)
    axes.set_yticks(ends - np.bincount(types) / 2, list(names))
    colours = part.colorbar(image, ax=axes, pad=0.03, aspect=30)
    dress_colour_bar(colours, bar)
    if weights.min() >= 0:
        colours.ax.set_ylim(0, limit)


def _height(n_neurons: int) -> float:
    return float(np.clip(1.2 + 0.03 * n_neurons, 2.2, 5.0))


def _draw_types(strip: Axes, axes: Axes, names: list[str], numbers: np.ndarray) -> None:
    """A strip of the types' colours with their names, and lines between them across the barcodes."""
    n_colours = len(COLOURS)
    strip.imshow(
        numbers[:, None] % n_colours,
        cmap=ListedColormap(COLOURS),
        vmin=-0.5,
        vmax=n_colours - 0.5,
        aspect="auto",
        interpolation="nearest",
    )
    bare(strip)
    strip.spines[:].set_visible(False)
    counts = np.bincount(numbers, minlength=len(names))
    ends = np.cumsum(counts) - 0.5
    for end in ends[:-1]:
        for part in (strip, axes):
            part.axhline(end, color="black", linewidth=0.6)
    if len(names) > 40:  # more than there is room for
        strip.set_ylabel(f"{len(names)} types", fontsize=SMALL)
        return
    strip.set_yticks(ends - counts / 2, [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True)])
    strip.tick_params(labelsize=SMALL, length=0)
    strip.set_ylabel("type (neurons)", fontsize=SMALL)
