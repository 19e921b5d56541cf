"""Figure 5: units of VGG-19, how well they are predicted, and what and where was found."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure, SubFigure

from whatwhere.experiments.fig5 import MODELS, SHARING
from whatwhere.experiments.grid import CurvePoint, GridResults
from whatwhere.experiments.points import Point
from whatwhere.report.barcode import draw_weights
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
    type_look,
)

NAMES = {
    "factorized": "factorised",
    "fixed-mask": "fixed mask",
    "fully-connected": "fully connected",
    "posterior": "posterior",
    "glm": "GLM, ReLU",
}
SHADES = {"factorized": ("Blues", "o"), "posterior": ("Reds", "D")}
LOOKS: dict[str, dict[str, Any]] = {
    "fixed-mask": {"color": COLOURS[2], "linestyle": "--", "marker": "s"},
    "fully-connected": {"color": COLOURS[5], "linestyle": "--", "marker": "^"},
    "glm": {"color": "0.5", "linestyle": ":", "marker": "v"},
}
MOST_MASKS = 4


def curves(results: GridResults) -> list[tuple[str, int]]:
    """The curves of panel B as (model, n_neurons), in the order of `NAMES`."""
    done, found = results.done, []
    for model in [name for name in NAMES if name in set(done["model"])]:
        found += [(model, int(size)) for size in sorted(done.loc[done["model"] == model, "n_neurons"].unique())]
    return found


def label(model: str, n_neurons: int) -> str:
    """A curve's name in the legend.

    >>> label("factorized", 1000)
    'factorised, 1,000 neurons'
    """
    return f"{NAMES[model]}, {counted(n_neurons, 'neuron')}"


def nonlinear_population(results: GridResults) -> Figure:
    """The paper's arrangement: A images and places, B FEV against images, C feature weights, D some masks.

    Curves are medians over seeds, bars the range; FEV is clipped at 0. C and D are those of `shown_point`; a mask's
    circle is where the unit is, a common offset for each feature map removed.
    """
    point = shown_point(results)
    figure = new_figure(WIDTH, 2.9 if point is None else 5.6)
    grid = figure.add_gridspec(1 if point is None else 2, 2, width_ratios=[1, 2.3])
    if point is None:
        _draw_curves(figure.add_subfigure(grid[0, :]), results)
        return figure
    kept = results.arrays(point)
    parts = {
        "A": figure.add_subfigure(grid[0, 0]),
        "B": figure.add_subfigure(grid[0, 1]),
        "C": figure.add_subfigure(grid[1, 0]),
        "D": figure.add_subfigure(grid[1, 1]),
    }
    for letter, part in parts.items():
        part.text(0.01, 0.99, letter, fontsize=TEXT + 2, fontweight="bold", va="top")
    _draw_population(parts["A"], kept)
    _draw_curves(parts["B"], results)
    types = kept["types"]
    names = [str(number) for number in range(int(types.max()) + 1)]
    draw_weights(parts["C"], kept["feature_weights"], types, names, feature="feature map", neurons="units of type")
    _draw_masks(parts["D"], kept)
    return figure


def shown_point(results: GridResults) -> Point | None:
    """The fit of a factorised readout, else of a posterior, to the most neurons and images; None: there is none."""
    for model in SHARING:
        points = [point for point in results.points() if point.model == model]
        if points:
            return max(points, key=lambda point: (point.n_neurons, point.n_images, -point.seed))
    return None


def numbers_of_types(results: GridResults) -> Figure:
    """Panel E: FEV against the number of types, medians over seeds, bars the range, for every number of images."""
    figure = new_figure(WIDTH * 0.7, 2.8)
    axes = figure.subplots()
    done = results.done
    for model in [name for name in MODELS if name in set(done["model"])]:
        for n_images in sorted({int(n) for n in done["n_images"]}):
            rows = done[(done["model"] == model) & (done["n_images"] == n_images)]
            points = [_over_seeds(int(n), rows[rows["n_types"] == n]) for n in sorted(rows["n_types"].unique())]
            if points:
                look = {**_look(model, 0, [(model, 0)]), "label": f"{NAMES[model]}, {n_images:,} images"}
                draw_curve(axes, points, look)
    n_types = sorted({int(n) for n in done["n_types"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(n_types, [str(n) for n in n_types])
    axes.xaxis.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    dress(axes, x="types of neurons (64 units of each)", y="FEV")
    figure.legend(loc="outside right upper", fontsize=SMALL, frameon=False, handlelength=3)
    return figure


def _over_seeds(number: int, rows: Any) -> CurvePoint:
    values = rows["fev_clipped"].to_numpy(float)
    return CurvePoint(number, float(np.median(values)), float(values.min()), float(values.max()), len(values))


def _look(model: str, n_neurons: int, shown: Sequence[tuple[str, int]]) -> dict[str, Any]:
    if model in LOOKS:
        return LOOKS[model]
    sizes = [size for name, size in shown if name == model]
    colours, marker = SHADES[model]
    shade = 0.9 - 0.5 * (len(sizes) - 1 - sizes.index(n_neurons)) / max(1, len(sizes) - 1)
    return {"color": matplotlib.colormaps[colours](shade), "linestyle": "-", "marker": marker}


def _draw_curves(part: SubFigure, results: GridResults) -> None:
    axes = part.subplots()
    shown = curves(results)
    for model, n_neurons in shown:
        look = {**_look(model, n_neurons, shown), "label": label(model, n_neurons)}
        draw_curve(axes, results.curve(model, n_neurons), look)
    n_images = sorted({int(n) for n in results.done["n_images"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(n_images, [f"{n:,}" for n in n_images], rotation=45 if len(n_images) > 5 else 0)
    axes.xaxis.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    dress(axes, x="number of images (training and validation)", y="FEV")
    part.legend(loc="outside right upper", fontsize=SMALL, frameon=False, handlelength=3)


def _draw_population(part: SubFigure, kept: dict[str, np.ndarray]) -> None:
    """An image as the models see it, and the middle of what each unit sees."""
    axes = part.subplots()
    image = kept["examples"][0].transpose(1, 2, 0)
    low, high = image.min(), image.max()
    axes.imshow((image - low) / (high - low if high > low else 1.0), interpolation="nearest")
    types = kept["types"]
    for number in np.unique(types):
        rows, columns = kept["true_locations"][types == number].T
        axes.scatter(columns, rows, s=3, linewidths=0, **type_look(int(number)))
    bare(axes)
    size = f"{image.shape[0]} x {image.shape[1]} pixels"
    dress(
        axes,
        x=f"{counted(len(types), 'unit')} of {counted(int(types.max()) + 1, 'type')},\n{size}",
        frame=True,
        size=SMALL,
    )


def _draw_masks(part: SubFigure, kept: dict[str, np.ndarray]) -> None:
    """The masks of a unit of each of the first types, and circles where these are."""
    masks, places = kept["masks"][:MOST_MASKS], kept["places"][:MOST_MASKS]
    grid = part.subplots(1, len(masks), squeeze=False)[0]
    for number, (axes, mask, (row, column)) in enumerate(zip(grid, masks, places, strict=True)):
        limit = symmetric_limit(mask)
        axes.imshow(mask, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
        axes.plot(column, row, "o", markersize=9, markerfacecolor="none", markeredgecolor=GREY, markeredgewidth=0.8)
        axes.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))
        bare(axes)
        dress(axes, title=f"type {number}", frame=True, size=SMALL)
