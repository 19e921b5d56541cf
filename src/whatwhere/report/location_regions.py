"""Where neurons look, and how surely: the posterior over locations with its credible regions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import spearmanr

from whatwhere.checks import check_finite, check_ndim, check_same_rows, some_of
from whatwhere.errors import InputError
from whatwhere.location_posterior import credible_regions
from whatwhere.report.outlines import outline
from whatwhere.report.prediction import panel_neurons
from whatwhere.report.style import (
    COLOURS,
    GREY,
    SEQUENTIAL,
    SMALL,
    WIDTH,
    counted,
    dress,
    dress_colour_bar,
    new_figure,
    percent,
)

LEVELS = (0.5, 0.9)
MOST_NEURONS = 16
COLUMNS = 4
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": COLOURS[0], "linewidth": 2.0},
    {"color": COLOURS[1], "linewidth": 1.0},
)
_MARGIN = 2.0  # pixels around what a panel must show
_LEAST = 9.0  # pixels that a panel shows at least
_AT_ONCE = 2**22  # probabilities that are sorted at a time
_SUM_TOLERANCE = 1e-3  # of float32 sums over a large map


def location_regions(
    posterior: Any,
    offset: tuple[float, float],
    image_size: tuple[int, int],
    *,
    neurons: Sequence[int] | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    true_locations: Any = None,
) -> Figure:
    """The posterior over the location of some neurons, its 50 and 90 % credible regions, and its mean.

    One panel a neuron, a window of the image around the 90 % region. Grey is the probability relative to the neuron's
    largest; the thick outline holds the neuron with probability 0.5, the thin one with 0.9
    (`location_posterior.credible_regions`), the cross is the mean of the posterior, the ring the true location. A
    posterior may have several peaks, and its mean may then lie where the neuron hardly can be. Row 0 is on top.

    - `posterior` (n_neurons, h, w), each sums to one (`PosteriorCNN.location_posterior_`); `offset`: row and column in
      the image of its first pixel (`core.map_offset`)
    - `image_size` (height, width), pixels
    - `neurons`: positions of at most 16; by default those of the smallest, the median and the largest 90 % region
    - `names` (n_neurons,): identifiers for the titles; positions by default. `true_locations` (n_neurons, 2): row and
      column in the image

    Raises `InputError` where shapes do not fit, a posterior does not sum to one, or a neuron is not there.
    """
    probabilities = _checked(posterior)
    chosen = _examples(probabilities) if neurons is None else panel_neurons(neurons, len(probabilities), MOST_NEURONS)
    titles = [str(i) for i in range(len(probabilities))] if names is None else [str(name) for name in names]
    check_same_rows("names", len(titles), "posterior", len(probabilities), each="neuron")
    true = None if true_locations is None else np.asarray(true_locations, float)
    if true is not None and true.shape != (len(probabilities), 2):
        raise InputError(
            f"true_locations has shape {true.shape}: expected ({len(probabilities)}, 2), row and column in pixels."
        )
    n_columns = min(len(chosen), COLUMNS)
    n_rows = -(-len(chosen) // n_columns)
    panel = (WIDTH - 0.9) / COLUMNS
    figure = new_figure(max(panel * n_columns + 0.9, 3.2), (panel + 0.6) * n_rows + 0.5)
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for place, (axes, neuron) in enumerate(zip(panels, chosen, strict=False)):
        at = None if true is None else true[neuron]
        _draw(axes, probabilities[neuron].astype(float), offset, image_size, at, f"neuron {titles[neuron]}")
        axes.set_ylabel("row (pixels)" if place % n_columns == 0 else "", fontsize=SMALL)
        axes.set_xlabel("column (pixels)" if place + n_columns >= len(chosen) else "", fontsize=SMALL)
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), SEQUENTIAL), ax=list(panels), shrink=0.7, pad=0.02)
    dress_colour_bar(bar, "probability / largest")
    n_wide = 2 if n_columns < 3 else 4
    figure.legend(
        handles=_handles(true is not None), loc="outside upper center", ncols=n_wide, fontsize=SMALL, frameon=False
    )
    return figure


def region_size_against_score(posterior: Any, scores: Any, *, level: float = 0.9, label: str = "score") -> Figure:
    """A dot a neuron: the number of pixels of its credible region across, its score upwards.

    The title has Spearman's rank correlation of the two. Neurons without a score (NaN) are left out, and counted.

    - `posterior` (n_neurons, h, w), each sums to one; `scores` (n_neurons,)
    - `level`: probability of the region; `label`: which score

    Raises `InputError` where shapes do not fit, a posterior does not sum to one or a score is infinite, `OptionError`
    for a level that is not above 0 and at most 1.
    """
    probabilities, values = _checked(posterior), np.asarray(scores, float)
    check_ndim("scores", values, ("n_neurons",))
    check_same_rows("scores", len(values), "posterior", len(probabilities), each="neuron")
    if np.isinf(values).any():
        raise InputError(f"scores hold {np.isinf(values).sum():,} infinite values: expected finite ones, or NaN.")
    sizes, scored = region_sizes(probabilities, level), ~np.isnan(values)
    figure = new_figure(4.2, 3.2)
    axes = figure.add_subplot()
    faint = float(np.clip(150 / max(scored.sum(), 1), 0.25, 0.8))
    axes.plot(sizes[scored], values[scored], ".", color=COLOURS[0], markersize=5, alpha=faint, markeredgewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(0.8, 1.25 * probabilities[0].size)
    axes.xaxis.set_major_formatter("{x:g}")
    title = counted(int(scored.sum()), "neuron")
    if scored.sum() > 2 and np.ptp(sizes[scored]) and np.ptp(values[scored]):
        title += f", rank correlation {spearmanr(sizes[scored], values[scored]).statistic:.2f}"
    if not scored.all():
        title += f"\nwithout a score: {(~scored).sum():,} of {counted(len(scored), 'neuron')}"
    dress(axes, x=f"size of the {percent([level])[0]} region (pixels of the map)", y=label)
    axes.set_title(title, fontsize=SMALL)
    return figure


def region_sizes(posterior: np.ndarray, level: float = 0.9) -> np.ndarray:
    """How many pixels each neuron's credible region has, (n_neurons,), int; posterior (n_neurons, h, w).

    >>> region_sizes(np.array([[[0.5, 0.1, 0.4]], [[0.0, 1.0, 0.0]]]))
    array([2, 1])
    """
    most = max(1, _AT_ONCE // posterior[0].size)
    parts = [posterior[start : start + most] for start in range(0, len(posterior), most)]
    return np.concatenate([credible_regions(part, level).sum(axis=(1, 2)) for part in parts])


def _checked(posterior: Any) -> np.ndarray:
    probabilities = np.asarray(posterior)
    check_ndim("posterior", probabilities, ("n_neurons", "map height", "map width"))
    if not len(probabilities):
        raise InputError("posterior is empty: expected at least one neuron.")
    check_finite("posterior", probabilities.reshape(len(probabilities), -1), row="neuron")
    sums = probabilities.sum(axis=(1, 2), dtype=float)
    wrong = np.flatnonzero((np.abs(sums - 1) > _SUM_TOLERANCE) | (probabilities < 0).any(axis=(1, 2)))
    if len(wrong):
        raise InputError(
            f"posterior is no probability for neuron {some_of(wrong)}: its sum is {sums[wrong[0]]:.4g}, expected values"
            " of 0 or more that sum to 1. Give location_posterior_, not masks_."
        )
    return probabilities


def _examples(probabilities: np.ndarray) -> list[int]:
    """The positions of the smallest, the median and the largest region, each neuron once."""
    order = np.argsort(region_sizes(probabilities), kind="stable")
    places = [order[0], order[(len(order) - 1) // 2], order[-1]]
    return list(dict.fromkeys(int(neuron) for neuron in places))


def _handles(with_truth: bool) -> list[Line2D]:
    """The legend."""
    handles = [
        Line2D([], [], label=f"{words} region", **look) for words, look in zip(percent(LEVELS), _LOOKS, strict=True)
    ]
    handles.append(Line2D([], [], linestyle="none", marker="+", color="black", label="mean"))
    if with_truth:
        ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "color": "black", "linestyle": "none"}
        handles.append(Line2D([], [], label="true location", **ring))
    return handles


def _draw(
    axes: Axes,
    probability: np.ndarray,
    offset: tuple[float, float],
    image_size: tuple[int, int],
    true: np.ndarray | None,
    name: str,
) -> None:
    (row, column), (height, width) = offset, probability.shape
    extent = (column - 0.5, column + width - 0.5, row + height - 0.5, row - 0.5)
    axes.imshow(
        probability / probability.max(), cmap=SEQUENTIAL, vmin=0, vmax=1, extent=extent, interpolation="nearest"
    )
    regions = [credible_regions(probability[None], level)[0] for level in LEVELS]
    for region, look in zip(regions, _LOOKS, strict=True):
        axes.add_collection(LineCollection(list(outline(region, offset)), capstyle="projecting", **look))
    mean = np.array([(probability * axis).sum() for axis in np.indices(probability.shape)]) + offset
    axes.plot(mean[1], mean[0], "+", color="black", markersize=7)
    shown = np.argwhere(regions[-1]) + np.array(offset)  # (n_pixels, 2)
    points = [shown, mean[None]]
    if true is not None:
        axes.plot(true[1], true[0], "o", markerfacecolor="none", color="black", markersize=7)
        points.append(true[None])
    _zoom(axes, np.concatenate(points), image_size)
    sizes = [f"{words}: {region.sum():,} px" for words, region in zip(percent(LEVELS), regions, strict=True)]
    dress(axes, title="\n".join([name, *sizes]), frame=True, size=SMALL)
    axes.locator_params(nbins=4, integer=True)


def _zoom(axes: Axes, points: np.ndarray, image_size: tuple[int, int]) -> None:
    """A square window around the points, (n, 2) rows and columns, inside the image where that is larger."""
    low, high = points.min(axis=0) - _MARGIN, points.max(axis=0) + _MARGIN
    side = max(_LEAST, float((high - low).max()))
    centre = (low + high) / 2
    limits = []
    for middle, size in zip(centre, image_size, strict=True):
        half = min(side, size) / 2
        middle = np.clip(middle, half - 0.5, size - half - 0.5)
        limits.append((middle - half, middle + half))
    (top, bottom), (left, right) = limits
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
