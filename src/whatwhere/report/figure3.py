"""Figure 3: a homogeneous population, how well it is predicted from how many images, and the learned kernels."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from whatwhere.experiments.grid import GridResults
from whatwhere.experiments.points import Point
from whatwhere.report.curves import draw_curve
from whatwhere.report.style import (
    COLOURS,
    DIVERGING,
    GREY,
    SMALL,
    TEXT,
    WIDTH,
    bare,
    counted,
    dress,
    new_figure,
    symmetric_limit,
)
from whatwhere.rows import spaced

SHARING = ("cnn", "posterior", "posterior-constant")
"""Models of all neurons together: a curve for each number of neurons. The others fit each neuron by itself."""
NAMES = {
    "ols": "OLS",
    "lasso": "Lasso",
    "ridge": "Ridge",
    "cnn": "CNN",
    "true-kernel": "true kernel, masks fitted",
    "posterior": "posterior",
    "posterior-constant": "posterior, constant noise",
    "posterior-true-kernel": "true kernel, posterior",
}
LOOKS: dict[str, dict[str, Any]] = {
    "ols": {"color": "0.65", "linestyle": ":", "marker": "v"},
    "lasso": {"color": COLOURS[5], "linestyle": "-.", "marker": "^"},
    "ridge": {"color": COLOURS[1], "linestyle": "-.", "marker": "s"},
    "true-kernel": {"color": "black", "linestyle": "--", "marker": ""},
    "posterior-true-kernel": {"color": COLOURS[3], "linestyle": "--", "marker": ""},
}
SHADES = {"cnn": ("Blues", "o"), "posterior": ("Reds", "D"), "posterior-constant": ("Purples", "P")}
MOST_ROWS = 5  # of kernels in panel C
EXAMPLES = 6  # receptive fields in panel A


def curves(results: GridResults) -> list[tuple[str, int]]:
    """The curves of panel B as (model, n_neurons): all sizes of models that share, of the others the largest."""
    done, found = results.done, []
    for model in [name for name in NAMES if name in set(done["model"])]:
        sizes = sorted({int(size) for size in done.loc[done["model"] == model, "n_neurons"]})
        found += [(model, size) for size in (sizes if model in SHARING else sizes[-1:])]
    return found


def homogeneous_population(results: GridResults) -> Figure:
    """The paper's arrangement: A the population, B FEV against the number of images, C learned kernels.

    Curves are medians over seeds, bars the range; FEV is clipped at 0, as in the paper. Models that fit each neuron by
    itself are shown for the largest population. A kernel's colours go from minus to plus its own largest magnitude.
    """
    shown = curves(results)
    kernels = _kernels(results, shown)
    columns = [curve for curve in shown if any(curve in row for row in kernels.values())]
    heights = [3.3]
    if columns:
        heights.append(0.5 + len(kernels) * min(0.72, WIDTH / (len(columns) + 1)))
    figure = new_figure(WIDTH, sum(heights))
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=[1, 2.5])
    places = {"A": grid[0, 0], "B": grid[0, 1]} | ({"C": grid[1, :]} if columns else {})
    parts = {letter: figure.add_subfigure(place) for letter, place in places.items()}
    for letter, part in parts.items():
        part.text(0.01, 0.99, letter, fontsize=TEXT + 2, fontweight="bold", va="top")
    _draw_population(parts["A"].subplots(), results)
    _draw_curves(parts["B"], results, shown)
    if columns:
        _draw_kernels(parts["C"], kernels, columns)
    return figure


def label(model: str, n_neurons: int) -> str:
    """A curve's name in the legend.

    >>> label("cnn", 1000), label("ridge", 1000)
    ('CNN, 1,000 neurons', 'Ridge')
    """
    return f"{NAMES[model]}, {counted(n_neurons, 'neuron')}" if model in SHARING else NAMES[model]


def _look(model: str, n_neurons: int, shown: Sequence[tuple[str, int]]) -> dict[str, Any]:
    if model in LOOKS:
        return LOOKS[model]
    sizes = [size for name, size in shown if name == model]
    colours, marker = SHADES[model]
    shade = 0.95 - 0.55 * (len(sizes) - 1 - sizes.index(n_neurons)) / max(1, len(sizes) - 1)
    return {"color": matplotlib.colormaps[colours](shade), "linestyle": "-", "marker": marker}


def _draw_curves(part: SubFigure, results: GridResults, shown: Sequence[tuple[str, int]]) -> None:
    axes = part.subplots()
    for model, n_neurons in shown:
        look = {**_look(model, n_neurons, shown), "label": label(model, n_neurons)}
        draw_curve(axes, results.curve(model, n_neurons), look)
    n_images = sorted({int(n) for n in results.done["n_images"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(n_images, [f"{n:,}" for n in n_images], rotation=45 if len(n_images) > 6 else 0)
    axes.xaxis.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    dress(axes, x="number of images (training and validation)", y="FEV")
    part.legend(loc="outside right upper", fontsize=SMALL, frameon=False, handlelength=3)


def _draw_population(axes: Axes, results: GridResults) -> None:
    """The largest population's places, and some of its receptive fields."""
    largest = max(results.points(), key=lambda point: point.n_neurons)
    kept = results.arrays(largest)
    kernel, locations = kept["true_kernel"], kept["true_locations"]
    kernel = kernel if kernel.ndim == 2 else kernel.sum(0)
    height, width = results.asked["image_size"]
    field = np.zeros((height, width))
    corners = np.rint(locations - (np.array(kernel.shape) - 1) / 2).astype(int)
    chosen = _apart(corners, kernel.shape)
    for row, column in corners[chosen]:
        field[row : row + kernel.shape[0], column : column + kernel.shape[1]] += kernel
    limit = symmetric_limit(field)
    axes.imshow(field, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
    axes.plot(*locations[:, ::-1].T, ".", color=GREY, markersize=float(np.clip(30 / len(locations), 0.6, 2)))
    bare(axes)
    dress(axes, x=f"{counted(largest.n_neurons, 'neuron')},\n{height} x {width} pixels", frame=True, size=SMALL)


def _apart(corners: np.ndarray, size: Sequence[int]) -> list[int]:
    """The first neurons whose kernels do not overlap much, at most `EXAMPLES`."""
    chosen: list[int] = []
    for number, corner in enumerate(corners):
        far = [(np.abs(corner - corners[other]) >= 0.6 * np.array(size)).any() for other in chosen]
        if all(far) and len(chosen) < EXAMPLES:
            chosen.append(number)
    return chosen


def _kernels(results: GridResults, shown: Sequence[tuple[str, int]]) -> dict[int, dict[tuple[str, int], np.ndarray]]:
    """By number of images and curve the kernel of the first seed; at most `MOST_ROWS` numbers of images."""
    points = {(point.model, point.n_neurons, point.n_images): point for point in reversed(results.points())}
    numbers = sorted({n_images for _, _, n_images in points})
    found: dict[int, dict[tuple[str, int], np.ndarray]] = {}
    for n_images in [numbers[place] for place in spaced(len(numbers), MOST_ROWS)]:
        for curve in shown:
            point = points.get((*curve, n_images))
            kept = results.arrays(point) if isinstance(point, Point) else {}
            if "kernel" in kept:
                found.setdefault(n_images, {})[curve] = kept["kernel"]
    return found


def _draw_kernels(
    part: SubFigure, kernels: dict[int, dict[tuple[str, int], np.ndarray]], columns: Sequence[tuple[str, int]]
) -> None:
    grid = part.subplots(len(kernels), len(columns), squeeze=False)
    for axes_row, (n_images, row) in zip(grid, kernels.items(), strict=True):
        for axes, curve in zip(axes_row, columns, strict=True):
            bare(axes)
            axes.spines[:].set_linewidth(0.4)
            if curve in row:
                kernel = row[curve].reshape(-1, *row[curve].shape[-2:]).sum(0)
                limit = symmetric_limit(kernel)
                axes.imshow(kernel, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
            else:
                axes.set_visible(False)
        axes_row[0].set_visible(True)
        axes_row[0].set_ylabel(f"{n_images:,}\nimages", fontsize=SMALL)
    for axes, (model, n_neurons) in zip(grid[0], columns, strict=True):
        name = f"{NAMES[model]}\nN = {n_neurons:,}" if model in SHARING else NAMES[model]
        axes.set_title(name, fontsize=SMALL - 1, pad=3)
